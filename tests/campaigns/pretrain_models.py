"""The models that `python -m tests.campaigns.pretrain` ships, and the settings that its search compares."""

from __future__ import annotations

from typing import Any, NamedTuple


class Model(NamedTuple):
    """How a committed config becomes a shipped model.

    Attributes:
        minutes: CPU minutes of its training on one thread; a run of the search has three, and as many fewer steps.
        settings: of the search, at most four: values for the same arguments of the model, by their names in the config.
            The config holds the one with the best FID.
        short: options for the runs of the search, for schedules that must end with them.
        whole: whether D is shipped, too, for fine-tuning; None: if it is a classifier.
    """

    minutes: int = 15
    settings: tuple[dict[str, Any], ...] = ()
    short: str = ""
    whole: bool | None = None


def rates(*values: float) -> tuple[dict[str, Any], ...]:
    return tuple({"optimizer.lr": value} for value in values)


def each(keys: str, *values: tuple[Any, ...]) -> tuple[dict[str, Any], ...]:
    """`each("a b", (1, 2), (3, 4))` is ({a: 1, b: 2}, {a: 3, b: 4})."""
    return tuple(dict(zip(keys.split(), row, strict=True)) for row in values)


USUAL = rates(0.0005, 0.001)
FULLY_CONNECTED = rates(0.0002, 0.0005)
GAMMAS = each("gamma", (0.1,), (0.5,), (2.0,))
FIFTH = "--model.stable 1600 --model.fade 1600"  # of progan/emoji

# Without settings: those that the learning page already compares (its tables have rows of these configs), and digits
MODELS = {
    "gan/emoji": Model(5, FULLY_CONNECTED),
    "cgan/emoji": Model(3, USUAL),  # longer, it gets worse
    "lapgan/emoji": Model(settings=USUAL),
    "dcgan/emoji": Model(5, whole=True),  # longer, it gets worse
    "improvedgan/emoji": Model(
        settings=each(
            "objective kernels optimizer.lr",
            ("feature-matching", 0, 0.001),
            ("non-saturating", 16, 0.001),
        )
    ),
    "infogan/emoji": Model(7, USUAL),
    "ebgan/emoji": Model(
        3,  # longer, it gets worse
        settings=each("margin optimizer.lr", (10, 0.0005), (40, 0.0005), (10, 0.001)),
    ),
    "ladderebgan/emoji": Model(
        settings=each("margin optimizer.lr", (10, 0.0005), (100, 0.0005), (1000, 0.0005)),
        short="--model.margin_images 60000",
        whole=False,  # D has 3.4 MB
    ),
    "mlpgan/emoji": Model(5, FULLY_CONNECTED),
    "acgan/emoji": Model(5, USUAL),
    "lsgan/emoji": Model(5, USUAL),  # longer, it gets worse
    "pix2pix/emoji": Model(),
    "wgan/emoji": Model(
        settings=each("n_critic optimizer.lr", (5, 0.0005), (5, 0.001), (2, 0.0005)),
    ),
    "cyclegan/emoji": Model(settings=each("cycle identity", (10, 0), (3, 0))),
    "wgangp/emoji": Model(),
    "sngan/emoji": Model(),
    "projectiongan/emoji": Model(settings=USUAL),
    "sagan/emoji": Model(),
    "biggan/emoji": Model(20),
    "contragan/emoji": Model(),
    "reacgan/emoji": Model(),
    "r3gan/emoji": Model(60, whole=True),
    "fastgan/emoji": Model(60, whole=True),
    "projectedgan/emoji": Model(60),
    "progan/emoji": Model(settings=rates(0.001, 0.002, 0.003), short=FIFTH),
    "stylegan2/emoji64": Model(60, GAMMAS, whole=True),
    "stylegan3/emoji64": Model(60),
    # Of digits, those that tests, the theory and the notebooks load
    "dcgan/digits": Model(),
    "wgangp/digits": Model(),
    "ladderebgan/digits": Model(),
}
