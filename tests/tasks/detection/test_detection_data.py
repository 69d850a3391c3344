"""What a detector is given: images and boxes as mmdet resizes them, pairs, draws, and what is missing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coco_folders import COUNTS, annotation_file, change, coco_spec, write_coco
from PIL import Image
from specs import spec_of
from torchvision.ops import masks_to_boxes

from metaformer_ablate.data.datasets import HOLDOUT_EVERY
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.data.sampling import RankShare
from metaformer_ablate.data.scenes import scene
from metaformer_ablate.data.unreadable import TooManyUnreadable, Unreadable
from metaformer_ablate.errors import RequestError
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.tasks.detection.batches import PairedBatches
from metaformer_ablate.tasks.detection.data import DetectionData, data_key, open_data
from metaformer_ablate.tasks.detection.examples import SCENES
from metaformer_ablate.tasks.detection.transforms import Transform, resized

CPU = torch.device("cpu")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "data" / "coco")


def opened(root: Path, spec: RunSpec | None = None, **settings: Any) -> DetectionData:
    return open_data(spec or coco_spec(**settings), DataFolder(root.parent, given=True), CPU)


def trained(data: DetectionData, spec: RunSpec, place: tuple[int, int] = (0, 0), unreadable: Any = None) -> list[Any]:
    loader = data.train_loader(spec.train, spec.seed, place, 0, unreadable or Unreadable(50))
    loader.sampler.set_epoch(place[0])
    return list(loader)


def evaluated(data: DetectionData, spec: RunSpec, unreadable: Any = None) -> list[Any]:
    return list(data.evaluation_loader(spec.train, 0, unreadable or Unreadable(50)))


def sentence(root: Path, **settings: Any) -> str:
    with pytest.raises(RequestError) as error:
        opened(root, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------------------------------------------------------------
# Sizes


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        # mmcv.rescale_size((w, h), (1333, 800)), worked out by hand
        ((480, 640), (800, 1067)),  # torchvision: 1066
        ((427, 640), (800, 1199)),
        ((640, 427), (1199, 800)),
        ((375, 500), (800, 1067)),
        ((300, 640), (625, 1333)),  # the long side decides
        ((1600, 900), (1333, 750)),
        ((500, 333), (1201, 800)),
    ],
)
def test_sides_are_rounded_as_mmcv_does(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized(size, 800, 1333) == expected


def test_pixels_are_those_of_bilinear_interpolation_without_antialiasing() -> None:
    draw = np.random.default_rng(0)
    picture = draw.integers(0, 256, (3, 11, 17), dtype=np.uint8)
    found = Transform((0.0,) * 3, (1.0,) * 3, 22, 40).image(torch.from_numpy(picture)) * 255
    assert found.shape == (3, 22, 34)
    # OpenCV's formula: the centre of pixel x lies at (x + 1/2) / scale - 1/2, sides are repeated.
    at = [np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1) for new, old in ((22, 11), (34, 17))]
    low = [np.floor(a).astype(int) for a in at]
    high = [np.minimum(a + 1, old - 1) for a, old in zip(low, (11, 17), strict=True)]
    part = [a - b for a, b in zip(at, low, strict=True)]
    rows = picture[:, low[0]] * (1 - part[0])[:, None] + picture[:, high[0]] * part[0][:, None]
    expected = rows[..., low[1]] * (1 - part[1]) + rows[..., high[1]] * part[1]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)


def test_images_are_normalised_and_targets_follow_them(root: Path) -> None:
    spec = coco_spec("coco_mask_rcnn", **{"data.flip": False})
    data = opened(root, spec)
    transform = data.train.transform
    for index in range(len(data.train)):
        truth, picture = data.train.examples.truth(index), data.train.examples.picture(index, None)  # type: ignore[arg-type]
        image, target = transform.image(picture), transform.target(truth)
        height, width = image.shape[1:]
        assert (height, width) == resized(truth.size, 64, 96)
        mean, std = torch.tensor(data.mean)[:, None, None], torch.tensor(data.std)[:, None, None]
        whole = (picture.float() / 255 - mean) / std
        assert torch.allclose(image.mean((1, 2)), whole.mean((1, 2)), atol=0.1)
        assert not truth.crowds.all() or not len(target["boxes"])
        scale = torch.tensor([width / truth.size[1], height / truth.size[0]] * 2)
        expected = torch.tensor(truth.boxes[~truth.crowds]).float() * scale
        assert torch.allclose(target["boxes"], expected, atol=1e-4)
        assert target["labels"].tolist() == truth.labels[~truth.crowds].tolist()
        assert target["masks"].shape == (len(expected), height, width) and target["masks"].dtype == torch.uint8
        seen = target["masks"].flatten(1).any(1).bool()
        around = masks_to_boxes(target["masks"][seen]) + torch.tensor([0, 0, 1, 1])
        assert (around - target["boxes"][seen]).abs().max() <= 1.5  # nearest pixels of a mask at two thirds

        mirrored, flipped = transform.image(picture, True), transform.target(truth, True)
        assert torch.equal(mirrored, image.flip(-1)) and torch.equal(flipped["masks"], target["masks"].flip(-1))
        boxes = target["boxes"]
        assert torch.allclose(flipped["boxes"][:, [0, 2]], width - boxes[:, [2, 0]], atol=1e-4)
        assert torch.equal(flipped["boxes"][:, [1, 3]], boxes[:, [1, 3]])


# ---------------------------------------------------------------------------------------------------------------------
# Batches


@pytest.mark.parametrize(("wide", "count", "batch"), [(30, 50, 8), (31, 50, 10), (7, 21, 4), (0, 9, 2), (5, 12, 12)])
def test_images_of_one_orientation_come_in_pairs(wide: int, count: int, batch: int) -> None:
    order = PairedBatches(count, batch, 0, CPU)
    order.wide = torch.arange(count) < wide
    seen = []
    for epoch in range(3):
        order.set_epoch(epoch)
        batches = [indices for _, indices in order]
        assert len(batches) == count // batch and all(len(indices) == batch for indices in batches)
        rows = torch.cat(batches)
        assert len(rows.unique()) == len(rows)
        mixed = sum(int((order.wide[b] != order.wide[b.flip(0)]).sum()) // 2 for b in batches)
        assert mixed <= (wide % 2 and (count - wide) % 2)
        seen.append(rows.tolist())
    assert seen[0] != seen[1] != seen[2]


def test_a_pair_stays_together_in_every_part_of_a_batch() -> None:
    whole = PairedBatches(40, 16, 3, CPU)
    whole.wide = torch.arange(40) % 3 == 0
    for parts in (2, 4, 8):
        for batch_index, (_, batch) in enumerate(whole):
            taken = []
            for rank in range(parts):
                order = PairedBatches(40, 16, 3, CPU, share=RankShare(parts, rank, 1))
                order.wide = whole.wide
                part = [indices for _, indices in order][batch_index]
                assert (order.wide[part] != order.wide[part.flip(0)]).sum() <= 2  # the mixed pair, if it is here
                taken += part.tolist()
            assert sorted(taken) == sorted(batch.tolist())


def test_draws_follow_from_seed_epoch_and_index_alone(root: Path) -> None:
    spec = coco_spec(**{"data.flip": True})
    data = opened(root, spec)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    whole = trained(data, spec)
    torch.manual_seed(2)
    again, rest = trained(data, spec), trained(data, spec, (0, 1))
    assert len(whole) == 2 and len(rest) == 1
    for one, other in zip(whole + whole[1:], again + rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one[0], other[0], strict=True))
        assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(one[1], other[1], strict=True))
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())
    # About half of the images are mirrored, others in another epoch.
    mirrored = []
    for epoch in range(2):
        flips = []
        for i in range(len(data.train)):
            ((image,), _), _ = dataclasses.replace(data.train, seed=0)[epoch, torch.tensor([i])]
            plain = data.train.transform.image(data.train.examples.picture(i, None))  # type: ignore[arg-type]
            assert torch.equal(image, plain) or torch.equal(image, plain.flip(-1))
            flips.append(not torch.equal(image, plain))
        mirrored.append(flips)
    assert 0 < sum(mirrored[0]) < len(mirrored[0]) and mirrored[0] != mirrored[1]


def test_evaluation_gives_each_image_once_with_all_that_is_annotated(root: Path) -> None:
    spec = coco_spec("coco_mask_rcnn")
    data = opened(root, spec)
    found = evaluated(data, spec)
    ids = [int(target["image_id"]) for _, target in found]
    assert ids == sorted(ids) and len(ids) == COUNTS["val"]
    assert sum(target["iscrowd"].sum() for _, target in found) == 1
    for image, target in found:
        assert tuple(image.shape[1:]) == resized(tuple(target["size"].tolist()), 64, 96)
        count = len(target["boxes"])
        assert all(len(target[name]) == count for name in ("labels", "area", "iscrowd", "codes"))
    assert any(not len(target["boxes"]) for _, target in found)


def test_shares_of_the_evaluation_are_the_whole(root: Path) -> None:
    data, spec = opened(root), coco_spec()
    train = spec.train.model_copy(update={"devices": 4})
    loaders = [data.evaluation_loader(train, rank, Unreadable(0)) for rank in range(4)]
    shares = [int(target["image_id"]) for loader in loaders for _, target in loader]
    assert shares == [int(target["image_id"]) for _, target in evaluated(data, spec)]


# ---------------------------------------------------------------------------------------------------------------------
# Scenes


def test_scenes_are_those_of_the_generator() -> None:
    spec = spec_of({"data.image_size": 48}, recipe="scenes_detection")
    data = open_data(spec, DataFolder.choose(None), CPU)
    assert data.sizes == (2500, 500)
    image, target = data.evaluation[slice(3, 4)][0]
    found = scene(0, "test", 3, 48, SCENES)
    mean, std = (np.array(values)[:, None, None] for values in (data.mean, data.std))
    np.testing.assert_allclose(image.numpy(), (found.image / 255 - mean) / std, atol=1e-5)
    assert np.array_equal(target["boxes"], found.boxes) and np.array_equal(target["labels"], found.labels)
    assert target["area"].tolist() == found.masks.sum(axis=(1, 2)).tolist() and not target["iscrowd"].any()
    (images, targets), _ = data.train[0, torch.tensor([5, 9])]
    assert images[1].shape == (3, 48, 48)
    assert np.array_equal(targets[1]["boxes"].numpy(), scene(0, "train", 9, 48, SCENES).boxes)


def test_the_holdout_is_every_tenth_training_scene() -> None:
    spec = spec_of({"data.image_size": 32, "data.evaluate_on": "holdout"}, recipe="scenes_detection")
    data = open_data(spec, DataFolder.choose(None), CPU)
    assert data.sizes == (2250, 250)
    held = [data.evaluation.examples.truth(i).image_id for i in range(3)]
    assert held == [HOLDOUT_EVERY - 1 + HOLDOUT_EVERY * i for i in range(3)]
    assert [data.train.examples.truth(i).image_id for i in (8, 9)] == [8, 10]


# ---------------------------------------------------------------------------------------------------------------------
# What is left out, and what is refused


def test_what_nothing_can_be_learnt_from_is_left_out_and_said(root: Path) -> None:
    def spoilt(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        things = [entry["id"] for entry in entries if not entry["iscrowd"]]
        boxes = dict(zip(things, ([5, 5, 0, 9], [500, 5, 9, 9], [-9, 5, 9, 9]), strict=False))
        return [{**entry, "bbox": boxes.get(entry["id"], entry["bbox"])} for entry in entries]

    change(annotation_file(root), annotations=spoilt)
    data = opened(root)
    assert data.sizes == (COUNTS["train"] - 1, COUNTS["val"])
    empty, crowds, boxes = data.notes
    assert "1 of 12 images are not trained on, for nothing is annotated in them (ids 993)" in empty
    assert "are crowds" in crowds and "3 of" in boxes and "lie outside the image (ids " in boxes
    for i in range(data.sizes[0]):
        truth = data.train.examples.truth(i)
        height, width = data.train.transform.size(truth.size)
        found = data.train.transform.target(truth)["boxes"]
        assert found.shape[1] == 4 and (found[:, 2:] > found[:, :2]).all()
        assert ((found >= 0) & (found <= torch.tensor([width, height] * 2))).all()


def test_boxes_that_reach_out_are_cut_at_the_edge(root: Path) -> None:
    change(
        annotation_file(root),
        annotations=lambda entries: [{**e, "bbox": [-10, 5, 40, 30]} if e["id"] == 1 else e for e in entries],
    )
    data = opened(root)
    truths = [data.train.examples.truth(i) for i in range(len(data.train))]
    (truth,) = (truth for truth in truths if (truth.boxes[:, 0] == -10).any())
    size = data.train.transform.size(truth.size)
    expected = [0, 5 * size[0] / truth.size[0], 30 * size[1] / truth.size[1], 35 * size[0] / truth.size[0]]
    found = data.train.transform.target(truth)["boxes"]
    assert any(torch.allclose(box, torch.tensor(expected), atol=1e-4) for box in found)


def test_a_missing_image_is_named(root: Path) -> None:
    path = next(iter(sorted((root / "train2017").iterdir())))
    path.unlink()
    found = sentence(root, **{"data.max_unreadable": 0})
    assert "1 of its 12 images are not in" in found and path.name in found and "data.max_unreadable" in found
    spec, unreadable = coco_spec(), Unreadable(1)
    images = [image for batch in trained(opened(root, spec), spec, unreadable=unreadable) for image in batch[0]]
    assert len(images) == 8
    some = [name for name in unreadable.found["train"] if name == path.name]
    assert len(some) == len(unreadable.found["train"])


def test_an_image_of_another_size_than_its_annotations_cannot_be_read(root: Path) -> None:
    path = sorted((root / "val2017").iterdir())[0]
    Image.new("RGB", (33, 44)).save(path)
    data, spec, unreadable = opened(root), coco_spec(), Unreadable(1)
    found = evaluated(data, spec, unreadable)
    assert "it is 33 x 44 pixels, its annotations are for" in unreadable.found["evaluation"][path.name]
    assert len(found) == COUNTS["val"]  # grey in its place
    grey = next(image for image, target in found if f"{int(target['image_id']):06d}.png" == path.name)
    assert torch.allclose(grey, grey[:, :1, :1].expand_as(grey))
    with pytest.raises(TooManyUnreadable, match="33 x 44"):
        evaluated(data, spec, Unreadable(0))


def test_other_numbers_of_images_and_categories_than_the_spec_says_are_refused(root: Path) -> None:
    assert (
        "lists 12 images, but data.train_images is 13; allowed: the whole of coco, or data.train_images=12"
        in sentence(root, **{"data.train_images": 13})
    )
    assert "lists 10 categories" in sentence(root, **{"data.num_classes": 80})
    change(annotation_file(root, "val"), categories=lambda found: [{**found[0], "name": "ten"}, *found[1:]])
    found = sentence(root)
    assert "has other categories than" in found and "1 is ten there and digit 0 here" in found


def test_images_in_both_splits_are_told(root: Path) -> None:
    listed = json.loads(annotation_file(root).read_text())["images"][:2]
    for name in ("train2017", "val2017"):
        for path in (root / name).iterdir():
            (root / "images").mkdir(exist_ok=True)
            path.rename(root / "images" / f"{name}-{path.name}")
        (root / name).rmdir()
    for split in ("train", "val"):
        change(
            annotation_file(root, split),
            images=lambda found, s=split: [{**x, "file_name": f"{s}2017-{x['file_name']}"} for x in found],
        )
    assert opened(root).trained_on == ()
    name = f"train2017-{listed[0]['file_name']}"
    change(annotation_file(root, "val"), images=lambda found: [{**found[0], "file_name": name}, *found[1:]])
    data, unreadable = opened(root), Unreadable(50)
    data.evaluation_loader(coco_spec().train, 0, unreadable)
    assert unreadable.to_record() == {"remarks": {"trained_on": {"evaluation": {"images": 1, "names": [name]}}}}
    assert opened(root, **{"data.evaluate_on": "holdout"}).trained_on == ()
    listed_id = listed[0]["id"]
    change(annotation_file(root), annotations=lambda found: [x for x in found if x["image_id"] != listed_id])
    assert opened(root).trained_on == (), "an image without boxes is not trained on"


def test_nothing_to_train_on_or_to_evaluate_on_is_refused(root: Path) -> None:
    change(annotation_file(root), annotations=[])
    found = sentence(root)
    assert "0 images are left to train on" in found and "nothing is annotated in them" in found
    change(annotation_file(root, "val"), annotations=lambda e: [{**x, "iscrowd": 1} for x in e])
    assert "has no box to evaluate on" in sentence(root)


def test_runs_that_see_the_same_images_share_them() -> None:
    key = data_key(coco_spec())
    assert key == data_key(coco_spec(**{"train.lr": 0.5, "model.token_mixer": "identity"}))
    for settings in ({"task.short_side": 63}, {"data.flip": False}):
        assert key != data_key(coco_spec(**settings))
    assert key != data_key(coco_spec("coco_mask_rcnn"))


def test_nothing_to_evaluate_on_of_what_is_held_out_is_refused(root: Path) -> None:
    """COCO's evaluation would give an AP of -1, which is no percentage."""
    held = opened(root, **{"data.evaluate_on": "holdout"}).evaluation.examples
    ids = {held.truth(i).image_id for i in range(len(held))}
    change(annotation_file(root), annotations=lambda e: [x for x in e if x["image_id"] not in ids])
    said = sentence(root, **{"data.evaluate_on": "holdout"})
    assert "its 1 held-out images (data.evaluate_on=holdout, every 10th) have no box to evaluate on" in said


def test_of_a_box_that_grazes_the_edge_nothing_is_trained_on(root: Path) -> None:
    """It is more than nothing in the annotation's numbers, and nothing in those of the net."""
    truth = opened(root).train.examples.truth(0)
    width = truth.size[1]
    grazing = np.array([[width - 1e-8, 2, width + 9, 20]])
    more = dataclasses.replace(
        truth.take(~truth.crowds),
        boxes=np.concatenate([truth.boxes[~truth.crowds], grazing]),
        labels=np.append(truth.labels[~truth.crowds], 0),
        areas=np.append(truth.areas[~truth.crowds], 180.0),
        crowds=np.append(truth.crowds[~truth.crowds], False),
        codes=None,
    )
    transform = opened(root).train.transform
    for mirrored in (False, True):
        found, wanted = (transform.target(t, mirrored) for t in (more, truth))
        assert torch.equal(found["boxes"], wanted["boxes"]) and torch.equal(found["labels"], wanted["labels"])
