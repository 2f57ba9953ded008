"""Accuracy by resolution: it drops below the resolution of the classes' detail, and only the resolution is changed."""

from __future__ import annotations

import pytest
import torch

from ganzoo.evaluation.discriminability import accuracy_by_resolution
from ganzoo.evaluation.interfaces import Extractor


class Stripes(Extractor):
    """Detects vertical stripes (class 1) by the contrast of neighbouring pixels."""

    name, channels, num_classes = "stripes", 1, 2
    network = torch.nn.Identity()
    preprocessing = fingerprint = citation = ""

    def __init__(self):
        self.seen = []

    def extract(self, images):
        self.seen.append(images)
        x = images.float()
        contrast = (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3))
        return {"logits": torch.stack([10 - contrast, contrast - 10], 1)}


def striped(n=70, period=2):
    """Images with labels 0, 1, 0, ...; class 1 has vertical stripes `period / 2` pixels wide."""
    labels = torch.arange(n) % 2
    column = torch.where(torch.arange(16) % period < period // 2, 100, 200)
    images = torch.where(labels.view(-1, 1, 1, 1) == 1, column.view(1, 1, 1, 16), torch.tensor(150))
    return images.expand(-1, -1, 16, -1).to(torch.uint8).contiguous(), labels


@pytest.mark.parametrize(("period", "expected"), [(2, {16: 1.0, 8: 0.5, 4: 0.5}), (4, {16: 1.0, 8: 1.0, 4: 0.5})])
def test_accuracy_falls_to_chance_below_the_resolution_of_the_stripes(period, expected):
    images, labels = striped(period=period)
    assert accuracy_by_resolution(Stripes(), images, labels, expected) == expected


def test_wrong_labels_lower_the_accuracy():
    images, labels = striped()
    labels[:7] = 1 - labels[:7]
    assert accuracy_by_resolution(Stripes(), images, labels, [16]) == {16: pytest.approx(0.9)}


def test_the_classifier_gets_uint8_images_of_the_original_size():
    """At full resolution images are unchanged; at resolution 1 every pixel is the rounded mean."""
    extractor = Stripes()
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    accuracy_by_resolution(extractor, images, torch.zeros(1), [16, 1])
    whole, one = extractor.seen
    assert torch.equal(whole, images) and one.dtype == torch.uint8
    assert one.shape == images.shape and len(one.unique()) == 1 and abs(int(one[0, 0, 0, 0]) - 127.5) <= 1


@pytest.mark.parametrize("r", [0, 17])
def test_resolutions_out_of_range_are_refused(r):
    with pytest.raises(ValueError, match=f"resolution is {r}; choose 1 to 16 for images of 16x16 pixels"):
        accuracy_by_resolution(Stripes(), *striped(), [r])


def test_an_extractor_without_classes_is_refused():
    extractor = Stripes()
    extractor.num_classes = None
    with pytest.raises(ValueError, match="stripes has no classes; choose a classifier"):
        accuracy_by_resolution(extractor, *striped(), [16])
