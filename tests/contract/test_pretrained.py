"""The shipped pretrained models: models, cards and page match the records."""

from __future__ import annotations

import hashlib
import inspect
import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import ganzoo
from ganzoo.checkpoint.pretrained import load
from ganzoo.cli import main
from ganzoo.cli.parsing import datamodule
from ganzoo.cli.paths import configs, record_of
from tests.campaigns import pretrain, pretrain_page, pretrain_search, pretrain_wall
from tests.campaigns.pretrain_models import MODELS, Model

NAMES = ganzoo.list_pretrained()
PLAYERS = ("generator", "discriminator")
every = pytest.mark.parametrize("name", NAMES)


def data_of(name: str):
    return datamodule(record_of(ganzoo.PRETRAINED / name)["settings"]["data"])


def test_every_variant_has_a_config_for_pretraining():
    assert {name.partition("/")[0] for name in pretrain.MODELS} == {name.lower() for name in ganzoo.VARIANTS}


def test_every_config_has_a_model():
    records = [record_of(ganzoo.PRETRAINED / name) for name in NAMES]
    assert {record["config"] for record in records} == {*MODELS} and len(records) == len(NAMES)
    assert sum(record["bytes"] for record in records) < 12e6
    digits = {name for name in MODELS if name.endswith("/digits")}
    assert sum(record["bytes"] for record in records if record["config"] in digits) < 2e6


def built(name: str, **values):
    """The model of a config, with other values of its arguments, without memory."""
    config = yaml.safe_load(configs()[name].read_text())
    variant, data = getattr(ganzoo, config["model"]["class_path"]), datamodule(config["data"])
    names = {key for cls in variant.__mro__ for key in inspect.signature(cls.__init__).parameters}
    shapes = {key: getattr(data, key, None) for key in ("image_size", "channels", "num_classes", "source_channels")}
    shape = {key: value for key, value in shapes.items() if key in names and value}
    given = {key: value for key, value in config["model"]["init_args"].items() if not isinstance(value, dict | list)}
    with torch.device("meta"):
        return variant(**{**shape, **given, **values})


def test_all_models_together_take_less_than_12_megabytes():
    """In half precision, generators less than 0.8 each, if all of them are trained."""
    total = 0.0
    for name, how in MODELS.items():
        model = built(name)
        size = {
            player: sum(w.numel() for w in getattr(model, player).state_dict().values()) * 2e-6 for player in PLAYERS
        }
        whole = hasattr(model, "classify") if how.whole is None else how.whole
        assert size["generator"] <= 0.8, name
        total += sum(size.values()) if whole else size["generator"]
    assert 8 < total < 12


@pytest.mark.parametrize("name", MODELS)
def test_the_config_holds_a_setting_of_the_search_and_that_with_the_best_fid(name):
    model, text = MODELS[name], configs()[name].read_text()
    if not model.settings:
        return
    keys = {frozenset(setting) for setting in model.settings}
    assert len(model.settings) <= 4 and len(keys) == 1, "all settings give the same arguments"
    for setting in model.settings:
        if values := {key: value for key, value in setting.items() if "." not in key}:
            built(name, **values)  # they are arguments of the variant, and valid
    held = pretrain_search.held(text, model.settings[0])
    assert held in model.settings
    rows = pretrain_search.current(configs()[name], name, model, pretrain_search.ROWS)
    assert {row["model"] for row in rows} <= {name}
    if done := len(rows) == len(model.settings):
        assert held == pretrain_search.best(rows)["values"]
    assert done is ("not tuned yet" not in text)


@every
def test_recorded_scores_are_reproduced(name):
    """Within the deviation of another machine: a relative 5e-7 for the FID of the same weights without oneDNN."""
    model, data, record = load(name), data_of(name), record_of(ganzoo.PRETRAINED / name)
    wanted = pretrain_page.scores(record, "quick")
    found = pretrain.quick(model, data)
    assert [score.name for score in found.scores] == [score.name for score in wanted]
    for score, before in zip(found.scores, wanted, strict=True):
        images = 2 / pretrain.QUICK if score.figure == "accuracy" else 0  # one or two borderline images
        assert score.value == pytest.approx(before.value, rel=1e-3, abs=images), score.name
        assert score.protocol == before.protocol
    error = None if record["slim"] else pretrain.error(model, data)  # an untrained D classifies nothing
    assert (error is None) == (record["error"] is None)
    if error is not None:
        assert abs(error["wrong"] - record["error"]["wrong"]) <= 1


@every
def test_records_match_the_stored_files(name):
    folder = ganzoo.PRETRAINED / name
    record, content = record_of(folder), (folder / "model.safetensors").read_bytes()
    assert record["sha256"] == hashlib.sha256(content).hexdigest() and record["bytes"] == len(content)
    assert record["config"].replace("/", "-") == name
    settings = yaml.safe_load(configs()[record["config"]].read_text())
    assert record["settings"] == json.loads(json.dumps(settings)), "the config was changed after the training"
    assert record["steps"] == settings["trainer"]["max_steps"] and record["seed"] == 0
    model = load(name)
    assert type(model).__name__ == record["variant"] and int(model.images_seen) == record["images_seen"]
    assert sum(weight.numel() for weight in model.generator.parameters()) == record["parameters"]["generator"]
    assert record["samples_off"]["by_at_most"] <= (2 if record["dtype"] == "float16" else 0)
    whole = MODELS.get(record["config"], Model()).whole
    assert record["slim"] is not (hasattr(model, "classify") if whole is None else whole)


@every
def test_cards_match_the_records(name):
    folder = ganzoo.PRETRAINED / name
    assert (folder / "README.md").read_text() == pretrain_page.card(name, record_of(folder))


def test_the_page_and_the_readme_match_the_records():
    records = {folder.name: record_of(folder) for folder in pretrain_page.shipped(ganzoo.PRETRAINED)}
    assert list(records) == NAMES
    assert (ganzoo.PRETRAINED / "README.md").read_text() == pretrain_page.page(records)
    text = pretrain_page.README.read_text(encoding="utf-8")
    assert text == pretrain_page.readme(text, records)
    guide = pretrain_page.CHOOSING.read_text(encoding="utf-8")
    assert guide == pretrain_page.choosing(guide, records)


def test_the_wall_matches_the_models():
    """Except for the names, drawn in Pillow's font, and small differences in levels; larger ones with a palette."""
    records = {name: record_of(ganzoo.PRETRAINED / name) for name in NAMES}
    folders = [ganzoo.PRETRAINED / name for name in pretrain_page.one_each(records).values()]
    drawn, there = (
        np.asarray(image.convert("RGB"))
        for image in (pretrain_wall.wall(folders), Image.open(ganzoo.PRETRAINED / "wall.png"))
    )
    assert drawn.shape == there.shape and (ganzoo.PRETRAINED / "wall.png").stat().st_size <= pretrain_wall.MOST
    panel = drawn.shape[1] // 2
    shown = np.arange(2 * panel) % panel >= pretrain_wall.NAMES
    off = np.abs(drawn.astype(int) - there.astype(int))[:, shown]
    with Image.open(ganzoo.PRETRAINED / "wall.png") as file:
        assert (off > 2).mean() < 1e-3 if file.mode == "RGB" else off.mean() < 8


@every
def test_info_and_sample_accept_every_model(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["info", name]) == 0
    out = capsys.readouterr().out
    assert f"# {name}\n" in out and "images seen" in out
    model = load(name)
    if model.source_channels is None:
        assert main(["sample", name, "-n", "2", "--format", "npy"]) == 0
        images = torch.from_numpy(np.load("samples/samples.npy"))
        assert torch.equal(images, torch.from_numpy(model.sample(seeds=range(2), output_type="np")))


def test_list_shows_every_model(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in NAMES)
