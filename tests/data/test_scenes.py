"""Composed scenes: what is said of them is what is seen in them, and no digit is in both splits."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from scipy import ndimage
from sklearn.datasets import load_digits, load_sample_images
from torchvision.ops import masks_to_boxes

from metaformer_ablate.data import scenes
from metaformer_ablate.data.datasets import DATASETS
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.data.scenes import Scene, SceneRules, scene

SOME = range(40)


@pytest.fixture(scope="module")
def some() -> list[Scene]:
    return [scene(0, "train", i, 128) for i in SOME]


def test_boxes_masks_and_classes_tell_of_the_same_digits(some: list[Scene]) -> None:
    import torch

    for found in some:
        assert found.image.shape == (3, 128, 128) and found.image.dtype == np.uint8
        masks = found.masks
        assert masks.shape == (len(found.labels), 128, 128) and masks.any(axis=(1, 2)).all()
        assert masks.sum(axis=0).max() <= 1  # a pixel shows one digit
        boxes = masks_to_boxes(torch.from_numpy(masks)).numpy()
        # torchvision's right and bottom are the last pixels, ours the edges behind them.
        assert np.array_equal(found.boxes, boxes + np.array([0, 0, 1, 1]))
        expected = np.zeros((128, 128), dtype=int)
        for mask, label in zip(masks, found.labels, strict=True):
            expected[mask == 1] = label + 1
        assert np.array_equal(found.class_map, expected)


def test_a_scene_follows_from_seed_split_and_index_alone() -> None:
    one, again = (scene(0, "test", 7, (96, 160)) for _ in range(2))
    assert one.image.shape == (3, 96, 160)
    for name in ("image", "labels", "instances"):
        assert np.array_equal(getattr(one, name), getattr(again, name))
    others = [scene(1, "test", 7, (96, 160)), scene(0, "train", 7, (96, 160)), scene(0, "test", 8, (96, 160))]
    assert not any(np.array_equal(one.image, other.image) for other in others)


def test_scenes_are_the_same_everywhere() -> None:
    # Of what is drawn and of Pillow's whole numbers. (Pixels of the photographs hang on the JPEG decoder.)
    digest = hashlib.sha256()
    for i in SOME:
        found = scene(0, "train", i, 128)
        digest.update(found.labels.tobytes() + found.instances.tobytes())
    assert digest.hexdigest()[:16] == "4a036694c840cc17"


def test_no_digit_and_each_photograph_is_in_both_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = load_digits()
    rank, seen = [], [0] * 10
    for label in digits.target:
        rank.append(seen[label])
        seen[label] += 1
    evaluated = np.array(rank) % 5 == 4  # as the recipe `digits` evaluates
    used: dict[str, set[bytes]] = {}
    enlarged = scenes._enlarged
    for split in scenes.SPLITS:
        taken = used[split] = set()
        monkeypatch.setattr(
            scenes, "_enlarged", lambda digit, side, t=taken: (t.add(digit.tobytes()), enlarged(digit, side))[1]
        )
        for i in range(150):
            scene(0, split, i, 64)
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    allowed = {
        "train": {image.tobytes() for image in pixels[~evaluated]},
        "test": {image.tobytes() for image in pixels[evaluated]},
    }
    assert len(used["test"]) > 200 and used["test"] <= allowed["test"] and used["train"] <= allowed["train"]
    assert not used["test"] & used["train"]


def test_a_scene_of_one_digit_shows_it_over_a_photograph() -> None:
    rules = SceneRules(digits=(1, 1), side=(0.5, 0.5), brightness=1.0)
    for i in range(5):
        found = scene(3, "train", i, 256, rules)
        (mask,) = found.masks
        left, top, right, bottom = found.boxes[0].astype(int)
        assert 100 <= bottom - top <= 128 and right - left <= 128
        # Back at 8 x 8, the ink is where the digit with this label has it: nearest of all digits is one of its class.
        digits = load_digits()
        small = ndimage.zoom(
            np.pad(mask[top:bottom, left:right].astype(float), 0), (8 / (bottom - top), 8 / (right - left)), order=1
        )
        wide = []
        for image in digits.images:
            ink = image >= 6
            rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
            cut = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] / 16
            wide.append(ndimage.zoom(cut, (8 / cut.shape[0], 8 / cut.shape[1]), order=1))
        nearest = np.argsort(((np.array(wide) - small) ** 2).sum((1, 2)))[:9]
        assert np.bincount(digits.target[nearest], minlength=10).argmax() == found.labels[0]
        # Far from the digit nothing but the photograph.
        outside = found.image[:, ~ndimage.binary_dilation(mask, iterations=32)].T
        shades = {
            tuple(colour) for photo in load_sample_images().images for colour in (photo[::2, ::2] // 32).reshape(-1, 3)
        }
        known = np.mean([tuple(colour) in shades for colour in outside // 32])
        assert known > 0.95


def test_the_data_sets_of_scenes_are_told_by_the_files_they_are_made_of() -> None:
    folder = DataFolder.choose(None)
    files = [path.name for path in folder.files("scenes_detection")]
    assert files == ["digits.csv.gz", "china.jpg", "flower.jpg"] and not folder.missing("scenes_detection")
    assert folder.fingerprint("scenes_detection") == folder.fingerprint("scenes_segmentation")
    assert folder.fingerprint("scenes_detection") != folder.fingerprint("digits")
    assert len(folder.fingerprint("scenes_detection") or "") == 16
    assert DATASETS["scenes_segmentation"].class_name(3) == "2" and DATASETS["scenes_detection"].class_name(3) == "3"
