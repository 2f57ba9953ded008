"""ImagePool, the buffer of previous fakes."""

from __future__ import annotations

import pytest
import torch

from ganzoo.core.pool import ImagePool, refill


def numbered(start, n):
    return torch.arange(start, start + n).float().view(n, 1, 1, 1)


def test_a_pool_of_capacity_0_returns_its_input():
    images = numbered(0, 5)
    before = torch.get_rng_state()
    assert ImagePool(0)(images) is images
    assert torch.equal(torch.get_rng_state(), before)


def test_images_are_returned_unchanged_until_the_pool_is_full():
    pool = ImagePool(5)
    assert torch.equal(pool(numbered(0, 3)), numbered(0, 3))
    assert torch.equal(pool(numbered(3, 2)), numbered(3, 2))
    assert torch.equal(torch.stack(pool.images), numbered(0, 5))


def test_a_full_pool_swaps_half_of_the_images_uniformly():
    torch.manual_seed(0)
    pool, n = ImagePool(4), 4000
    pool(numbered(0, 4))
    seen = list(range(4))
    swapped, places = 0, [0] * 4
    for i in range(4, n):
        (out,) = pool(numbered(i, 1)).flatten().int().tolist()
        if out != i:
            places[seen.index(out)] += 1  # it must have been in the pool
            seen[seen.index(out)] = i
            swapped += 1
        assert [int(image) for image in pool.images] == seen
    assert swapped / (n - 4) == pytest.approx(0.5, abs=0.03)
    assert all(count / swapped == pytest.approx(0.25, abs=0.04) for count in places)


def test_a_batch_equals_its_images_in_sequence():
    torch.manual_seed(0)
    draws = torch.randint(4, (20,)).tolist()
    torch.manual_seed(0)
    pool, images, kept, expected = ImagePool(2), numbered(0, 20), [], []
    for i, place in enumerate(draws):
        if len(kept) < 2:
            kept.append(i)
        elif place < 2:
            expected.append(kept[place])
            kept[place] = i
            continue
        expected.append(i)
    assert pool(images).flatten().int().tolist() == expected
    assert [int(image) for image in pool.images] == kept
    assert sorted(expected + kept) != list(range(20))


def test_the_pool_stores_copies_of_single_images():
    pool, images = ImagePool(3), numbered(0, 3)
    pool(images)
    images.fill_(9)
    assert [int(image) for image in pool.images] == [0, 1, 2]
    assert all(image.untyped_storage().nbytes() == 4 for image in pool.images)


def test_returned_images_have_the_dtype_of_the_input():
    torch.manual_seed(0)
    pool = ImagePool(2)
    pool(numbered(0, 2).bfloat16())
    assert pool(numbered(2, 20)).dtype == torch.float32


def test_a_negative_capacity_is_refused():
    with pytest.raises(ValueError, match="pool is -1; it takes"):
        ImagePool(-1)


def test_more_processes_than_saved_share_the_images_up_to_the_capacity(monkeypatch):
    saved = [{"image": [*torch.arange(3)]}, {"image": [*torch.arange(5, 8)]}]
    for rank, expected in enumerate(([0, 1], [5, 6], [0, 1])):
        monkeypatch.setattr("ganzoo.core.pool.rank_and_world", lambda rank=rank: (rank, 3))
        refill(pools := {"image": ImagePool(2)}, saved)
        assert [int(image) for image in pools["image"].images] == expected
