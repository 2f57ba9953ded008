"""`bench`: what a training step costs on this machine, beside the loop that people write by hand."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganzoo import __version__
from ganzoo.cli.errors import UserError

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule
    from torch import Tensor, nn

    from ganzoo.data import GANDataModule

GOALS = {"overhead": 500, "step": 0.95}
# Steps of each loop in turn. For `overhead` a block has two pictures, a checkpoint and twenty logs; for `step` blocks
# are short and many, so that the median forgets those in which something else had the processor.
BLOCK = {"overhead": 1000, "step": 4}
REPEATS = {"overhead": 9, "step": 40, "start": 3}
QUICK = {"overhead": 3, "step": 12, "start": 1}
WIDTH = {"cpu": 32, "cuda": 128}  # of the DCGAN

Loop = Callable[["Tensor"], None]  # one step of a plain loop, from real images
Pair = dict[str, float]  # seconds a step: wall and process CPU time, of the fit and of the plain loop


def main(verb: str, arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(f"python -m ganzoo {verb}", description=__doc__)
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where the networks are (default: cpu)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="of torch (default: as many as it takes by itself)")
    parser.add_argument("--only", choices=("overhead", "step", "start"), help="one of the three measurements")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    options = parser.parse_args(arguments)

    import lightning
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here; python -m ganzoo checks says what it sees")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    machine = {
        "device": torch.cuda.get_device_name() if options.device == "cuda" else f"cpu ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "ganzoo": __version__,
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "python": platform.python_version(),
    }
    print(", ".join(f"{key} {value}" for key, value in machine.items()), flush=True)
    raw: dict[str, Any] = {"machine": machine}
    for name in [options.only] if options.only else ["overhead", "step", "start"]:
        measure = {"overhead": overhead, "step": step, "start": start}[name]
        raw[name] = measure(options.device, (QUICK if options.quick else REPEATS)[name])
    if options.json is not None:
        options.json.write_text(json.dumps(raw, indent=2) + "\n")
    return 0


# The three measurements


def overhead(device: str, repeats: int) -> dict[str, list[Pair]]:
    """Time that is added to each step, on networks that take none themselves."""
    print(f"\noverhead: microseconds a step, median (p10 to p90) of {repeats} blocks of {BLOCK['overhead']}")
    raw: dict[str, list[Pair]] = {}
    for name, text, make, everything, goal in (
        ("ganzoo", "ganzoo adds, with logs, pictures and checkpoints", _tiny, True, f"at most {GOALS['overhead']}"),
        ("naive", "a LightningModule as they are often written adds", _naive, False, ""),
    ):
        plain = _plain_loop(*_tiny_networks(), 2, device)
        raw[name] = _race(make(), _noise(1, 2, 8), plain, BLOCK["overhead"], repeats, device, everything)
        added = [1e6 * (pair["fit"] - pair["plain"]) for pair in raw[name]]
        _row(text, added, ",.0f", goal)
    _row("the plain loop takes", [1e6 * pair["plain"] for pair in raw["ganzoo"]], ",.0f")
    return raw


def step(device: str, repeats: int) -> dict[str, list[Pair]]:
    """Time of a DCGAN's step in `Trainer.fit` over that of the same step in a plain loop."""
    from ganzoo.variants.dcgan import DCGAN

    width = WIDTH[device]
    print(
        f"\nstep: DCGAN, 32x32, batch 64, width {width}; fit / plain loop, "
        f"median (p10 to p90) of {repeats} pairs of {BLOCK['step']} steps"
    )
    model = DCGAN(image_size=32, channels=3, width=width)
    networks = _dcgan_networks(width)
    for network, own in zip(networks, (model.generator, model.discriminator), strict=True):  # the same to the last bit
        network.load_state_dict(dict(zip(network.state_dict(), own.state_dict().values(), strict=True)))
    plain = _plain_loop(*networks, 100, device)
    pairs = _race(model, _noise(32, 3, 64), plain, BLOCK["step"], repeats, device, True)
    for text, suffix, goal in (("CPU time", "_cpu", f"at most {GOALS['step']}"), ("wall time", "", "")):
        ratios = [pair[f"fit{suffix}"] / pair[f"plain{suffix}"] for pair in pairs]
        _row(text, ratios, ".3f", goal)
    _row("the plain loop takes, ms", [1e3 * pair["plain"] for pair in pairs], ".1f")
    return {"pairs": pairs}


def start(device: str, repeats: int) -> dict[str, list[float]]:
    """Seconds of whole processes, and to the end of a run's first step."""
    print(f"\nstart: seconds of a new process, median (p10 to p90) of {repeats}")
    raw: dict[str, list[float]] = {}
    ganzoo = [sys.executable, "-m", "ganzoo"]
    fit = [*ganzoo, "fit", "--config=dcgan/digits", "--trainer.max_steps=1"]
    fit.append(f"--trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}")
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            for name, command in {
                "ganzoo fit, the whole of it": [*fit, f"--trainer.default_root_dir={folder}"],
                "ganzoo list": [*ganzoo, "list"],
                "ganzoo --help": [*ganzoo, "--help"],
                "import torch, for scale": [sys.executable, "-c", "import torch"],
            }.items():
                begin = time.time()
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    raise UserError(f"{' '.join(command[1:])}: {done.stderr.strip().rpartition(chr(10))[2]}")
                raw.setdefault(name, []).append(time.time() - begin)
                for reals in Path(folder).glob("*/reals.png") if "fit" in command else ():  # written after step 1
                    raw.setdefault("ganzoo fit, to the end of step 1", []).append(reals.stat().st_mtime - begin)
    for name, seconds in raw.items():
        _row(name, seconds, ".2f")
    return raw


# How two loops are compared


def _race(
    model: LightningModule, data: GANDataModule, plain: Loop, block: int, repeats: int, device: str, everything: bool
) -> list[Pair]:
    """A fit that is interrupted after every block of steps for as many of the plain loop; the first pair warms up.

    Each gets the same real images, which cost the plain loop nothing.

    Args:
        model: any module.
        data: its data.
        plain: one step of the plain loop.
        block: steps of either loop between two changes.
        repeats: how many pairs of blocks count.
        device: cpu or cuda.
        everything: the logger and the callbacks that `fit` sets up, rather than Lightning's own defaults.
    """
    import torch
    from lightning.pytorch import Callback, Trainer

    def clock() -> tuple[float, float]:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()

    def since(begin: tuple[float, float]) -> tuple[float, float]:
        wall, cpu = clock()
        return (wall - begin[0]) / block, (cpu - begin[1]) / block

    pairs: list[Pair] = []

    class Alternate(Callback):
        def __init__(self) -> None:
            self.batches = 0
            self.begin = self.plain = (0.0, 0.0)

        def on_train_batch_start(
            self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
        ) -> None:
            if self.batches % block == 0:
                if self.batches:
                    fit = since(self.begin)
                    pairs.append({"fit": fit[0], "plain": self.plain[0], "fit_cpu": fit[1], "plain_cpu": self.plain[1]})
                trainer.should_stop = len(pairs) > repeats
                # Lightning's import sets it; without a GPU it makes every optimizer step of torch's slower.
                setting = os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
                begin = clock()
                for _ in range(0 if trainer.should_stop else block):
                    plain(batch["image"])
                self.plain = since(begin)
                if setting is not None:
                    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = setting
                self.begin = clock()
            self.batches += 1

    with tempfile.TemporaryDirectory() as folder, _silence():
        own = _fit_setup(Path(folder) / "run") if everything else {"callbacks": []}
        trainer = Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            max_steps=10**9,
            default_root_dir=folder,
            enable_model_summary=False,
            limit_val_batches=0,
            **{**own, "callbacks": [Alternate(), *own["callbacks"]]},
        )
        trainer.fit(model, datamodule=data)
    if len(pairs) <= repeats:  # RunFolder ends the fit after Ctrl-C
        raise KeyboardInterrupt
    return pairs[1:]


def _fit_setup(folder: Path) -> dict[str, Any]:
    """What `fit` gives to the trainer by default, with the bar of a terminal."""
    from lightning.pytorch.callbacks import ModelCheckpoint
    from rich.console import Console

    from ganzoo.callbacks.progress import GANProgress
    from ganzoo.callbacks.samples import Samples
    from ganzoo.cli.run import RunFolder, RunLog

    run, bar = RunFolder(folder, "", RunLog(folder)), GANProgress()
    bar.console = Console(file=io.StringIO(), force_terminal=True, width=100)
    checkpoint = ModelCheckpoint(run.last.parent, "{step:08d}", auto_insert_metric_name=False, every_n_train_steps=1000)
    return {"logger": run.metrics, "callbacks": [run, bar, Samples(film_fps=0), checkpoint]}


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Nothing from Lightning, nor from what it runs."""
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


# What runs


def _plain_loop(generator: nn.Module, discriminator: nn.Module, z_dim: int, device: str) -> Loop:
    """The step of the DCGAN tutorials, with the losses of both halves of D's batch in one backward pass."""
    import torch

    d, g = discriminator.to(device), generator.to(device)
    d_optimizer, g_optimizer = (
        torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=True) for net in (d, g)
    )
    criterion = torch.nn.BCEWithLogitsLoss()

    def play(real: Tensor) -> None:
        ones, zeros = torch.ones(len(real), device=device), torch.zeros(len(real), device=device)
        fake = g(torch.rand(len(real), z_dim, device=device) * 2 - 1)
        d_optimizer.zero_grad()
        (criterion(d(real), ones) + criterion(d(fake.detach()), zeros)).backward()
        d_optimizer.step()
        g_optimizer.zero_grad()
        criterion(d(fake), ones).backward()
        g_optimizer.step()

    return play


def _tiny_networks() -> tuple[nn.Module, nn.Module]:
    """A generator and a discriminator of images [N, 2, 1, 1], which take next to no time."""
    from torch import nn

    class Network(nn.Sequential):
        def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:  # type: ignore[override]
            return super().forward(x)

    return Network(nn.Linear(2, 2), nn.Unflatten(1, (2, 1, 1))), Network(nn.Flatten(), nn.Linear(2, 1), nn.Flatten(0))


def _tiny() -> LightningModule:
    """DCGAN's equations on tiny networks."""
    from ganzoo.variants.dcgan import DCGAN

    model = DCGAN(image_size=8, channels=2, z_dim=2, width=1)
    model.generator, model.discriminator = _tiny_networks()
    model.hparams.update(image_size=1)
    return model


def _naive() -> LightningModule:
    """The same game as many LightningModules on the net play it."""
    import torch
    from lightning.pytorch import LightningModule

    class Naive(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.generator, self.discriminator = _tiny_networks()
            self.criterion = torch.nn.BCEWithLogitsLoss()

        def training_step(self, batch: Any, batch_idx: int) -> None:
            real = batch["image"]
            ones, zeros = torch.ones(len(real), device=self.device), torch.zeros(len(real), device=self.device)
            d_optimizer, g_optimizer = self.optimizers()  # type: ignore[misc,attr-defined]
            fake = self.generator(torch.rand(len(real), 2, device=self.device) * 2 - 1)

            self.toggle_optimizer(d_optimizer)
            d_loss = self.criterion(self.discriminator(real), ones)
            d_loss = d_loss + self.criterion(self.discriminator(fake.detach()), zeros)
            self.log("d_loss", d_loss, prog_bar=True)
            d_optimizer.zero_grad()
            self.manual_backward(d_loss)
            d_optimizer.step()
            self.untoggle_optimizer(d_optimizer)

            self.toggle_optimizer(g_optimizer)
            fake = self.generator(torch.rand(len(real), 2, device=self.device) * 2 - 1)
            g_loss = self.criterion(self.discriminator(fake), ones)
            self.log("g_loss", g_loss, prog_bar=True)
            g_optimizer.zero_grad()
            self.manual_backward(g_loss)
            g_optimizer.step()
            self.untoggle_optimizer(g_optimizer)

        def configure_optimizers(self) -> Any:
            return [
                torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=True)
                for net in (self.discriminator, self.generator)
            ]

    return Naive()


def _dcgan_networks(width: int) -> tuple[nn.Module, nn.Module]:
    """DCGAN's networks for 3x32x32 images, written without ganzoo."""
    from torch import nn

    def up(n_in: int, n_out: int, bias: bool) -> nn.Module:
        return nn.ConvTranspose2d(n_in, n_out, 5, stride=2, padding=2, output_padding=1, bias=bias)

    def down(n_in: int, n_out: int, bias: bool) -> nn.Module:
        return nn.Conv2d(n_in, n_out, 5, stride=2, padding=2, bias=bias)

    w, w2, w4 = width, 2 * width, 4 * width
    generator = nn.Sequential(
        *(nn.Linear(100, w4 * 16, bias=False), nn.Unflatten(1, (w4, 4, 4)), nn.BatchNorm2d(w4), nn.ReLU()),
        *(up(w4, w2, False), nn.BatchNorm2d(w2), nn.ReLU()),
        *(up(w2, w, False), nn.BatchNorm2d(w), nn.ReLU()),
        *(up(w, 3, True), nn.Tanh()),
    )
    discriminator = nn.Sequential(
        *(down(3, w, True), nn.LeakyReLU(0.2)),
        *(down(w, w2, False), nn.BatchNorm2d(w2), nn.LeakyReLU(0.2)),
        *(down(w2, w4, False), nn.BatchNorm2d(w4), nn.LeakyReLU(0.2)),
        *(nn.Flatten(), nn.Linear(w4 * 16, 1), nn.Flatten(0)),
    )
    return generator, discriminator


def _noise(image_size: int, channels: int, batch_size: int) -> GANDataModule:
    """Random bytes as images with labels, in memory."""
    import torch

    from ganzoo.data import ArrayImages, GANDataModule

    class Noise(GANDataModule):
        def __init__(self) -> None:
            super().__init__(batch_size=batch_size)
            self.image_size, self.channels, self.num_classes = image_size, channels, 10

        def make_dataset(self, split: Any) -> ArrayImages:
            images = torch.randint(256, (10_000, channels, image_size, image_size), dtype=torch.uint8)
            return ArrayImages(images, torch.randint(10, (len(images),)))

    return Noise()


def _row(name: str, figures: Sequence[float], form: str, goal: str = "") -> None:
    tenths = statistics.quantiles([*figures] * 2 if len(figures) == 1 else figures, n=10, method="inclusive")
    spread = f"{tenths[0]:{form}} to {tenths[-1]:{form}}"
    print(f"  {name:<50}{statistics.median(figures):>8{form}}  {spread:<18}{goal}".rstrip(), flush=True)
