"""`evaluate`: scores of a run, a checkpoint, or any folder of pictures, with a record of how they were measured."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganzoo.cli import VERBS
from ganzoo.cli.errors import TRUST, Arguments, UserError, number, user_errors
from ganzoo.cli.paths import check_folder, configs, find_checkpoint, find_config, pretrained, record_of, run_of
from ganzoo.core.files import read_text
from ganzoo.core.limits import Count, Positive, Size
from ganzoo.core.text import closest, path_of, printable, quoted, visible

if TYPE_CHECKING:
    from ganzoo.evaluation.comparison import Place
    from ganzoo.evaluation.measure import Evaluation

SETS = (".npy", ".npz", ".zip")  # files of many pictures
PICTURES = (".png", ".jpg", ".jpeg", ".webp")  # a single picture is no checkpoint
UNRELATED = {  # settings that do not change a training
    *("default_root_dir", "logger", "enable_progress_bar", "enable_model_summary", "profiler"),
    *("num_workers", "cache_gb"),
}
REALS = "a run, for its data; a folder, a .npy/.npz/.zip file, or the data of a config such as dcgan/digits"


def main(verb: str, arguments: Sequence[str]) -> int:
    parser = _parser(verb)
    options = parser.parse_args(arguments)
    try:
        return _run(options, parser)
    except UserError as error:
        words = str(error).replace("set range to data, or to [lowest, highest]", "convert them to 8 or 16 bits")
        raise UserError(words) from error


def _run(options: Any, parser: Arguments) -> int:
    with user_errors():
        if options.compare:
            for name, value in vars(options).items():
                if name != "compare" and value != parser.get_default(name):
                    given = value if name in ("what", "reals") else f"-{'-' * (len(name) > 1)}{name}"
                    raise UserError(f"--compare takes no other arguments; leave {given} out")
            return _compare(options.compare)
        if options.metrics == "list":
            return _list()
        if options.what is None:
            raise UserError("nothing to evaluate; name a run, a checkpoint, or a folder of pictures")
        _measure(options)
    return 0


def _parser(verb: str) -> Arguments:
    usage = f"WHAT [REALS] [options]\n       python -m ganzoo {verb} --compare JSON JSON ..."
    parser = Arguments(verb, VERBS[verb].help, usage)
    parser.add_argument(
        "what", nargs="?", help="a run, a checkpoint, a trained model, a folder of pictures, or a .npy/.npz/.zip file"
    )
    parser.add_argument("reals", nargs="?", help=f"real images: {REALS} (default: the run's)")
    parser.add_argument("--metrics", metavar="fid,kid", help="default: those that --metrics list marks as usual")
    parser.add_argument(
        "-n",
        type=number(Count),
        metavar="N",
        help="number of fakes (default: 50,000 for Inception, 26,000 for Stacked MNIST, 2,500 without an extractor, "
        "else 10,000)",
    )
    parser.add_argument(
        "--split",
        choices=("train", "val", "test"),
        help="split of the real images (default: train; for translators val, if it has images)",
    )
    parser.add_argument(
        "--extractor",
        metavar="NAME",
        help="network for the features: inception, inception-clean, torchvision-resnet50, digits ...",
    )
    parser.add_argument("--weights", metavar="FILE", help="file with Inception's weights, if they cannot be downloaded")
    parser.add_argument("--seed", type=int, help="seed of the fakes (default: 0)")
    parser.add_argument("--truncation", type=number(Positive), metavar="T", help="as in sample")
    parser.add_argument("--standing_statistics", type=number(Count), metavar="PASSES", help="as in sample")
    parser.add_argument("--raw", action="store_true", help="use the generator's raw weights, not their moving average")
    parser.add_argument(
        "--resize",
        type=number(Size),
        metavar="PIXELS",
        help="crop and resize pictures from files to PIXELS, or [height, width]",
    )
    parser.add_argument("--device", help="cpu, cuda, mps (default: cuda if available)")
    parser.add_argument("--variant", metavar="my_file.MyGAN", help="the class of your own variant, for its checkpoint")
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=TRUST)
    parser.add_argument(
        "--json", type=path_of, metavar="FILE", help="output file (default: scores.json in the run's folder, else here)"
    )
    parser.add_argument(
        "--compare",
        nargs="+",
        type=path_of,
        metavar="JSON",
        help="rank the scores in these files or runs; evaluate nothing",
    )
    return parser


# What is measured


def _measure(options: Any) -> None:
    """Evaluates, saves and prints. Under torchrun each process evaluates a share; the first one saves and prints."""
    import torch

    from ganzoo.callbacks.base import progress_bar
    from ganzoo.evaluation.processes import is_first, joined

    with joined(options.device or ("cuda" if torch.cuda.is_available() else "cpu")) as device:
        options.device = device
        file = _record(options)
        evaluation, checkpoint = _prepare(options)
        with progress_bar() as progress:
            report = evaluation.run(progress)
        if checkpoint is not None:
            report.subject["file"] = checkpoint.name
        if is_first():
            print(f"{_title(evaluation, checkpoint, options)}\n\n{report}\n")
            print(f"to cite: {visible(report.cite(report.scores[0]))}")
            file = _record(options)  # another evaluation may have taken the name meanwhile
            file.parent.mkdir(parents=True, exist_ok=True)
            report.save(file)
            print(f"record:  {visible(file)}")


def _prepare(options: Any) -> tuple[Evaluation, Path | None]:
    """The validated evaluation, and the model's checkpoint or None."""
    from ganzoo.cli.sample import check_device
    from ganzoo.evaluation.assemble import assemble

    check_device(options.device)
    metrics = None if options.metrics is None else [name.strip() for name in options.metrics.split(",")]
    checkpoint = find_checkpoint(options.what) if _is_model(options.what) else None
    fakes, reals = _model(checkpoint, options) if checkpoint else _pictures(metrics or [], options)
    same = ("n", "split", "extractor", "weights", "device", "resize", "truncation", "standing_statistics")
    given = {name: getattr(options, name) for name in same}
    return assemble(fakes, reals, metrics, seed=options.seed or 0, **given), checkpoint


def _is_model(name: str) -> bool:
    """Whether a name is that of a run, a checkpoint or a trained model, rather than of pictures."""
    path = path_of(name)
    if not path.exists() and name in pretrained():
        path = pretrained()[name]
    if not path.exists():
        beside = [*(str(file) for file in path.parent.glob("*")), *pretrained()]
        cure = "name a run, a checkpoint, a folder of pictures, or a .npy/.npz/.zip file"
        raise UserError(f"no file or model {name!r}{closest(name, beside, cure)}")
    if not path.is_dir():
        return path.suffix.lower() not in (*SETS, *PICTURES)
    if path.name == "samples" and (path.parent / "config.yaml").is_file():
        raise UserError(f"{path} contains grids, not single images; name the run: {path.parent}")
    return (path / "checkpoints").is_dir() or (path / "config.json").is_file()


def _model(path: Path, options: Any) -> tuple[Any, Any]:
    """The model of a checkpoint, and the given real images, by default those of its training."""
    from ganzoo.checkpoint.pretrained import load
    from ganzoo.cli.sample import import_variant

    run = run_of(path) if path.is_file() else None
    where = options.reals or (str(run) if run else record_of(path).get("config"))
    model = load(path, import_variant(options.variant)).to(options.device)
    if where is None:
        raise UserError(f"{path} is not in a run; name the real images after it: {REALS}")
    if options.raw:
        averaged, raw = (network.state_dict() for network in (model.ema or model.generator, model.generator))
        if model.ema is not None and all(averaged[key].equal(value) for key, value in raw.items()):
            raise UserError(f"{path} has the averaged generator only; leave --raw out")
        model.ema = None
    return model, _reals(where, options)


def _pictures(metrics: Sequence[str], options: Any) -> tuple[str, Any]:
    """The path of the pictures, and the given real images or None."""
    from ganzoo.evaluation.choice import METRICS

    for name in ("n", "seed", "raw", "variant", "truncation", "standing_statistics"):
        if all(getattr(options, name) is not value for value in (None, False)):  # a seed of 0 is given
            raise UserError(f"{'-' if name == 'n' else '--'}{name} is for models only; leave it out for {options.what}")
    if options.reals:
        return options.what, _reals(options.reals, options)
    if options.split:
        raise UserError(f"--split needs real images; name them after {options.what}: {REALS}")
    for name in (metric.partition(":")[0] for metric in metrics):
        if name in METRICS and set(METRICS[name].needs) - {"fake"}:
            raise UserError(f"{name} needs real images; name them after {options.what}: {REALS}")
    return options.what, None


def _reals(name: str, options: Any) -> Any:
    """The path of a folder or array of real images, or the data of a config or a run."""
    from ganzoo.cli.parsing import data_of
    from ganzoo.evaluation.processes import prepare

    path = path_of(name)
    if path.is_dir() and not (path / "config.yaml").is_file() or path.suffix.lower() in SETS:
        if options.split:
            raise UserError(f"{name} has no splits; leave --split out")
        return name
    if not path.exists() and path.suffix not in (".yaml", ".yml") and name not in configs():
        cure = "python -m ganzoo list shows the configs"
        raise UserError(f"no folder or config {name!r}{closest(name, configs(), cure)}")
    data = data_of(path / "config.yaml" if path.is_dir() else find_config(name), options.trust)
    prepare(data)
    return data


def _title(evaluation: Evaluation, checkpoint: Path | None, options: Any) -> str:
    """The lines above the scores: what is measured against what."""
    from ganzoo.evaluation.record import sampled

    fakes, reference = evaluation.fakes, evaluation.reference
    lines = [f"{len(fakes):,} images of {options.what}"]
    if checkpoint is not None:
        who = fakes.subject
        lines = [
            f"{len(fakes):,} fakes of {who['name']}, seed {who['seed']}{sampled(fakes.sampling)}: "
            f"{who['weights']} weights of {checkpoint} ({who['images_seen']:,} training images seen)"
        ]
    if reference is not None:
        lines.append(f"against {len(reference.sets['real']):,} {reference.split} images of {reference.name}")
        if "depth" in evaluation.protocols[0]:
            lines.append("more than 8 bits per channel, reduced to 8 for the scores")
    # accuracy is expected of conditional models only
    missing = [name for name in evaluation.missing if name != "accuracy" or fakes.labels is not None]
    if missing:
        lines.append(f"not computed: {', '.join(missing)} (--metrics {missing[0]} shows why)")
    if evaluation.extractor is not None:
        lines.append(f"features: {evaluation.extractor.tag}")
    return "\n".join(map(visible, lines))


# The measurement and its record


def _record(options: Any) -> Path:
    """The record's writable file: --json, or the first of scores.json, scores-2.json, ... that does not exist."""
    file = options.json
    if file is None:
        what = path_of(options.what)
        folder = what if (what / "config.yaml").is_file() else run_of(what) or Path()
        names = ("scores.json", *(f"scores-{i}.json" for i in range(2, 10_000)))
        file = next(folder / name for name in names if not (folder / name).exists())
    if file.is_dir():
        raise UserError(f"--json {file} is a folder; name a file in it, such as {file / 'scores.json'}")
    check_folder(file.parent, "json DIR/FILE")
    return file


def _list() -> int:
    from ganzoo.evaluation.choice import METRICS, USUAL

    for name, metric in METRICS.items():
        words = " ".join((metric.__doc__ or "").split("\n\n")[0].split())
        settings = "".join(f" {f.name}={f.default}" for f in fields(metric) if f.default is not MISSING)
        usual = "usual" if name in USUAL else ""
        print(f"  {name:<17}{usual:<7}{words.partition('. ')[0].rstrip('.:')}{settings and ';' + settings}")
    print("Settings follow the name, as in --metrics fid,kid:size=500:subsets=20")
    return 0


# Comparing records


def _compare(files: Sequence[Path]) -> int:
    from ganzoo.evaluation.comparison import compare, pool_seeds
    from ganzoo.evaluation.record import Report

    files = list(dict.fromkeys(_of_folder(file) if file.is_dir() else file for file in files))
    if len(files) < 2:
        raise UserError("--compare needs two or more records of scores")
    reports = pool_seeds({file: Report.load(file) for file in files}, {file: _training_of(file) for file in files})
    ranked, refused = compare(reports)
    weights = {name: report.subject.get("weights", "") for name, report in reports.items()}
    for places in ranked.values():
        print(_ranking(places, weights if len(set(weights.values())) > 1 else {}))
    for name, reason in refused.items():
        print(f"not compared: {printable(f'{name}: {reason}')}", file=sys.stderr)
    if not ranked:
        raise UserError(
            "no two records were measured in the same way; evaluate with the same settings, image size and data, "
            "then compare"
        )
    return 0


def _of_folder(folder: Path) -> Path:
    """The record in a folder."""
    found = sorted(file for file in folder.glob("scores*.json") if re.fullmatch(r"scores(-\d+)?\.json", file.name))
    if len(found) > 1:
        raise UserError(f"{folder} has several records ({', '.join(file.name for file in found)}); name one of them")
    if not found:
        raise UserError(f"{folder} has no record of scores; write one: python -m ganzoo evaluate {quoted(folder)}")
    return found[0]


def _training_of(record: Path) -> dict[str, Any]:
    """What determines the training of the run in whose folder a record is; empty if there is none."""
    from ganzoo.cli.config import read

    try:
        config = read(record.parent / "config.yaml")
        parent = json.loads(read_text(record.parent / "environment.json")).get("parent")  # of a fine-tuning
        trainer = {key: value for key, value in config["trainer"].items() if key not in UNRELATED}
        data = {key: value for key, value in config["data"]["init_args"].items() if key not in UNRELATED}
        parts = {"model": config["model"], "data": [config["data"]["class_path"], data], "trainer": trainer}
        return {"seed_everything": config["seed_everything"], **parts, "parent": parent}
    except (UserError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}  # other files with these names, or damaged ones


def _ranking(places: Sequence[Place], weights: Mapping[str, str]) -> str:
    first, texts = places[0].score, [place.score.readable for place in places]
    width = max(map(len, texts))
    kinds = list(dict.fromkeys(place.score.error_kind for place in places if place.score.error))
    lines = [f"{first.name} ({f'{first.better} is better' if first.better else 'not for ranking'})"]
    for place, text in zip(places, texts, strict=True):
        line = f"  {place.rank or '-'}  {text:<{width}}  {place.name}  {weights.get(place.name, '')}".rstrip()
        line += f"  (+-: {place.score.error_kind})" if place.score.error and len(kinds) > 1 else ""
        lines.append(line + ("  (within two standard errors of the one above)" if place.near else ""))
    return "\n".join(map(visible, [*lines, f"  +-: {kinds[0]}"] if len(kinds) == 1 else lines))
