"""Quality of the README's training; slow, run by hand: pytest -m slow tests/contract/test_quality.py -s"""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.svm import SVC

import ganzoo
from ganzoo.cli import main
from ganzoo.cli.paths import find_checkpoint
from ganzoo.core.pixels import to_float
from ganzoo.data import Digits


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_dcgan_digits_finds_all_ten_classes(seed, tmp_path, monkeypatch):
    """A classifier trained on real digits assigns every class to at least 3 % of 1,000 samples."""
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", "dcgan/digits", "--seed_everything", str(seed)]) == 0
    digits = Digits()
    real, held_out = digits.dataset("train"), digits.dataset("test")
    classifier = SVC().fit(to_float(real.images).flatten(1), real.labels())
    accuracy = classifier.score(to_float(held_out.images).flatten(1), held_out.labels())
    assert accuracy > 0.97
    images = ganzoo.load(find_checkpoint("runs/001-dcgan-digits")).sample(seeds=range(1000))
    shares = np.bincount(classifier.predict(images.flatten(1)), minlength=10) / 1000
    print(f"seed {seed}: classifier {accuracy:.3f}, shares {shares}")
    assert shares.min() >= 0.03
