"""What images and masks go through: sizes of mmcv, crops, colours of the standard library's HSV, padding."""

from __future__ import annotations

import colorsys
import itertools

import numpy as np
import pytest
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from metaformer_ablate.tasks.segmentation import transforms
from metaformer_ablate.tasks.segmentation.transforms import IGNORE, Crop, EvaluationTransform, TrainingTransform


@pytest.mark.parametrize(
    ("found", "limits", "wanted"),
    [
        ((512, 683), (2048, 512), (512, 683)),  # mmcv.rescale_size((683, 512), (2048, 512)) gives (683, 512)
        ((480, 640), (2048, 512), (512, 683)),
        ((300, 2100), (2048, 512), (293, 2048)),  # the longer side is at its limit
        ((2100, 300), (2048, 512), (2048, 293)),
        ((333, 500), (1024, 256), (256, 384)),
    ],
)
def test_images_fit_into_a_scale_as_mmcv_rounds(
    found: tuple[int, int], limits: tuple[int, int], wanted: tuple[int, int]
) -> None:
    assert transforms.fitting_size(*found, *limits) == wanted


def test_masks_take_the_nearest_pixel_as_opencv_does() -> None:
    mask = torch.arange(7 * 5, dtype=torch.uint8).view(7, 5)
    for height, width in ((3, 4), (20, 11), (7, 5)):
        rows, columns = (np.arange(want) * have // want for want, have in ((height, 7), (width, 5)))
        wanted = mask.numpy()[rows][:, columns]
        assert np.array_equal(transforms.resize_mask(mask, (height, width)).numpy(), wanted)


def image_and_mask(height: int, width: int) -> tuple[Tensor, Tensor]:
    """The mask says where a pixel was: its red is the row, its green the column; the mask is red plus green, mod 5."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([rows, columns, rows * 0]).to(torch.uint8)
    return image, ((rows + columns) % 5).to(torch.uint8)


@pytest.mark.parametrize("size", [(40, 60), (10, 60), (10, 12)])
def test_image_and_mask_stay_together_and_are_filled_up_to_the_crop(size: tuple[int, int]) -> None:
    transform = TrainingTransform(None, None, None, Crop((16, 16)), flip=True, distortion=False)
    image, mask = image_and_mask(*size)
    flips = set()
    for seed in range(8):
        found, held = transform(image, mask, np.random.default_rng(seed))
        assert found.shape == (3, 16, 16) and held.shape == (16, 16)
        inside = min(size[0], 16), min(size[1], 16)
        mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
        pixels = ((found * std + mean) * 255).round().long()[:, : inside[0], : inside[1]]
        assert torch.equal((pixels[0] + pixels[1]) % 5, held[: inside[0], : inside[1]].long())
        outside = torch.ones(16, 16, dtype=torch.bool)
        outside[: inside[0], : inside[1]] = False
        assert (held[outside] == IGNORE).all() and (found[:, outside] == 0).all()
        flips.add(bool(pixels[1, 0, 0] > pixels[1, 0, -1]))
    assert flips == {True, False}


def test_a_crop_that_one_class_fills_is_drawn_again() -> None:
    mask = torch.zeros(100, 100, dtype=torch.uint8)
    mask[:, 80:] = 1  # few crops hold enough of it
    image = mask.expand(3, -1, -1)
    shares = {}
    for limit in (1.0, 0.75):
        crop = Crop((20, 20), limit)
        held = [crop(image, mask, np.random.default_rng(seed))[1] for seed in range(200)]
        largest = [max((part == k).float().mean().item() for k in (0, 1)) for part in held]
        shares[limit] = np.mean([share < 0.75 for share in largest])
    assert shares[1.0] < 0.25 and shares[0.75] > 0.6
    assert shares[0.75] < 1  # after ten tries the last is kept


def test_pixels_that_count_for_nothing_are_no_class_of_a_crop() -> None:
    mask = torch.full((10, 10), IGNORE, dtype=torch.uint8)
    mask[0] = 3
    assert not Crop((10, 10), 0.75)._mixed(mask)
    mask[1] = 4
    assert Crop((10, 10), 0.75)._mixed(mask)


def colours() -> Tensor:
    """[3, 1, N], 0 to 255."""
    levels = (0.0, 3.0, 77.0, 128.0, 254.0, 255.0)
    return torch.tensor(list(itertools.product(levels, repeat=3))).T[:, None, :].contiguous()


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.5])
def test_saturation_is_that_of_hsv(factor: float) -> None:
    found = transforms.saturate(colours(), factor)
    for rgb, changed in zip(colours()[:, 0].T.tolist(), found[:, 0].T.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in rgb))
        wanted = colorsys.hsv_to_rgb(hue, min(1.0, saturation * factor), value)
        assert changed == pytest.approx([255 * c for c in wanted], abs=1e-2)


@pytest.mark.parametrize("steps", [-18, 5, 17])
def test_hue_is_that_of_hsv(steps: int) -> None:
    found = transforms.turn_hue(colours(), steps / 180)
    for rgb, changed in zip(colours()[:, 0].T.tolist(), found[:, 0].T.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in rgb))
        wanted = colorsys.hsv_to_rgb((hue + steps / 180) % 1, saturation, value)
        assert changed == pytest.approx([255 * c for c in wanted], abs=0.1)


def test_distortion_changes_colours_within_their_range_and_by_its_generator_alone() -> None:
    image = torch.rand(3, 8, 8) * 255
    found = [transforms.distort(image, np.random.default_rng(seed)) for seed in range(40)]
    assert all(0 <= each.min() and each.max() <= 255.001 for each in found)
    assert sum(torch.equal(each, image) for each in found) < 10
    torch.manual_seed(1)
    assert torch.equal(found[3], transforms.distort(image, np.random.default_rng(3)))


@pytest.mark.parametrize(
    ("transform", "wanted"),
    [
        (EvaluationTransform((2048, 512), None, 32), (512, 704)),  # 512 x 683, then up to multiples of 32
        (EvaluationTransform(None, None, 32), (480, 640)),
        (EvaluationTransform(None, (192, 256), 32), (192, 256)),
        (EvaluationTransform(None, (100, 70), 16), (112, 80)),
    ],
)
def test_evaluated_images_are_multiples(transform: EvaluationTransform, wanted: tuple[int, int]) -> None:
    assert transform(torch.zeros(3, 480, 640, dtype=torch.uint8)).shape == (3, *wanted)
