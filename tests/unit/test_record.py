"""Records of scores: saving and loading, names, citations, and errors for invalid files."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

import ganzoo
from ganzoo.evaluation import record
from ganzoo.evaluation.comparison import difference
from ganzoo.evaluation.interfaces import Extractor
from ganzoo.evaluation.metrics import FID, KID, GaussianModes, InceptionScore
from ganzoo.evaluation.record import Report, Score, count, made, protocol, score_name
from ganzoo.evaluation.sources import Fakes
from tests.variants import small

REALS = {"data": "Digits", "split": "train", "reals": 1397, "data_fingerprint": "d" * 64}


class Named(Extractor):
    preprocessing, citation, channels, num_features, num_classes = "x / 127.5 - 1", "", 1, 4, 10
    network = nn.Identity()

    def __init__(self, name="digits", fingerprint="1a2b3c4d5e"):
        self.name, self.fingerprint = name, fingerprint

    def extract(self, images):
        return {}


def how(metric=None, extractor=None, fakes=10_000, reals=REALS, image="8x8, 1 channels"):
    return protocol(metric or FID(), extractor or Named(), image, fakes, reals, {"truncation": None})


def report(*scores, **subject):
    who = {"name": "DCGAN", "module": "ganzoo", "weights": "averaged", "images_seen": 64, "seed": 3, **subject}
    return Report(who, list(scores) or [score()], made("cpu"))


def score(value=12.5, error: float | None = 0.25, metric=None, **settings):
    p = how(metric, **settings)
    kind = "" if error is None else "standard error over fakes"
    return Score(score_name("fid", p), value, error, kind, "lower", "fid", p)


# Round trip


def test_a_saved_record_is_loaded_unchanged(tmp_path):
    first = report(score(), score(1 / 3, None, KID()), score(-1e-300))
    first.save(tmp_path / "scores.json")
    assert Report.load(tmp_path / "scores.json") == first


def test_a_printed_record_lists_its_scores():
    lines = str(report(score(), score(1 / 3, None, KID()))).splitlines()
    assert [line.split()[1] for line in lines[:2]] == ["12.50", "0.3333"]
    assert lines[2:] == ["  +- of fid: standard error over fakes"]


@pytest.mark.parametrize(
    ("error", "text"),
    [(0.0234, "12.500 +- 0.023"), (3e-7, "12.50000000 +- 0.00000030"), (math.nan, "12.5"), (0, "12.5")],
)
def test_an_error_has_two_digits_if_there_is_one(error, text):
    assert score(12.5, error).readable == text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_null_in_strict_json(value, tmp_path):
    file = tmp_path / "scores.json"
    report(score(value, value)).save(file)

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    content = json.loads(file.read_text(), parse_constant=refuse)
    assert content["scores"][0]["value"] is content["scores"][0]["error"] is None
    found = Report.load(file).scores[0]
    assert math.isnan(found.value) and found.error is None


def test_settings_equal_their_json_round_trip():
    p = how(GaussianModes(((0.0, 1.0), (1.0, 0.0)), 0.01, 1.5))
    assert p == json.loads(json.dumps(p)) and p["settings"]["centers"] == [[0, 1], [1, 0]]


# Names


@pytest.mark.parametrize(
    ("extractor", "fakes", "split", "name"),
    [
        (Named("inception"), 50_000, "train", "fid_50k"),
        (Named("inception"), 10_000, "test", "fid_10k_test"),
        (Named("inception-clean", "ffee00"), 50_000, "train", "fid_inception-clean@ffee_50k"),
        (Named("inception-grey", "ffee00"), 50_000, "train", "fid_inception-grey@ffee_50k"),
        (Named(), 1_000, "train", "fid_digits@1a2b_1k"),
        (Named(), 2_500, "val", "fid_digits@1a2b_2500_val"),
        (Named("torchvision-resnet50", "0123456"), 999, "all", "fid_torchvision-resnet50@0123_999"),
    ],
)
def test_names_contain_extractor_count_and_split(extractor, fakes, split, name):
    assert score_name("fid", how(extractor=extractor, fakes=fakes, reals={**REALS, "split": split})) == name


def test_names_omit_an_unused_extractor_or_split():
    modes = GaussianModes(((0.0, 1.0),), 0.01, 1.5)
    assert score_name("modes", how(modes, fakes=2_500)) == "modes_2500"
    assert score_name("is", how(InceptionScore(), Named("inception"), 50_000, None)) == "is_50k"


@pytest.mark.parametrize(("n", "words"), [(1, "1"), (999, "999"), (1000, "1k"), (1500, "1500"), (50_000, "50k")])
def test_counts_are_abbreviated(n, words):
    assert count(n) == words


# Protocols


def test_difference_names_the_differing_fields():
    assert difference(how(), how()) == {}
    cases = {
        "fakes": how(fakes=5000),
        "split": how(reals={**REALS, "split": "test"}),
        "reals": how(reals={**REALS, "reals": 1000}),
        "data_fingerprint": how(reals={**REALS, "data_fingerprint": "e" * 64}),
        "extractor_fingerprint": how(extractor=Named(fingerprint="1a2b")),
        "image": how(image="16x16, 1 channels"),
    }
    for field, other in cases.items():
        assert difference(how(), other) == {field: (how()[field], other[field])}
    assert set(difference(how(KID()), how(KID(size=500)))) == {"settings"}
    assert difference(how(), how(reals=None))["data"] == ("Digits", None)


def test_protocols_omit_unused_reals_and_extractors():
    modes = how(GaussianModes(((0.0, 1.0),), 0.01, 1.5), reals=None)
    assert "extractor" not in modes and "data" not in modes


# Citations


def test_a_citation_is_one_line_with_all_facts():
    line = report().cite(score())
    said = (
        "fid_digits@1a2b_10k = 12.5",
        "± 0.25 (standard error over fakes)",
        "10,000 fakes of DCGAN",
        "averaged weights",
    )
    said += ("seed 3", "1,397 train images of Digits", "digits@1a2b3c4d: x / 127.5 - 1", "8x8", "ganzoo", "torch 2.")
    assert "\n" not in line
    assert [words for words in said if words not in line] == []
    assert "raw weights" in report(weights="raw").cite(score())


def test_citations_of_pictures_without_error_and_with_settings():
    pictures = replace(report(score(error=None)), subject={"name": "samples"})
    line = pictures.cite(pictures.scores[0])
    assert "10,000 images of samples" in line and "±" not in line and "seed" not in line
    assert "size 1000" in report().cite(score(metric=KID()))
    assert "against 1,397 images of Digits," in report().cite(score(reals={**REALS, "split": "all"}))
    assert "against" not in report().cite(score(metric=InceptionScore(), reals=None))


@pytest.mark.parametrize("ema", [None, 100.0])
def test_the_subject_describes_the_model(ema):
    model = ganzoo.DCGAN(**small("DCGAN"), ema_half_life=ema)
    model.configure_model()
    model.images_seen += 640
    found = Fakes(model, 1, 5).subject
    assert found["weights"] == ("raw" if ema is None else "averaged")
    assert (found["name"], found["images_seen"], found["seed"]) == ("DCGAN", 640, 5)
    json.dumps(found, allow_nan=False)


def test_made_contains_versions_and_commit(monkeypatch, tmp_path):
    found = made(torch.device("cpu"))
    assert found["torch"] == torch.__version__.partition("+")[0] or found["torch"] == torch.__version__
    assert found["device"] == "cpu" and re.fullmatch(r"[0-9a-f]{7,40}(-dirty)?|None", str(found["commit"]))
    record._commit.cache_clear()
    monkeypatch.setattr(record, "__file__", str(tmp_path / "ganzoo" / "evaluation" / "record.py"))
    assert made("cpu")["commit"] is None, "an installed copy has no commit of its own, whatever it lies in"
    record._commit.cache_clear()


# Invalid records


def whole():
    return json.loads(json.dumps(report().as_dict()))


def without(*path):
    content = whole()
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return content


def put(value, *path):
    content = whole()
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return content


HOSTILE = {
    "nothing": "",
    "no JSON": "{",
    "no text": b"\xff\xfe\x00".decode("latin-1"),
    "null": "null",
    "a list": "[]",
    "a number": "7",
    "an object": "{}",
    "deep": "[" * 100_000 + "]" * 100_000,
    "another version": put(2, "schema"),
    "no schema": without("schema"),
    "no scores": without("scores"),
    "no subject": without("subject"),
    "no name": without("subject", "name"),
    "no seed": without("subject", "seed"),
    "scores of no list": put(7, "scores"),
    "scores of numbers": put([7], "scores"),
    "a name of no text": put(7, "scores", 0, "name"),
    "a direction of no text": put(None, "scores", 0, "better"),
    "a direction of a terminal": put("\x1b[31mlower", "scores", 0, "better"),
    "a value of text": put("12.5", "scores", 0, "value"),
    "a value of many": put([1], "scores", 0, "value"),
    "a value beyond all": put(10**400, "scores", 0, "value"),
    "an error of text": put("0.1", "scores", 0, "error"),
    "no value": without("scores", 0, "value"),
    "another field": put(1, "scores", 0, "more"),
    "no protocol": without("scores", 0, "protocol"),
    "a protocol of no fields": put([], "scores", 0, "protocol"),
    "no count": without("scores", 0, "protocol", "fakes"),
    "a count of text": put("many", "scores", 0, "protocol", "fakes"),
    "settings of no fields": put(3, "scores", 0, "protocol", "settings"),
    "a fingerprint of numbers": put(3, "scores", 0, "protocol", "extractor_fingerprint"),
    "made of nothing": put(None, "made"),
    "a subject of text": put("DCGAN", "subject"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_invalid_records_are_refused_in_one_line(case, tmp_path):
    content, file = HOSTILE[case], tmp_path / "scores.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="latin-1")
    with pytest.raises(ValueError, match="is not a record of scores") as caught:
        Report.load(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_record_raises_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        Report.load(tmp_path / "scores.json")


def test_only_figures_defined_by_inception_leave_it_out():
    inception = {"fid", "is", "kid", "sfid", "intra_fid", "fid_infinity"}
    names = {*inception, "precision", "recall", "density", "coverage", "authenticity", "copying"}
    plain = {name for name in names if "@" not in score_name(name, how(extractor=Named("inception")))}
    assert plain == inception
