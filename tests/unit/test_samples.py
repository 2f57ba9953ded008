"""Sample grids, videos, loggers, and `GANModule.sample`."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import SingleDeviceStrategy
from PIL import Image

import ganzoo
from ganzoo.callbacks.progress import GANProgress, clock, short, status
from ganzoo.callbacks.samples import Samples, final_grids, fixed, interpolation, mixtures, truncations
from ganzoo.callbacks.scores import Scores
from ganzoo.core.drawing import animation, picture, write_video
from ganzoo.core.limits import at_once
from ganzoo.core.pixels import to_uint8
from ganzoo.data import Digits, Gaussians
from ganzoo.testing import fit
from tests.variants import small

TINY = {"image_size": 8, "channels": 1, "width": 4}


def test_training_writes_grids_reals_interpolation_and_video(tmp_path):
    model = ganzoo.DCGAN(**TINY)
    fit(model, steps=5, callbacks=[Samples(every_n_steps=2, rows=2, columns=3)], default_root_dir=tmp_path)
    grids = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert grids == ["00000000.png", "00000002.png", "00000004.png", "00000005.png"]
    for name in ("reals.png", "interpolation.png"):
        assert np.asarray(Image.open(tmp_path / name)).std() > 1
    with av.open(str(tmp_path / "samples.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 4 + 2 * 8
    last = np.asarray(Image.open(tmp_path / "samples" / "00000005.png").convert("RGB")).astype(float)
    height, width = frames[-1].shape[:2]
    assert abs(frames[-1] - last[:height, :width]).mean() < 8


def test_large_images_are_generated_in_parts(monkeypatch):
    assert [at_once(size) for size in (8, 64, 512, 1024)] == [256, 128, 2, 1]
    model, sizes = ganzoo.DCGAN(**TINY), []
    generate = ganzoo.DCGAN.generate
    whole = interpolation(model, 2, 3)
    monkeypatch.setattr(ganzoo.DCGAN, "generate", lambda *given: sizes.append(len(given[1])) or generate(*given))
    monkeypatch.setattr("ganzoo.core.limits.AT_ONCE", 4 * 8 * 8)
    assert torch.allclose(interpolation(model, 2, 3), whole, atol=1e-6) and sizes == [4, 2]


def test_the_last_grid_equals_the_output_of_sample(tmp_path):
    model = ganzoo.DCGAN(**TINY, ema_half_life=100.0)
    fit(model, steps=2, callbacks=[Samples(rows=2, columns=3)], default_root_dir=tmp_path)
    expected = np.asarray(picture(model.sample(seeds=range(6)), 3))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "samples" / "00000002.png")), expected)


def test_the_end_is_drawn_and_scored_on_the_device_of_the_training(tmp_path, monkeypatch):
    """cpu:0 stands for a GPU: Lightning moves the model to "cpu" before `on_fit_end`."""
    device, found = torch.device("cpu", 0), set()
    monkeypatch.setattr(SingleDeviceStrategy, "root_device", property(lambda self: device))
    generate = ganzoo.DCGAN.generate

    def spy(model, *given):
        found.add(model.device)
        return generate(model, *given)

    monkeypatch.setattr(ganzoo.DCGAN, "generate", spy)
    model, scores = ganzoo.DCGAN(**TINY), Scores(["fid"], every_n_steps=5, final_n=20)
    fit(model, Digits(), steps=3, callbacks=[Samples(rows=2, columns=3), scores], default_root_dir=tmp_path)
    assert found == {device} and scores.report is not None and math.isfinite(scores.report.scores[0].value)
    assert model.device == torch.device("cpu") and (tmp_path / "interpolation.png").exists()


def test_drawing_samples_does_not_change_training(tmp_path):
    with_, without = (ganzoo.GAN(image_size=8, hidden=8, d_hidden=8) for _ in range(2))
    without.load_state_dict(with_.state_dict())
    fit(with_, steps=3, callbacks=[Samples(every_n_steps=1)], default_root_dir=tmp_path)
    fit(without, steps=3)
    for key, value in with_.state_dict().items():
        assert torch.equal(value, without.state_dict()[key]), key


def test_points_in_the_plane_are_drawn_as_points(tmp_path):
    model = ganzoo.GAN(image_size=1, channels=2, z_dim=2, hidden=8, d_hidden=8)
    fit(model, Gaussians(n=1000, batch_size=64), steps=1, callbacks=[Samples()], default_root_dir=tmp_path)
    assert Image.open(tmp_path / "samples" / "00000001.png").size == (512, 512)
    assert (np.asarray(Image.open(tmp_path / "reals.png")) == 0).sum() >= 8 * 9


def test_grids_are_logged_to_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path, "board")
    fit(ganzoo.DCGAN(**TINY), steps=2, callbacks=[Samples(every_n_steps=1)], logger=logger, log_every_n_steps=1)
    events = EventAccumulator(logger.log_dir, {"images": 0})
    events.Reload()
    assert [event.step for event in events.Images("samples")] == [0, 1, 2]
    assert [event.step for event in events.Scalars("D/loss")] == [1, 2]


def test_a_failing_image_logger_does_not_stop_training(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    logger = TensorBoardLogger(tmp_path, "board")
    monkeypatch.setattr(type(logger.experiment), "add_image", lambda *args, **kwargs: 1 / 0)
    trainer = fit(ganzoo.DCGAN(**TINY), steps=2, callbacks=[Samples(every_n_steps=1)], logger=logger)
    assert trainer.global_step == 2
    assert (Path(logger.log_dir) / "samples" / "00000002.png").exists()


def test_interpolation_begins_and_ends_at_its_latents():
    model = ganzoo.DCGAN(**TINY).eval()
    images = interpolation(model, rows=2, columns=5)
    assert images.shape == (10, 1, 8, 8)
    ends = model.generate(model.seeded([0, 1, 2, 3]))
    torch.testing.assert_close(images[[0, 5, 4, 9]], ends, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["BigGAN", "StyleGAN2"])
def test_truncations_have_a_seed_per_row_and_a_level_per_column(name):
    model = getattr(ganzoo, name)(**small(name)).eval()
    model.generator.apply(lambda m: m.w_mean.normal_() if hasattr(m, "w_mean") else None)
    images = truncations(model, rows=2, columns=4)
    z, given = fixed(model, 0, 2)
    torch.testing.assert_close(images[[1, 5]], model.generate(model.truncate(z, 0.5), given), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(images[[3, 7]], model.generate(model.truncate(z, 1.0), given), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("classes", [None, 3])
def test_mixtures_have_the_coarse_styles_of_their_row_and_the_fine_ones_of_their_column(classes):
    model = ganzoo.StyleGAN2(**{**small("StyleGAN2"), "num_classes": classes}).eval()
    images, g = mixtures(model, rows=3, columns=4), model.generator
    (z, one), (other, two) = fixed(model, 0, 2), fixed(model, 2, 3)
    assert images.shape[0] == 12 and (images[0] == 1).all()
    torch.testing.assert_close(images[[4, 8]], model.generate(z, one), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(images[1:4], model.generate(other, two), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        w, v = g.mapping(z, one.get("label")), g.mapping(other, two.get("label"))
        layers = g.synthesis.repeated(w[1:]).clone()
        layers[:, g.synthesis.layers // 2 :] = v[2]
        torch.testing.assert_close(images[11:], g.synthesis(layers).clamp(-1, 1), atol=1e-5, rtol=1e-5)


def test_final_grids_are_those_that_the_generator_has():
    names = {name: set(final_grids(getattr(ganzoo, name)(**small(name)), 2, 2)) for name in ("GAN", "SAGAN", "BigGAN")}
    assert names == {"GAN": {"interpolation"}, "SAGAN": {"interpolation"}, "BigGAN": {"interpolation", "truncation"}}
    assert set(final_grids(ganzoo.StyleGAN2(**small("StyleGAN2")), 2, 2)) == {"interpolation", "truncation", "mixing"}


def test_a_grid_shows_each_image_enlarged():
    images = torch.linspace(-1, 1, 6).view(6, 1, 1, 1).expand(6, 1, 8, 8)
    pixels = np.asarray(picture(images, columns=3, tile=16))[..., 0]
    assert pixels.shape == (2 * 18 + 2, 3 * 18 + 2)
    centres = pixels[[10, 28]][:, [10, 28, 46]].flatten()
    assert centres.tolist() == to_uint8(torch.linspace(-1, 1, 6)).tolist()


def test_a_video_of_odd_size_is_cropped_to_an_even_size(tmp_path):
    for i in range(3):
        Image.new("L", (33, 21), 80 * i).save(tmp_path / f"{i}.png")
    with (tmp_path / "video.mp4").open("wb") as file:
        write_video(file, sorted(tmp_path.glob("*.png")), fps=2)
    with av.open(str(tmp_path / "video.mp4")) as video:
        assert (video.streams.video[0].width, video.streams.video[0].height) == (32, 20)


def test_an_animation_is_short_and_ends_with_the_last_frame(tmp_path):
    for i in range(130):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i:03d}.png")
    gif = Image.open(BytesIO(animation(sorted(tmp_path.glob("*.png")), fps=8)))
    assert 40 < gif.n_frames <= 64
    gif.seek(gif.n_frames - 1)
    assert gif.convert("L").getpixel((0, 0)) == 129 and gif.info["duration"] == 2000
    gif.seek(0)
    assert gif.info["duration"] == 120, "1/8 s, in hundredths"


def test_a_seed_gives_the_same_image_in_any_batch():
    model = ganzoo.DCGAN(**TINY)
    images = model.sample(seeds=range(5))
    torch.testing.assert_close(images, model.sample(seeds=range(5), batch_size=2))
    torch.testing.assert_close(images[3:4], model.sample(seeds=[3]))
    assert not torch.equal(model.sample(2), model.sample(2)), "without seeds they are new"


def test_sample_returns_the_requested_output_type():
    model = ganzoo.DCGAN(image_size=8, channels=3, width=4)
    images = model.sample(seeds=[0, 1])
    array = model.sample(seeds=[0, 1], output_type="np")
    pictures = model.sample(seeds=[0, 1], output_type="pil")
    assert array.shape == (2, 8, 8, 3) and array.dtype == np.uint8
    assert np.array_equal(array, to_uint8(images).permute(0, 2, 3, 1).numpy())
    assert np.array_equal(np.stack([np.asarray(p) for p in pictures]), array)
    assert ganzoo.DCGAN(**TINY).sample(1, output_type="pil")[0].mode == "L"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n": 3, "seeds": [1, 2]}, "3 images need 3 seeds"),
        ({"n": 1, "label": 0}, "takes no label"),
    ],
)
def test_sample_refuses_bad_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        ganzoo.DCGAN(**TINY).sample(**arguments)


def test_the_progress_line_is_formatted():
    line = status(
        step=100,
        steps=400,
        images=6400,
        seconds=10,
        steps_done=100,
        images_done=6400,
        losses={"D/loss": 1.0, "G/loss": 2.0},
    )
    assert line == "step 100/400 · 0:30 left · D 1.00 · G 2.00 · 6,400 images · 640/s"
    assert [short(n) for n in (9999, 123_456, 12_345_678)] == ["9,999", "123k", "12.3M"]
    assert clock(3723) == "1:02:03"


def test_grids_after_the_step_of_a_resumed_run_are_removed(tmp_path):
    """They would be in its video."""
    whole = fit(ganzoo.DCGAN(**TINY), steps=4, callbacks=[Samples(every_n_steps=2)], default_root_dir=tmp_path)
    whole.save_checkpoint(tmp_path / "4.ckpt")
    (tmp_path / "samples" / "00000006.png").write_bytes((tmp_path / "samples" / "00000004.png").read_bytes())
    more = {"steps": 5, "ckpt_path": str(tmp_path / "4.ckpt"), "default_root_dir": tmp_path}
    fit(ganzoo.DCGAN(**TINY), callbacks=[Samples(every_n_steps=2, video_fps=0)], **more)
    steps = sorted(int(path.stem) for path in (tmp_path / "samples").iterdir())
    assert steps == [0, 2, 4, 5]


def test_a_run_that_continues_another_draws_its_own_reals(tmp_path):
    first = fit(ganzoo.DCGAN(**TINY), steps=2, default_root_dir=tmp_path)
    first.save_checkpoint(tmp_path / "2.ckpt")
    more = {"steps": 4, "ckpt_path": str(tmp_path / "2.ckpt"), "default_root_dir": tmp_path / "new"}
    fit(ganzoo.DCGAN(**TINY), callbacks=[Samples(video_fps=0)], **more)
    assert (tmp_path / "new" / "reals.png").exists()


def test_a_video_that_cannot_be_finished_is_not_left_behind(tmp_path, monkeypatch, capsys):
    def broken(file, frames, fps):
        file.write(b"half")
        raise OSError("disk")

    monkeypatch.setattr("ganzoo.callbacks.samples.write_video", broken)
    fit(ganzoo.DCGAN(**TINY), steps=2, callbacks=[Samples(every_n_steps=1)], default_root_dir=tmp_path)
    assert "samples.mp4 was not written: disk" in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if "mp4" in path.name]


def test_points_are_drawn_at_their_places():
    points = torch.tensor([[0.55, 0.0], [0.0, 0.825]]).view(2, 2, 1, 1)
    pixels = np.asarray(picture(points))
    assert pixels[255, 384] == pixels[63, 256] == 0 and (pixels == 0).sum() == 18


def test_the_speed_of_a_resumed_run_is_that_of_its_own_steps(monkeypatch):
    seen, bar = {}, GANProgress()
    monkeypatch.setattr("ganzoo.callbacks.progress.status", lambda **given: seen.update(given) or "")
    trainer = SimpleNamespace(global_step=100, estimated_stepping_batches=400, callback_metrics={})
    model = SimpleNamespace(images_seen=6400)
    bar.on_train_start(trainer, model)
    trainer.global_step, model.images_seen = 150, 9600
    bar.on_train_end(trainer, model)
    assert (seen["steps_done"], seen["images_done"]) == (50, 3200)


def test_points_outside_the_plane_are_left_out():
    points = torch.tensor([[9.0, 0.0], [0.0, -9.0], [1.1, 1.1], [0.0, 0.0]])[..., None, None]
    assert (np.asarray(picture(points)) == 0).sum() == 9
