"""The page of the learning campaign, made from rows; the trainings themselves are run by hand."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from PIL import Image

from ganzoo.cli.paths import additions, configs
from tests.campaigns import learning_plots
from tests.campaigns.learning import PLACE, basis, last, main, options_of, page, read
from tests.campaigns.learning_measures import command, early, few, in_order
from tests.campaigns.learning_rows import EXPERIMENTS


def row_of(name, arm, seed, **figures):
    return {
        "experiment": name,
        "arm": arm,
        "seed": seed,
        "command": f"python -m ganzoo fit {options_of(name, arm, seed)}",
        "figures": figures,
        "failure": "" if figures else "exit 1",
        "cpu_seconds": 10.0,
    }


def row(arm, seed, **figures):
    return row_of("critic", arm, seed, **figures)


# Experiment, number of the claim, deciding figure, values for which the claim holds, values for which it fails. All
# other arms have the value NEUTRAL, in between, so that a claim that reads the wrong arm fails.
NEUTRAL = 0.5
CLAIMS = [
    ("conditional", 0, "accuracy", {"CGAN": 0.95}, {"CGAN": 0.94, "ACGAN": 1.0}),
    ("conditional", 1, "accuracy", {"ACGAN": 0.95}, {"ACGAN": 0.94, "CGAN": 1.0}),
    ("semi_supervised", 0, "error", {"ImprovedGAN": 0.1}, {"ImprovedGAN": 0.6}),
    ("ebgan_grid", 0, "ebgan_score", {"EBGAN 2/4": 0.6}, {"GAN 2/4": 0.6, "EBGAN-PT 2/2": 0.9}),
    ("ebgan_grid", 1, "ebgan_score", {"EBGAN-PT 4/2": 0.6}, {"EBGAN 4/2": 0.6, "GAN 2/2": 0.1}),
    *(
        ("edges", i, "accuracy", {better: 0.6, worse: 0.4}, {better: 0.4, worse: 0.6})
        for i, (better, worse) in enumerate(
            [("L1+cGAN", "cGAN"), ("L1+cGAN", "L1"), ("cGAN", "L1"), ("cGAN", "GAN"), ("L1", "GAN")]
        )
    ),
    *(
        (name, i, figure, {rule: 0.4, "Adam": 0.6}, {rule: 0.6, "Adam": 0.4})
        for name, figure in (("rules_ring", "kl"), ("rules_digits", "fid"))
        for i, rule in enumerate(
            ["Adam, at once", "OptimisticAdam", "ExtraAdam", "Lookahead", "consensus", "consensus, gamma 0.1"]
        )
    ),
    ("ring_rates", 0, "modes", {"WGANGP": 8}, {"WGANGP": 7, "WGANGP, lr 1e-3": 8, "WGAN": 8}),
    ("grid_rates", 0, "modes", {"WGANGP": 25}, {"WGANGP": 24, "WGANGP, lr 1e-3": 25, "WGAN": 25}),
    ("grid_recipe", 0, "modes", {"WGANGP": 25}, {"WGANGP": 24}),
    *(
        ("few", i, "fid_628", {f"{variant}, 100, {better}": -4.6}, {f"{variant}, 100, {better}": -4.4})
        for i, (variant, better) in enumerate(product(("DCGAN", "WGANGP"), ("DiffAugment", "ADA", "APA", "LeCam")))
    ),
    *(
        ("few_modern", i, "fid_628", {f"{better}, 100, DiffAugment": -4.6}, {f"{better}, 100, DiffAugment": -4.4})
        for i, better in enumerate(["FastGAN", "ProjectedGAN"])
    ),
    *(
        ("ablation", i, figure, {better: 0.5 + sign, worse: 0.5}, {better: 0.5, worse: 0.5 + sign})
        for i, (figure, better, worse, sign) in enumerate(
            [
                ("modes", "RpGAN, R1 and R2", "GAN, R1 and R2", 0.1),
                ("kl", "RpGAN, R1 and R2", "GAN, R1 and R2", -0.1),
                ("modes", "GAN, R1 and R2", "GAN, R1", 0.1),
                ("modes", "RpGAN, R1 and R2", "RpGAN, R1", 0.1),
            ]
        )
    ),
    ("pyramid", 0, "fid", {"LAPGAN": 0.4, "GAN": 0.6}, {"LAPGAN": 0.6, "GAN": 0.4}),
    ("critic", 0, "correlation", {"WGAN": 0.51}, {"WGAN": 0.5, "DCGAN": 0.9}),
    ("critic", 1, "correlation", {"WGAN": 0.6, "DCGAN": -0.4}, {"WGAN": 0.4, "DCGAN": -0.6}),  # by magnitude
]


@pytest.mark.parametrize(("name", "number", "figure", "holding", "failing"), CLAIMS)
def test_claims_hold_or_fail_for_the_given_figures(name, number, figure, holding, failing):
    experiment = EXPERIMENTS[name]
    for values, expected in ((holding, True), (failing, False)):
        found = {arm: dict.fromkeys(experiment.figures, NEUTRAL) for arm in (*experiment.arms, *experiment.search)}
        for arm, value in values.items():
            found[arm][figure] = value
        assert experiment.claims[number].holds(found) is expected, experiment.claims[number].text


def test_every_claim_is_tested_and_every_arm_has_a_config():
    every = {(name, i) for name, experiment in EXPERIMENTS.items() for i in range(len(experiment.claims))}
    assert {(name, number) for name, number, *_ in CLAIMS} == every and len(CLAIMS) == len(every)
    arms = [arm for experiment in EXPERIMENTS.values() for arm in experiment.arms.values()]
    assert {arm.config.split()[0] for arm in arms} <= {*configs(), *additions()}


def test_the_page_shows_means_failures_and_verdicts():
    rows = [row("WGAN", seed, correlation=c, fid=2.0) for seed, c in enumerate((0.9, 0.8, 0.7))]
    rows += [row("DCGAN", 0, correlation=0.95, fid=1.0), row("DCGAN", 1, correlation=0.1, fid=1.0), row("DCGAN", 2)]
    text = page(rows)
    assert "| WGAN | 0.8 ± 0.1 | 2 ± 0 | 3 | 0 | 10 |" in text
    assert "| DCGAN | 0.95, 0.1 | 1, 1 | 3 | 1 | 10 |" in text
    assert "falls as FID falls (a correlation above 0.5): **reproduced** (3 of 3 seeds)" in text
    verdict = "Jensen-Shannon divergence: **depends on the seed** (1 of 2 seeds)"
    assert verdict in text, "a failed seed is no verdict"
    assert text.count("Not run yet.") == len(EXPERIMENTS) - 1 and "**Not run yet:**" not in text
    text = page(rows[:3])
    assert "**Not run yet:** DCGAN." in text and "| DCGAN |" not in text
    text = page([*rows[:3], rows[4]])
    assert "**Not run yet:** further seeds, 2 runs." in text and "**Not run yet:** DCGAN" not in text


def test_early_figures_are_those_after_the_given_batches(tmp_path):
    def report(step, value):
        return {"step": step, "scores": [{"figure": "is", "value": 9.0}, {"figure": "fid", "value": value}]}

    lines = [json.dumps(report(step, value)) for step, value in ((500, 40.0), (1000, 20.0))]
    (tmp_path / "scores.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "scores.json").write_text(json.dumps(report(1200, 10.0)))
    assert early(("fid", 500))(tmp_path) == {"is": 9.0, "fid": 10.0, "fid_500": 40.0}


def test_few_images_are_compared_with_all_portraits_and_with_held_out_ones(tmp_path, monkeypatch):
    def evaluate(verb, run, *options):
        value = {"wgangp/emoji": 30.0, "--split": 70.0}[options[0]]
        Path(options[-1]).write_text(json.dumps({"scores": [{"figure": "fid", "value": value}]}))
        return 1.0, "", ""

    monkeypatch.setattr("tests.campaigns.learning_measures.command", evaluate)
    scores = [{"figure": figure, "value": 0.5} for figure in ("fid", "copying")]
    (tmp_path / "scores.json").write_text(json.dumps({"scores": scores}))
    assert few(tmp_path) == {"fid": 0.5, "copying": 0.5, "fid_628": 30.0, "held_out_fid": 70.0}


def test_in_order_is_strict():
    found = {"a": {"x": 1.0}, "b": {"x": 2.0}, "c": {"x": 2.0}}
    assert in_order("x", "a", "b")(found) and in_order("x", "b", "a", higher=True)(found)
    assert not in_order("x", "a", "b", "c")(found), "a tie is no order"


def test_existing_rows_are_not_run_again(tmp_path, monkeypatch):
    rows = [row("WGAN", 0, correlation=0.5, fid=1.0)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    ran = []

    def run(name, arm, seed, work):
        ran.append((arm, seed))
        return row(arm, seed, correlation=0.0, fid=0.0)

    monkeypatch.setattr("tests.campaigns.learning.run", run)
    assert main(["critic", "--place", str(tmp_path)]) == 0
    assert len(ran) == 5 and ("WGAN", 0) not in ran
    assert len(read(tmp_path / "rows.jsonl")) == 6


def test_a_search_runs_further_seeds_of_the_best_arms_only(tmp_path, monkeypatch):
    experiment, ran = EXPERIMENTS["grid_rates"], []
    quality = {"3e-4": (0.9, 2.0), "1e-3": (0.5, 0.1), "3e-3": (0.4, 0.0)}  # high quality, KL; e^-KL decides

    def run(name, arm, seed, work):
        ran.append((arm, seed))
        share, kl = quality[arm.split()[-1]]
        figures = {"modes": 25 if seed else 24, "high_quality": share, "kl": kl}
        return row_of(name, arm, seed, **({} if arm == "GAN, lr 1e-3" else figures))

    monkeypatch.setattr("tests.campaigns.learning.run", run)
    assert main(["grid_rates", "--place", str(tmp_path)]) == 0
    first, later = [job for job in ran if job[1] == 0], [job for job in ran if job[1] > 0]
    assert len(first) == len(experiment.arms) == 3 * len(experiment.search)
    best = {arm for arm, _ in later}
    assert best == {f"{name}, lr {'3e-3' if name == 'GAN' else '1e-3'}" for name in experiment.search}
    assert len(later) == 2 * len(best)
    page = (tmp_path / "README.md").read_text()
    assert "WGANGP finds all 25 modes: **depends on the seed** (2 of 3 seeds)" in page, "that of the best arm"
    assert "| WGANGP, lr 3e-4 | 24 |" in page and "| WGANGP, lr 1e-3 | 24.7 ± 0.58 |" in page


def test_rows_of_outdated_options_are_reported_and_run_again(tmp_path, monkeypatch):
    old = {**row("WGAN", 0, correlation=0.5, fid=1.0), "command": "python -m ganzoo fit --config wgan/digits"}
    new = row("WGAN", 0, correlation=0.25, fid=1.0)
    assert "**To be repeated:** 1 of 1 runs" in page([old]) and "| WGAN | 0.5 |" in page([old])
    assert "To be repeated" not in page([old, new]) and "| WGAN | 0.25 |" in page([old, new]), "the last one counts"
    (tmp_path / "rows.jsonl").write_text(json.dumps(old) + "\n")
    ran = []
    monkeypatch.setattr(
        "tests.campaigns.learning.run", lambda name, *job: ran.append(job[:2]) or row(*job[:2], fid=0.0)
    )
    main(["critic", "--place", str(tmp_path)])
    assert ("WGAN", 0) in ran


def test_rows_of_changed_configs_are_reported(monkeypatch, tmp_path):
    new = {**row("WGAN", 0, correlation=0.5, fid=1.0), "basis": basis("wgan/digits")}
    assert "To be repeated" not in page([new])
    shutil.copy(configs()["wgan/digits"], tmp_path / "same.yaml")
    changed = (tmp_path / "same.yaml").read_text().replace("max_steps: ", "max_steps: 1")
    for text, stale in ((changed, True), (f"# a comment\n{(tmp_path / 'same.yaml').read_text()}", False)):
        (tmp_path / "other.yaml").write_text(text)
        monkeypatch.setattr("tests.campaigns.learning.configs", lambda: {"wgan/digits": tmp_path / "other.yaml"})
        assert ("**To be repeated:** 1 of 1 runs" in page([new])) is stale


def test_rows_of_outdated_losses_are_reported():
    new = {**row("WGAN", 0, fid=1.0), "experiment": "pyramid", "arm": "GAN"}
    new |= {"command": f"python -m ganzoo fit {options_of('pyramid', 'GAN', 0)}"}
    new |= {"made": {"time": "2026-11-29T02:00:00+00:00"}}
    assert "To be repeated" not in page([new])
    assert "**To be repeated:** 1 of 1 runs" in page([{**new, "made": {"time": "2026-11-28T02:00:00+00:00"}}])


def test_the_arms_of_the_ebgan_grid_share_all_other_settings():
    """Which the configs of EBGAN and MLPGAN do not: latents, widths and EMA differ."""
    settings = {arm.split()[0]: options for arm, (_, options, _) in EXPERIMENTS["ebgan_grid"].arms.items()}
    assert settings["EBGAN"] == settings["GAN"] == settings["EBGAN-PT"].removesuffix(" --model.pull_away_weight 0.1")
    for option in ("z_dim 100", "hidden 400", "d_hidden 256", "ema_half_life null", "ema_ramp_up null"):
        assert f"--model.{option}" in settings["GAN"]


def test_a_failed_command_reports_its_error():
    seconds, printed, failure = command("smaple")
    assert failure.startswith("exit 2") and "no command 'smaple'" in failure and 0 < seconds < 60
    assert command("--version")[1:] == (
        subprocess.run([sys.executable, "-m", "ganzoo", "--version"], capture_output=True, text=True).stdout,
        "",
    )


def test_a_plot_shows_every_finished_run():
    experiment = EXPERIMENTS["pyramid"]
    rows = [row_of("pyramid", "LAPGAN", seed, fid=2.0 + seed, recall=0.5) for seed in range(3)]
    rows += [row_of("pyramid", "GAN", 0, fid=30.0), row_of("pyramid", "DCGAN", 0)]
    found = learning_plots.points(experiment, rows)
    assert list(found) == list(experiment.figures)
    assert found["fid"] == {"LAPGAN": [2.0, 3.0, 4.0], "GAN": [30.0]}, "a failed arm has no line"
    assert found["recall"] == {"LAPGAN": [0.5] * 3, "GAN": []} and found["precision"] == {"LAPGAN": [], "GAN": []}


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("held_out_fid", [3.0, 30.0], True),
        ("kl", [0.01, 1.0], True),
        ("fid", [3.0, 29.0], False),
        ("kl", [0.0, 1.0], False),
        ("recall", [0.01, 1.0], False),
        ("fid", [], False),
    ],
)
def test_distances_that_span_decades_have_a_logarithmic_axis(name, values, expected):
    assert learning_plots.logarithmic(name, values) is expected


def test_the_same_rows_give_the_same_plots_and_page(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.jsonl").write_text(json.dumps(row("WGAN", 0, correlation=0.5, fid=1.0)) + "\n")
        assert main(["--page", "--place", str(tmp_path / folder)]) == 0
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / folder).iterdir()} for folder in ("one", "two"))
    assert one == two and set(one) == {"README.md", "critic.png", "rows.jsonl"}
    assert b"(critic.png)" in one["README.md"] and b"(ring.png)" not in one["README.md"]
    changed = learning_plots.plot({"fid": {"WGAN": [2.0]}})
    assert changed != learning_plots.plot({"fid": {"WGAN": [2.0], "GAN": [1.0]}})


def test_the_committed_page_and_plots_match_the_committed_rows():
    rows = read(PLACE / "rows.jsonl")
    assert (PLACE / "README.md").read_text() == page(rows)
    for name, experiment in EXPERIMENTS.items():
        mine = [row for row in last(rows) if row["experiment"] == name]
        file = PLACE / f"{name}.png"
        assert file.exists() is any(row["figures"] for row in mine), name
        if file.exists():
            assert file.stat().st_size < 30_000
            with Image.open(file) as image:
                assert image.text["Description"] == learning_plots.digest(learning_plots.points(experiment, mine)), (
                    f"{name} is outdated: python -m tests.campaigns.learning --page"
                )
