"""The experiments of `python -m tests.campaigns.learning`: their arms, columns and claims."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.campaigns.learning_measures import (
    LIMIT,
    NOISE,
    Figures,
    Found,
    at_least,
    better_few,
    course,
    early,
    few,
    final,
    in_order,
    mean_of,
    strength_in_order,
    test_error,
    with_held_out,
)


class Arm(NamedTuple):
    """A committed config and options, in which `{seed}` is replaced by the seed.

    Attributes:
        since: UTC time of the last change of the variant's equations or networks; older rows must be run again.
    """

    config: str
    options: str = ""
    since: str = ""


class Claim(NamedTuple):
    """A claim of a paper, and whether it holds for the figures of one seed."""

    text: str
    holds: Callable[[Found], bool]


@dataclass(frozen=True)
class Experiment:
    """A comparison of arms.

    Attributes:
        title: one line.
        arms: by name.
        figures: columns of the table.
        claims: from the papers.
        measure: maps a run's folder to its figures.
        seeds: number of seeds, from 0.
        note: the protocol, for the page.
        search: arms with different settings of one method, by the method's name. All arms run with seed 0, the others
            seeds only with the best arm of each method, for which the claims are judged.
        limit: CPU seconds per row.
    """

    title: str
    arms: dict[str, Arm]
    figures: tuple[str, ...]
    claims: tuple[Claim, ...]
    measure: Callable[[Path], Figures]
    seeds: int = 3
    note: str = ""
    search: dict[str, tuple[str, ...]] = field(default_factory=dict)
    limit: int = LIMIT

    def due(self, first: Found) -> list[tuple[str, int]]:
        """Arms and seeds to run, given the figures of the runs with seed 0 ({}: the run failed)."""
        if not self.search:
            return [(arm, seed) for seed in range(self.seeds) for arm in self.arms]
        best = self.best(first)
        others = range(1, self.seeds)
        return [(arm, 0) for arm in self.arms] + [(best[name], seed) for seed in others for name in best]

    def best(self, first: Found) -> dict[str, str]:
        """The best arm of each method of `search` whose runs with seed 0 are complete: the one with the largest share
        of high quality times effective number of modes, e^-KL of all."""
        found = {}
        for name, arms in self.search.items():
            if all(arm in first for arm in arms) and (good := [arm for arm in arms if first[arm]]):
                found[name] = max(good, key=lambda arm: first[arm]["high_quality"] * math.exp(-first[arm].get("kl", 9)))
        return found


CHANGED = "2026-11-29T01:12"  # GAN, LAPGAN, ImprovedGAN, ACGAN and Pix2Pix were aligned with their authors' code
FEW = "--data.label_seed {seed} --trainer.max_steps 3000 --scores.final_n 0"
RESIZED = "2026-11-29T14:50"  # WGANGP by role has resize convolutions
SEARCHED = (
    "PacGAN's protocol, with three trials instead of ten: 2,500 samples; a sample within 3 sigma of the nearest mode "
    "has high quality, and a mode with such a sample is found. `kl`: divergence of the high-quality samples' modes "
    "from the uniform distribution, in nats. The same search for all: three learning rates, seed 0; then two more "
    "seeds of the best by `high_quality` times e^-`kl`. 24,000 batches of 256 (12,000 for arms with R1 and R2). The "
    "search prefers the lowest rate, 3e-4, for WGAN, EBGAN and others; lower ones were not tried, nor WGAN's "
    "published 5e-5. Seed 0 chose the rate, and is one of the three. ReLU networks with four layers of 128 units; "
    "EBGAN's D is an auto-encoder. WGANGP has the penalty of 0.1 and the five critic updates of its authors' code for "
    "such points, but not their 512 units and 100,000 updates of G."
)
R1_AND_R2 = "--model.penalties R1 --model.penalties.weight 0.2 --model.penalties+ R2 --model.penalties.weight 0.2"
METHODS = {  # config without the layout, options, batches
    "GAN": ("mlpgan/{}", "", 24000),
    "GAN, R1 and R2": ("mlpgan/{}", R1_AND_R2, 12000),
    "hinge": ("mlpgan/{}", "--model.objective hinge", 24000),
    "relativistic": ("mlpgan/{}", "--model.objective relativistic", 24000),
    "relativistic, R1 and R2": ("mlpgan/{}", f"--model.objective relativistic {R1_AND_R2}", 12000),
    "LSGAN": ("lsgan/{}", "", 24000),
    "WGAN": ("wgan/{}", "", 24000),
    "WGANGP": ("wgangp/{}", "--model.penalty 0.1 --model.n_critic 5", 24000),
    "EBGAN": ("ebgan/{}", "", 24000),
}
RECIPE = "--model.width 512 --model.penalty 0.1 --model.n_critic 5 --model.optimizer.lr 1e-4"
RATES = ("3e-4", "1e-3", "3e-3")


def modes(layout: str, count: int) -> Experiment:
    """Every objective on a mixture of Gaussians, after a search of the learning rate."""
    search = {name: tuple(f"{name}, lr {rate}" for rate in RATES) for name in METHODS}
    arms = {}
    for name, (config, options, steps) in METHODS.items():
        for arm, rate in zip(search[name], RATES, strict=True):
            asked = f"{options} --model.optimizer.lr {rate} --trainer.max_steps {steps}".lstrip()
            arms[arm] = Arm(config.format(layout), asked)
    title = {"ring": "Eight modes on a ring", "grid": "Twenty-five modes on a grid"}[layout]
    claim = Claim(f"WGANGP finds all {count} modes", at_least("modes", count, "WGANGP"))
    return Experiment(title, arms, ("modes", "high_quality", "kl"), (claim,), final, note=SEARCHED, search=search)


NETWORKS = [(layers_g, layers_d) for layers_g in (2, 4) for layers_d in (2, 4)]


ALIKE = (  # overrides the latents, widths and averaged generator of both configs
    "--model.z_dim 100 --model.hidden 400 --model.d_hidden 256 --model.ema_half_life null --model.ema_ramp_up null "
    "--data.image_size 8 --data.batch_size 64 --trainer.max_steps 3000 --scores.metrics [fid,ebgan_score]"
)


def grid_arms() -> dict[str, Arm]:
    arms = {}
    for g, d in NETWORKS:
        sizes = f"--model.layers_g {g} --model.layers_d {d} {ALIKE}"
        arms[f"EBGAN {g}/{d}"] = Arm("ebgan/digits", sizes)
        arms[f"EBGAN-PT {g}/{d}"] = Arm("ebgan/digits", f"{sizes} --model.pull_away_weight 0.1")
        arms[f"GAN {g}/{d}"] = Arm("mlpgan/digits", sizes)
    return arms


RULES = {
    "Adam": "rules/adam",
    "Adam, at once": "rules/simultaneous",
    "OptimisticAdam": "rules/optimistic-adam",
    "ExtraAdam": "rules/extra-adam",
    "Lookahead": "rules/lookahead",
    "consensus": "rules/consensus",
    "consensus, gamma 0.1": "rules/consensus --model.consensus 0.1",
}
RULE_RATES = (
    "all rules use Adam's steps with lr 1e-3 and betas .5 and .9 (`configs/rules/`). ExtraAdam makes half as many "
    "updates with the same batches; a consensus step takes two to three times as long."
)


def better_than_adam(figure: str) -> tuple[Claim, ...]:
    return tuple(
        Claim(f"{rule} ends with a lower {figure} than Adam", in_order(figure, rule, "Adam"))
        for rule in RULES
        if rule != "Adam"
    )


BRIEF = "--trainer.max_steps -1 --trainer.max_time 00:00:02:00 --scores.every_n_steps 500 --scores.final_n 5000"
SLOWER_D = "--model.discriminator_optimizer FusedAdam --model.discriminator_optimizer.lr 1e-4"
SLOWER_D += " --model.discriminator_optimizer.beta1 0.5"
LIKE_DCGAN = "--model.width 20 --model.z_dim 64 --model.optimizer.lr 5e-4 --model.ema_half_life 5000"
LIKE_DCGAN += " --model.ema_ramp_up 0.1"

# Option, and steps in five CPU minutes of DCGAN and of WGANGP, from `python -m tests.benchmarks --only options`
AGAINST_FEW = {
    "none": ("", "", 4900, 3700),
    "DiffAugment": ("DiffAugment", "DiffAugment", 4200, 3000),
    "ADA": ("ADA --model.augment.ramp 100000", "ADA --model.augment.p 0.2", 2700, 1800),
    "APA": ("APA --model.augment.ramp 100000", "APA --model.augment.p 0.2", 4400, 3300),
    "LeCam": ("LeCam", "LeCam", 4800, 3600),
}


SCORED_FEW = "--scores.metrics [fid,authenticity] --scores.every_n_steps 100000 --scores.final_n 5000"

# Options that make the data equal, and steps in ten CPU minutes without augmentation, with DiffAugment and with ADA
MODERN = {
    "DCGAN": ("dcgan/emoji --data.flip true", 8000, 6600, 4400),
    "R3GAN": ("r3gan/emoji --model.conditional false", 3900, 3500, 2900),
    "FastGAN": ("fastgan/emoji", 3500, 2900, 3000),
    "ProjectedGAN": ("projectedgan/emoji", 1700, 1600, 1400),
}


AUGMENTED = {"none": "null", "DiffAugment": "DiffAugment", "ADA": "ADA --model.augment.ramp 100000"}


def modern_arms() -> dict[str, Arm]:
    arms = {}
    for limit, name in (("--data.limit 100", "100"), ("", "all")):
        for variant, (asked, *steps) in MODERN.items():
            config, _, equal = asked.partition(" ")
            for (option, chosen), most in zip(AUGMENTED.items(), steps, strict=True):
                if variant == "R3GAN":  # its schedules end with the training, that of p included
                    seen = 16 * most
                    chosen = chosen.replace("ramp 100000", f"p 0 --model.augment.p_end 0.3 --model.augment.ramp {seen}")
                    chosen += f" --model.burn_in {seen}"
                text = f"{limit} {equal} --model.augment {chosen} --trainer.max_steps {most} {SCORED_FEW}"
                arms[f"{variant}, {name}, {option}"] = Arm(config, " ".join(text.split()))
    return arms


def few_arms() -> dict[str, Arm]:
    arms = {}
    for limit, name in (("--data.limit 100", "100"), ("", "all")):
        for player in (0, 1):
            for option, values in AGAINST_FEW.items():
                key = "--model.penalties" if option == "LeCam" else "--model.augment"
                chosen = f"{key} {values[player]} " if values[player] else ""
                variant = ("DCGAN", "WGANGP")[player]
                text = f"{limit} {chosen}--trainer.max_steps {values[2 + player]} {SCORED_FEW}".strip()
                arms[f"{variant}, {name}, {option}"] = Arm(f"{variant.lower()}/emoji", text)
    return arms


EXPERIMENTS = {
    "conditional": Experiment(
        "Do the images show the requested digit?",
        {"CGAN": Arm("cgan/digits"), "ACGAN": Arm("acgan/digits", since=CHANGED)},
        ("accuracy", "fid", "held_out_fid", "authenticity", "copying"),
        (
            Claim("CGAN: 95 % of the images show the requested class", at_least("accuracy", 0.95, "CGAN")),
            Claim("ACGAN: 95 % of the images show the requested class", at_least("accuracy", 0.95, "ACGAN")),
        ),
        with_held_out,
        note="scikit-learn's digits, 10,000 fakes. `copying` is the probability that a fake is nearer to the training "
        "images than a held-out real: 0.5 is ideal, 1 means copies.",
    ),
    "semi_supervised": Experiment(
        "Do unlabelled images help a classifier with 100 labels?",
        {
            "ImprovedGAN": Arm("improvedgan/digits", FEW, CHANGED),
            "supervised only": Arm("improvedgan/digits", f"{FEW} --model.unsupervised_weight 0", CHANGED),
        },
        ("error",),
        (Claim("unlabelled images lower the error", in_order("error", "ImprovedGAN", "supervised only")),),
        test_error,
        seeds=10,
        note="Ten random choices of 10 labels per class among 1,397 training digits, the same for both arms; 3,000 "
        "batches each. `error`: fraction of the 200 test digits that is misclassified.",
    ),
    "ebgan_grid": Experiment(
        "EBGAN and GAN with networks of two and four layers",
        grid_arms(),
        ("ebgan_score", "fid"),
        (
            Claim(
                "EBGAN has a higher mean `ebgan_score` than GAN",
                lambda found: mean_of("ebgan_score", "EBGAN", found) > mean_of("ebgan_score", "GAN", found),
            ),
            Claim(
                "the pull-away term raises the mean `ebgan_score`",
                lambda found: mean_of("ebgan_score", "EBGAN-PT", found) > mean_of("ebgan_score", "EBGAN", found),
            ),
        ),
        final,
        note="Part of the paper's grid, on digits instead of MNIST, 3,000 batches of 64. Arm names end in "
        "nLayerG/nLayerD. All arms have 100 latents, widths of 400 and 256 and no averaged generator. Each has one "
        "optimizer: EBGAN Adam with lr 1e-3; GAN SGD with lr 0.01, the optimizer of the best GAN in the paper's grid. "
        "`ebgan_score`: the paper's I', higher is better.",
    ),
    "edges": Experiment(
        "Edges to digits with four objectives",
        {
            "L1": Arm("pix2pix/digits", "--model.gan 0", CHANGED),
            "GAN": Arm("pix2pix/digits", "--model.l1 0 --model.conditional false", CHANGED),
            "cGAN": Arm("pix2pix/digits", "--model.l1 0", CHANGED),
            "L1+cGAN": Arm("pix2pix/digits", since=CHANGED),
        },
        ("accuracy", "fid"),
        (
            Claim("L1+cGAN has a higher accuracy than cGAN", in_order("accuracy", "L1+cGAN", "cGAN", higher=True)),
            Claim("L1+cGAN has a higher accuracy than L1", in_order("accuracy", "L1+cGAN", "L1", higher=True)),
            Claim("cGAN has a higher accuracy than L1", in_order("accuracy", "cGAN", "L1", higher=True)),
            Claim("cGAN has a higher accuracy than GAN", in_order("accuracy", "cGAN", "GAN", higher=True)),
            Claim("L1 has a higher accuracy than GAN", in_order("accuracy", "L1", "GAN", higher=True)),
        ),
        final,
        note="On held-out edges. `accuracy`: fraction of the translations in which a classifier of real digits "
        "recognises the source's class, instead of the paper's FCN score. The paper's order (Cityscapes, IoU): L1+cGAN "
        ".17, cGAN .16, L1 .11, GAN .01.",
    ),
    "ring_rates": modes("ring", 8),
    "grid_rates": modes("grid", 25),
    "grid_recipe": Experiment(
        "Twenty-five modes on a grid by the recipe of WGAN-GP's authors",
        {"WGANGP": Arm("wgangp/grid", f"{RECIPE} --trainer.max_steps 60000 --scores.every_n_steps 10000")},
        ("modes", "high_quality_10000", "high_quality_30000", "high_quality", "kl"),
        (Claim("WGANGP finds all 25 modes", at_least("modes", 25, "WGANGP")),),
        early(("high_quality", 10000), ("high_quality", 30000)),
        seeds=1,
        limit=7200,
        note="Networks of four layers of 512 units, a penalty of 0.1, five critic updates and lr 1e-4, as in the "
        "authors' code; 12,000 updates of G, more than an hour of one core: the authors' 100,000 would take nine. "
        "`high_quality_10000` is the share after 10,000 of the 60,000 batches.",
    ),
    "rules_ring": Experiment(
        "Update rules on a ring of Gaussians",
        {rule: Arm("mlpgan/ring", f"--config {config} --trainer.max_steps 4000") for rule, config in RULES.items()},
        ("modes", "high_quality", "kl"),
        better_than_adam("kl"),
        final,
        note=f"MLPGAN, 4,000 batches, the protocol of the other rings; {RULE_RATES}",
    ),
    "rules_digits": Experiment(
        "Update rules on digits",
        {rule: Arm("mlpgan/digits", f"--config {config} --trainer.max_steps 4000") for rule, config in RULES.items()},
        ("fid", "precision", "recall", "coverage"),
        better_than_adam("fid"),
        final,
        note=f"MLPGAN, 8x8 digits, 4,000 batches; {RULE_RATES}",
    ),
    "portraits": Experiment(
        "Emoji: candidates for the first run",
        {
            "WGANGP": Arm("wgangp/emoji", f"--model.norm none {BRIEF}"),
            "WGANGP, layer norm": Arm("wgangp/emoji", f"--model.norm layer {BRIEF}"),
            "the same, 5 critic updates": Arm(
                "wgangp/emoji", f"--model.norm layer --model.n_critic 5 --model.share_fakes false {BRIEF}"
            ),
            "the same, batch 64": Arm("wgangp/emoji", f"--model.norm layer --data.batch_size 64 {BRIEF}"),
            "the same, width 32": Arm("wgangp/emoji", f"--model.norm layer --model.width 32 {BRIEF}"),
            "DCGAN": Arm("dcgan/emoji", BRIEF),
            "DCGAN, width 32": Arm("dcgan/emoji", f"--model.width 32 {BRIEF}"),
            "DCGAN, slower D": Arm("dcgan/emoji", f"{SLOWER_D} {BRIEF}"),
            "LSGAN": Arm("dcgan/emoji", f"--model LSGAN {LIKE_DCGAN} {BRIEF}"),
            "WGANGP by role": Arm("wgangp/emoji-roles", "--scores.every_n_steps 500", RESIZED),
        },
        ("fid_500", "fid", "precision", "recall"),
        (),
        early(("fid", 500)),
        note="Portraits of 32x32 pixels; two minutes per run by the clock, so the number of batches depends on the "
        "machine, except WGANGP by role. WGANGP has one critic "
        "update per generator update, except where the table says 5. `fid_500` is FID of 1,000 fakes after 500 "
        "batches, `fid` that of 5,000 fakes at the end. WGANGP by role is supervised, has batches of 16, all steps of "
        "its config and 10,000 fakes.",
    ),
    "few": Experiment(
        "Augmentation and LeCam with 100 and with 628 images",
        few_arms(),
        ("fid", "fid_628", "held_out_fid", "authenticity"),
        tuple(
            Claim(
                f"{option} lowers `fid_628` of {variant} with 100 images by more than {NOISE:.0f}",
                in_order("fid_628", f"{variant}, 100, {option}", f"{variant}, 100, none", by=NOISE),
            )
            for variant in ("DCGAN", "WGANGP")
            for option in list(AGAINST_FEW)[1:]
        ),
        few,
        seeds=1,
        note="Portraits of 32x32 pixels: 100, spread over 40 roles, or all 628 for training. Arms differ in their "
        "number of batches, so that each trains for about five minutes of one core. `fid` is against the images "
        "trained on, `fid_628` against all 628 (528 of them unseen, of the same roles), `held_out_fid` against "
        "93 test portraits, whose roles are new; 5,000 fakes each. The 628 training portraits themselves have a "
        "held-out FID of 65, so a lower one is not better: it shows distance from the training roles. "
        "With all 628, `authenticity` is 0.41 between two halves of them. One seed: over three seeds FID of such runs "
        "has a standard deviation of 2 (WGANGP) and 3 to 6 (DCGAN), so smaller differences are noise. ADA and APA "
        "have an adaptive p with a ramp of 100,000 images for DCGAN; p is fixed at 0.2 for WGANGP, whose critic has no "
        "logits. WGANGP's gradient penalty is that of D and the transform together; a norm of 1 cannot hold for all "
        "transforms.",
    ),
    "few_modern": Experiment(
        "Variants made for few images, with 100 and with 628 images",
        modern_arms(),
        ("fid", "fid_628", "held_out_fid", "authenticity"),
        (
            Claim(
                "with DiffAugment on 100 images, FastGAN's `fid_628` is more than 5 below DCGAN's",
                better_few("FastGAN"),
            ),
            Claim(
                "with DiffAugment on 100 images, ProjectedGAN's `fid_628` is more than 5 below FastGAN's",
                better_few("ProjectedGAN", "FastGAN"),
            ),
        ),
        few,
        seeds=1,
        limit=1500,
        note="The protocol of the table above, with about ten minutes of one core per arm, and committed configs: all "
        "with mirrored images and without labels; R3GAN's schedules end with the training. FastGAN and ProjectedGAN "
        "are published with DiffAugment, R3GAN with a scheduled ADA.",
    ),
    "ablation": Experiment(
        "R3GAN's ablation on Stacked-MNIST",
        {
            f"{loss}, {penalties}": Arm("r3gan/stacked", f"{asked} --trainer.max_steps 3000".lstrip())
            for loss, first in (("GAN", "--model.relativistic false"), ("RpGAN", ""))
            for penalties, second in (("R1", "--model.r2 false"), ("R1 and R2", ""))
            for asked in [f"{first} {second}".strip()]
        },
        ("modes", "kl"),
        (
            Claim(
                "with R1 and R2, RpGAN finds more modes than GAN",
                in_order("modes", "RpGAN, R1 and R2", "GAN, R1 and R2", higher=True),
            ),
            Claim(
                "with R1 and R2, RpGAN has a lower KL than GAN",
                in_order("kl", "RpGAN, R1 and R2", "GAN, R1 and R2"),
            ),
            Claim("GAN has fewer modes with R1 alone", in_order("modes", "GAN, R1 and R2", "GAN, R1", higher=True)),
            Claim(
                "RpGAN has fewer modes with R1 alone", in_order("modes", "RpGAN, R1 and R2", "RpGAN, R1", higher=True)
            ),
        ),
        final,
        limit=1800,
        note="Triples of MNIST5k instead of MNIST, 3,000 batches of 32 images for each player: 14 to 18 minutes of one "
        "core; 26,000 samples. The paper's table (all of MNIST, a GPU): RpGAN (relativistic pairs) with "
        "R1 and R2: 1,000 modes, `kl` .0781; GAN with R1 and R2: 693, .9270; with R1 alone, both trainings diverge.",
    ),
    "pyramid": Experiment(
        "LAPGAN and single-scale GANs",
        {
            "LAPGAN": Arm("lapgan/digits", since=CHANGED),
            "DCGAN": Arm("dcgan/digits", "--data.image_size 16"),
            "GAN": Arm("gan/digits", "--data.image_size 16", CHANGED),
        },
        ("fid", "precision", "recall", "coverage"),
        (Claim("LAPGAN has a lower FID than GAN", in_order("fid", "LAPGAN", "GAN")),),
        final,
        note="Digits of 16x16 pixels; committed configs, whose budgets differ: LAPGAN sees 256,000 images and averages "
        "its generator, GAN sees 2 million and does not, DCGAN sees 384,000 and does.",
    ),
    "critic": Experiment(
        "Does the critic's loss measure sample quality?",
        {
            "WGAN": Arm("wgan/digits", "--scores.every_n_steps 250 --scores.final_n 1000"),
            "DCGAN": Arm("dcgan/digits", "--scores.every_n_steps 250 --scores.final_n 1000"),
        },
        ("correlation", "fid"),
        (
            Claim(
                "the critic's distance falls as FID falls (a correlation above 0.5)",
                lambda found: found["WGAN"]["correlation"] > 0.5,
            ),
            Claim(
                "it is correlated with FID more strongly than GAN's estimate of the Jensen-Shannon divergence",
                strength_in_order("correlation", "WGAN", "DCGAN"),
            ),
        ),
        course,
        note="`correlation`: Spearman's rank correlation of D's negative loss with FID of 1,000 fakes, every 250 "
        "batches of a training. Absolute values are compared: a loss with a negative correlation is informative, too.",
    ),
}
