"""`evaluate`: scores of a checkpoint, a run, or anybody's folder of pictures, and how they were measured."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganzoo.cli import trust
from ganzoo.cli.errors import Arguments, UserError, closest, printable, user_errors
from ganzoo.cli.paths import configs, find_checkpoint, find_config, own_files, pretrained, record_of, run_of

if TYPE_CHECKING:
    from ganzoo.evaluation.choice import Reference
    from ganzoo.evaluation.measure import Evaluation
    from ganzoo.evaluation.record import Report, Score

ARRAYS = (".npy", ".npz")
PICTURES = (".png", ".jpg", ".jpeg", ".webp")  # a single one is none to be scored, nor a checkpoint
READINGS = {  # of figures that are not to be ranked by
    "authenticity": "0 for copies of training images",
    "copying": "0.5 for new images, 1 for copies, 0 for bad ones",
    "copying_z": "above 3: copies",
}
REALS = "a folder, a .npy/.npz, or a config such as dcgan/digits, whose data it is"


def main(verb: str, arguments: Sequence[str]) -> int:
    parser = Arguments(verb, "Scores of a model or of pictures, with their uncertainty and how they were measured.")
    parser.usage = f"{parser.prog} WHAT [REALS] [options]\n       {parser.prog} --compare JSON JSON ..."
    parser.add_argument(
        "what", nargs="?", help="a run, a checkpoint, a trained model, a folder of pictures, or a .npy/.npz"
    )
    parser.add_argument("reals", nargs="?", help=f"real images: {REALS} (default: the run's)")
    parser.add_argument("--metrics", metavar="fid,kid", help="default: all usual ones; --metrics list names them")
    parser.add_argument("-n", type=int, metavar="N", help="fakes (default: 50000 through Inception, else 10000)")
    parser.add_argument("--split", choices=("train", "val", "test"), help="of the reals' data (default: train)")
    parser.add_argument(
        "--extractor", metavar="NAME", help="inception, inception-clean, torchvision-resnet50, digits ..."
    )
    parser.add_argument("--weights", metavar="FILE", help="Inception's weights, where they cannot be downloaded")
    parser.add_argument("--seed", type=int, help="of the fakes (default: 0)")
    parser.add_argument("--raw", action="store_true", help="the generator itself, not its average")
    parser.add_argument("--resize", type=int, metavar="PIXELS", help="bring pictures of folders to one size")
    parser.add_argument("--device", help="cpu, cuda, mps (default: cuda where there is one)")
    parser.add_argument("--variant", metavar="my_file.MyGAN", help="the class of a checkpoint of your own variant")
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=trust.HELP)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="where the record goes (default: beside a run's config, else here)"
    )
    parser.add_argument("--compare", nargs="+", type=Path, metavar="JSON", help="rank records of scores instead")
    options = parser.parse_args(arguments)
    with user_errors():
        if options.compare:
            return _compare(options.compare)
        if options.metrics == "list":
            return _list()
        if options.what is None:
            raise UserError("evaluate what? name a run, a checkpoint, or a folder of pictures")
        options.device = options.device or _device()
        with _processes(options) as first:
            file = _record(options)
            evaluation, subject, title = _prepare(options)
            report = _run(evaluation, subject)
            if first:
                file.parent.mkdir(parents=True, exist_ok=True)
                report.save(file)
                print(f"{title}\n\n{_table(report)}\n\nto cite: {report.cite(report.scores[0])}\nrecord:  {file}")
    return 0


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


# What is measured


def _prepare(options: Any) -> tuple[Evaluation, dict[str, Any], str]:
    """All that can be refused is refused here."""
    from ganzoo.cli.sample import check_device
    from ganzoo.evaluation.choice import METRICS
    from ganzoo.evaluation.measure import Evaluation

    check_device(options.device)
    path = Path(options.what)
    if not path.exists() and options.what in pretrained():
        path = pretrained()[options.what]
    if not path.exists():
        beside = [*(str(file) for file in path.parent.glob("*")), *pretrained()]
        cure = "name a run, a checkpoint, a folder of pictures, or a .npy/.npz of them"
        raise UserError(f"there is no {options.what!r}{closest(options.what, beside, cure)}")
    if options.resize is not None and options.resize < 1:
        raise UserError(f"--resize is {options.resize}; it counts from 1")
    metrics = None if options.metrics is None else [name.strip() for name in options.metrics.split(",")]
    fakes, subject, title, reference = _model(options) if _is_model(path) else _folder(options)
    for name in (metric.partition(":")[0] for metric in metrics or ()):
        if reference is None and name in METRICS and set(METRICS[name].needs) - {"fake"}:
            raise UserError(f"{name} holds images against real ones; name them after {options.what}: {REALS}")
    evaluation = Evaluation(
        fakes, reference, metrics, extractor=options.extractor, weights=options.weights, device=options.device
    )
    if not evaluation.metrics:
        raise UserError(f"none of the usual metrics can be computed of {options.what} alone; name real images: {REALS}")
    if reference is not None:
        title += f"\nagainst {len(reference.sets['real']):,} {reference.split} images of {reference.name}"
    if metrics is None and (missing := _missing(evaluation, reference)):
        title += f"\nnot computed: {', '.join(missing)} (--metrics {missing[0]} says why)"
    if evaluation.extractor is not None:
        title += f"\nthrough {evaluation.extractor.tag}"
    return evaluation, subject, title


def _missing(evaluation: Evaluation, reference: Reference | None) -> list[str]:
    """Usual metrics that someone might look for in vain."""
    from ganzoo.evaluation.choice import choose

    there = {metric.name for metric in evaluation.metrics}
    looked_for = [metric.name for metric in choose(None, reference)]
    conditional = getattr(evaluation.fakes, "labels", None) is not None
    return [name for name in looked_for if name not in there and (name != "accuracy" or conditional)]


def _model(options: Any) -> tuple[Any, dict[str, Any], str, Reference]:
    from ganzoo.cli.sample import import_variant
    from ganzoo.evaluation.choice import usual_count
    from ganzoo.evaluation.record import describe
    from ganzoo.evaluation.sources import Fakes
    from ganzoo.hub import load

    if options.n is not None and options.n < 1:
        raise UserError(f"-n is {options.n}; it counts from 1")
    path = find_checkpoint(options.what)
    run = run_of(path) if path.is_file() else None
    where = options.reals or (str(run) if run else record_of(path).get("config"))
    model = load(path, import_variant(options.variant)).to(options.device)
    if where is None:
        raise UserError(f"{path} lies in no run; name the real images after it: {REALS}")
    if options.raw:
        model.ema = None
    reference = _reference(where, options, model)
    n = options.n or usual_count(options.extractor or reference.extractor)
    seed = options.seed or 0
    subject = {**describe(model, seed), "file": path.name}
    title = (
        f"{n:,} fakes of {subject['name']}, seed {seed}: {subject['weights']} weights of {path} "
        f"({subject['images_seen']:,} training images seen)"
    )
    return Fakes(model, n, seed, reference.sets["real"]), subject, title, reference


def _folder(options: Any) -> tuple[Any, dict[str, Any], str, Reference | None]:
    from ganzoo.evaluation.sources import Reals

    if options.n is not None or options.seed is not None or options.raw or options.variant:
        raise UserError(f"-n, --seed, --raw and --variant are for models; {options.what} is scored as it is")
    if options.split and not options.reals:
        raise UserError(f"--split is of real images; name them after {options.what}: {REALS}")
    pictures = _pictures(options.what, options.resize)
    reference = _reference(options.reals, options) if options.reals else None
    subject = {"name": Path(options.what).resolve().name}
    return Reals(pictures, options.device), subject, f"{len(pictures):,} images of {options.what}", reference


def _reference(name: str, options: Any, model: Any = None) -> Reference:
    """Real images: of a folder, an array, or the data of a config or a run."""
    from ganzoo.evaluation.choice import Reference, usual_split

    path = Path(name)
    if path.is_dir() and not (path / "config.yaml").is_file() or path.suffix.lower() in ARRAYS:
        if options.split:
            raise UserError(f"--split is for data sets; all of {name} is taken")
        pictures = _pictures(name, options.resize)
        eyes = "inception" if pictures.channels == 3 else "inception-grey"
        return Reference(path.resolve().name, "all", {"real": pictures}, eyes)
    if not path.exists() and path.suffix not in (".yaml", ".yml") and name not in configs():
        cure = "python -m ganzoo list shows the configs"
        raise UserError(f"no folder or config {name!r}{closest(name, configs(), cure)}")
    data = _datamodule(path / "config.yaml" if path.is_dir() else find_config(name), options.trust)
    data.prepare_data()
    return Reference.of(data, options.split or (usual_split(model, data) if model else "train"))


def _datamodule(file: Path, trusted: Sequence[str]) -> Any:
    """What a config says under `data`."""
    from ganzoo.cli.parsing import AT, OptionError
    from ganzoo.cli.preflight import read_config

    if not (settings := read_config(file).get("data")):
        raise UserError(f"{file} has no data section; name a config of a training")
    try:
        return datamodule(settings, trusted)
    except OptionError as error:
        raise UserError(f"{file}: {str(error).replace(AT, '')}") from error


def datamodule(settings: Any, trusted: Sequence[str] = ()) -> Any:
    """The data module of a config's `data` section; it may be of a trusted package."""
    from lightning.pytorch import LightningDataModule

    import ganzoo.data  # noqa: F401, so that its classes are found by their bare names
    from ganzoo.cli.parsing import Parser

    own_files()
    trust.guard(trusted)
    parser = Parser()
    parser.add_subclass_arguments(LightningDataModule, "data", required=True)
    return parser.instantiate(parser.parse_object({"data": settings})).data


def _pictures(name: str, size: int | None) -> Any:
    from ganzoo.data import Pictures

    return Pictures(name, image_size=size)


def _is_model(path: Path) -> bool:
    if path.is_dir():
        if path.name == "samples" and (path.parent / "config.yaml").is_file():
            raise UserError(f"{path} holds grids of many samples each; name the run: {path.parent}")
        return (path / "checkpoints").is_dir() or (path / "config.json").is_file()
    return path.suffix.lower() not in (*ARRAYS, *PICTURES)


# The measurement and its record


def _run(evaluation: Evaluation, subject: dict[str, Any]) -> Report:
    from ganzoo.callbacks.scores import progress_bar

    with progress_bar() as progress:
        return evaluation.run(subject, progress)


@contextmanager
def _processes(options: Any) -> Iterator[bool]:
    """Whether this is the first process; under torchrun each takes its share, and a GPU of its own."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield True
        return
    import torch
    import torch.distributed as dist

    cuda = options.device.startswith("cuda")
    if cuda:
        options.device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(options.device)  # where NCCL sends from
    # the others wait while the first computes, which may be longer than the ten minutes that NCCL has patience
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(days=1))
    try:
        yield dist.get_rank() == 0
    finally:
        dist.destroy_process_group()


def _record(options: Any) -> Path:
    """Where the record can be written: as asked for, or the first of scores.json, scores-2.json, ... that is free."""
    from ganzoo.cli.preflight import check_folder

    file = options.json
    if file is None:
        what = Path(options.what)
        folder = what if (what / "config.yaml").is_file() else run_of(what) or Path()
        names = ("scores.json", *(f"scores-{i}.json" for i in range(2, 10_000)))
        file = next(folder / name for name in names if not (folder / name).exists())
    if file.is_dir():
        raise UserError(f"--json {file} is a folder; name a file in it, such as {file / 'scores.json'}")
    check_folder(file.parent, "json FILE in another")
    return file


def _table(report: Report) -> str:
    width = max(len(score.name) for score in report.scores)
    lines = []
    for s in report.scores:
        reading = READINGS.get(s.figure) or s.better and f"{s.better} is better"
        lines.append(f"  {s.name:<{width}}  {figure(s):<18}  {reading}".rstrip())
    kinds: dict[str, list[str]] = {}
    for score in report.scores:
        if score.error is not None:
            kinds.setdefault(score.error_kind, []).append(score.figure)
    return "\n".join([*lines, *(f"  +- of {', '.join(figures)}: {kind}" for kind, figures in kinds.items())])


def figure(score: Score) -> str:
    """`5.31 +- 0.12`: as many decimals as the error has meaning."""
    if not score.error:
        return f"{score.value:.4g}"
    decimals = min(6, max(0, 1 - int(f"{score.error:e}".partition("e")[2])))
    return f"{score.value:.{decimals}f} +- {score.error:.{decimals}f}"


def _list() -> int:
    from ganzoo.evaluation.choice import METRICS, USUAL

    for name, metric in METRICS.items():
        words = " ".join((metric.__doc__ or "").split("\n\n")[0].split())
        settings = "".join(f" {f.name}={f.default}" for f in fields(metric) if f.default is not MISSING)
        usual = "usual" if name in USUAL else ""
        print(f"  {name:<17}{usual:<7}{words.partition('. ')[0].rstrip('.:')}{settings and ';' + settings}")
    print("Settings go with the name, as in --metrics fid,kid:size=500:subsets=20")
    return 0


# Comparing records


def _compare(files: Sequence[Path]) -> int:
    from ganzoo.evaluation.record import Report, difference

    files = list(dict.fromkeys(file / "scores.json" if file.is_dir() else file for file in files))
    if len(files) < 2:
        raise UserError("--compare takes two records of scores or more")
    reports = {file: Report.load(file) for file in files}
    refused, ranked = [], 0
    for name in dict.fromkeys(score.figure for report in reports.values() for score in report.scores):
        found = {f: score for f, report in reports.items() for score in report.scores if score.figure == name}
        first, *others = found.values()
        apart = {
            key: [str(x)[:12] if key.endswith("fingerprint") else str(x) for x in pair]
            for o in others
            for key, pair in difference(first.protocol, o.protocol).items()
        }
        if missing := [str(file) for file in files if file not in found]:
            refused.append(f"{name}: not in {', '.join(missing)}")
        elif apart:
            refused.append(f"{name}: " + "; ".join(f"{key} differs ({a} and {b})" for key, (a, b) in apart.items()))
        else:
            ranked += 1
            weights = {file: printable(report.subject.get("weights", "")) for file, report in reports.items()}
            print(_ranking(found, weights if len(set(weights.values())) > 1 else {}))
    for line in refused:
        print(f"not compared: {printable(line)}", file=sys.stderr)
    if not ranked:
        raise UserError(
            "nothing was measured in the same way; evaluate with the same settings, models of the same image size and "
            "data, then compare"
        )
    return 0


def _ranking(found: dict[Path, Score], weights: dict[Path, str]) -> str:
    """The best first; what lies within two standard errors of the one before it is said to."""
    some = next(iter(found.values()))
    sign = -1 if some.better == "higher" else 1
    order = sorted(found.items(), key=lambda pair: (pair[1].value != pair[1].value, sign * pair[1].value))
    texts = [printable(figure(score)) for _, score in order]
    width = max(map(len, texts))
    lines = [f"{printable(some.name)} ({some.better and some.better + ' is better' or 'not to be ranked by'})"]
    rank = 1
    for i, ((file, score), text) in enumerate(zip(order, texts, strict=True)):
        rank = rank if i and score.value == order[i - 1][1].value else i + 1  # equal scores share theirs
        lines.append(f"  {rank if some.better else '-'}  {text:<{width}}  {file}  {weights.get(file, '')}".rstrip())
        before = order[i - 1][1] if i else None
        if before and some.better and score.error and before.error and "standard error" in score.error_kind:
            near = abs(score.value - before.value) < 2 * (score.error**2 + before.error**2) ** 0.5
            lines[-1] += "  (within two standard errors of the one above)" if near else ""
    return "\n".join(lines)
