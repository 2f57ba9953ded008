"""Translators: sampling, and sample grids, diagnostics and scores on held-out sources."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import relu

import ganzoo
from ganzoo.callbacks.diagnostics import Diagnostics
from ganzoo.callbacks.samples import Samples
from ganzoo.core.module import GANModule
from ganzoo.data import ArrayImages, GANDataModule
from ganzoo.evaluation.choice import usual_split
from ganzoo.evaluation.sources import Fakes
from ganzoo.testing import fit


class Negative(GANModule):
    """Generates the negative of its source."""

    source_channels = 1

    def __init__(self):
        super().__init__(optimizer=lambda params: torch.optim.SGD(params, lr=0.0))
        self.generator = nn.Conv2d(1, 1, 1)
        nn.init.constant_(self.generator.weight, -1.0)
        nn.init.zeros_(self.generator.bias)
        self.discriminator = nn.Conv2d(2, 1, 1)

    def discriminate(self, x, y=None):
        return self.discriminator(torch.cat([x, y], 1))

    def discriminator_loss(self, batch):
        return {"real": self.discriminate(batch["image"], batch["source"]).mean()}

    def generator_loss(self, batch):
        return {"l1": relu(self.generator(batch["source"]) - batch["image"]).mean()}

    def latent(self, n, generator=None):
        return torch.empty(n, 0, device=self.device_of(generator))

    def generate(self, z, given=None):
        with torch.no_grad():
            return self.generator(given["source"])


class Ramps(GANDataModule):
    """Grey images and their negatives: 40 for training, 15 held out."""

    image_size, channels, source_channels, num_classes, extractor = 8, 1, 1, 5, "digits"

    def make_dataset(self, split):
        data = PairImages(torch.arange(40) + (0 if split == "train" else 100))
        return data if split == "train" else PairImages(torch.arange(15) + 100)


class PairImages(ArrayImages):
    def __init__(self, grey):
        super().__init__((255 - grey).byte()[:, None, None, None].repeat(1, 1, 8, 8), grey % 5)
        self.sources = grey.byte()[:, None, None, None].repeat(1, 1, 8, 8)

    def __getitems__(self, tickets):
        return {**super().__getitems__(tickets), "source": self.sources[torch.tensor(tickets) % len(self)]}


def test_sample_requires_matching_sources():
    model = Negative()
    x = torch.linspace(-1, 1, 3)[:, None, None, None].expand(3, 1, 8, 8)
    assert torch.equal(model.sample(source=x), -x)
    assert torch.equal(model.sample(source=x, batch_size=2), -x)
    with pytest.raises(ValueError, match=r"Negative translates images: give source=\[N, 1, H, W\]"):
        model.sample(3)
    with pytest.raises(ValueError, match=r"needs 2 sources \[2, 1, H, W\], not \[3, 1, 8, 8\]"):
        model.sample(2, source=x)
    with pytest.raises(ValueError, match="GAN takes no source"):
        ganzoo.GAN(image_size=8, hidden=8, d_hidden=4).sample(source=x)


@pytest.mark.parametrize("count", [3, 6])
def test_grids_show_held_out_sources_translations_and_targets(tmp_path, count):
    samples = Samples(2, rows=count, columns=4)
    fit(Negative(), Ramps(batch_size=8), steps=2, callbacks=[samples], default_root_dir=tmp_path)
    grid = np.asarray(Image.open(tmp_path / "samples" / "00000002.png").convert("L")).astype(int)
    rows = grid[34::66, 34::66]  # centres of tiles of 64 pixels and a frame of 2
    assert rows.shape == (count, 4)
    source, translated, target = (rows[i::3] for i in range(3))
    assert (source >= 100).all() and (source < 115).all(), "held out"
    assert (abs(translated - (255 - source)) <= 1).all() and (target == 255 - source).all()
    assert not (tmp_path / "interpolation.png").exists()


def test_grids_of_unpaired_data_show_no_targets(tmp_path):
    data = Ramps(batch_size=8)
    data.paired = False
    fit(Negative(), data, steps=2, callbacks=[Samples(2, rows=3, columns=4)], default_root_dir=tmp_path)
    height = Image.open(tmp_path / "samples" / "00000002.png").height
    assert height == 2 * 66 + 2


def test_diagnostics_are_computed_on_pairs():
    checks = Diagnostics(1, n=12)
    model, curves = Negative(), []
    model.publish = lambda values: curves.append(values)
    fit(model, Ramps(batch_size=8), steps=2, callbacks=[checks])
    assert {"diagnostics/D_accuracy", "diagnostics/coverage"} <= curves[0].keys()


def test_fakes_translate_the_sources_in_order_and_keep_their_labels():
    data = Ramps().dataset("val")
    fakes = Fakes(Negative(), 20, 0, data)
    block = fakes.block(0)
    order = torch.arange(64) % 15
    assert torch.equal(block["images"], data.images[order])
    assert torch.equal(block["labels"], data.labels()[order]) and fakes.num_classes == 5
    with pytest.raises(ValueError, match="have no sources"):
        Fakes(Negative(), 20, 0, ArrayImages(data.images))


def test_a_translator_is_scored_on_held_out_sources():
    assert usual_split(Negative(), Ramps()) == "val"
    assert usual_split(ganzoo.GAN(image_size=8, hidden=8, d_hidden=4), Ramps()) == "train"
    report = ganzoo.evaluate(Negative(), Ramps(), ["fid"], n=15)
    assert report.scores[0].protocol["split"] == "val"
    assert report.scores[0].value < 1e-3, "it translates perfectly"


def test_data_without_sources_is_refused():
    from ganzoo.data import Digits

    class Asks(Negative):
        def __init__(self, source_channels=1):
            super().__init__()

    with pytest.raises(Exception, match="Asks translates images, but the data has no sources"):
        fit(Asks(), Digits(), steps=1)


def test_all_grids_show_the_same_sources(tmp_path):
    samples = Samples(1, rows=3, columns=4, video_fps=0)
    fit(Negative(), Ramps(batch_size=8), steps=2, callbacks=[samples], default_root_dir=tmp_path)
    files = list((tmp_path / "samples").glob("*.png"))
    tops = {np.asarray(Image.open(file).convert("L"))[:66].tobytes() for file in files}
    assert len(files) == 3 and len(tops) == 1
