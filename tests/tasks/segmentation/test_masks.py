"""Folders of images and masks: layouts, fingerprints, and each way in which they can be wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mask_folders import RECIPE, picture, write_folder
from PIL import Image

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.data.mask_files import find_location
from metaformer_ablate.data.unreadable import Seen, Unreadable
from metaformer_ablate.errors import RequestError
from metaformer_ablate.settings.layers import Layer, flatten
from metaformer_ablate.settings.yaml_reader import parse
from metaformer_ablate.spec.resolve import resolve
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.tasks.registry import task_of
from metaformer_ablate.tasks.segmentation.data import SegmentationData, open_data
from metaformer_ablate.tasks.segmentation.net import build_net
from metaformer_ablate.tasks.segmentation.task import net_size
from metaformer_ablate.tasks.segmentation.transforms import IGNORE

CPU = torch.device("cpu")


def spec(**over: Any) -> RunSpec:
    """The resolved spec of the helper's recipe, with settings by their path."""
    tree = {key: value for key, value in parse(RECIPE, "recipe").items() if key != "title"}
    return resolve([Layer({**flatten(tree, str), **over}, lambda path: "test")])


def opened(root: Path, **over: Any) -> SegmentationData:
    return open_data(spec(**over), DataFolder(root, given=True), CPU)


def annotations(root: Path) -> Path:
    return root / "annotations" / "train"


def test_masks_hold_classes_and_what_counts_for_nothing(tmp_path: Path) -> None:
    write_folder(tmp_path)
    data = opened(tmp_path)
    assert data.sizes == (16, 6)
    image, mask = data.train.pairs.read(3, Seen())
    wanted_image, wanted_mask = picture(3)
    assert np.array_equal(image.permute(1, 2, 0).numpy(), wanted_image)
    assert np.array_equal(mask.numpy(), wanted_mask) and (mask == IGNORE).any()


def test_masks_from_one_on_as_ade20k_has_them(tmp_path: Path) -> None:
    write_folder(tmp_path, first=1)
    path = annotations(tmp_path) / "train0.png"
    held = np.asarray(Image.open(path)).copy()
    held[5] = 0  # "other"
    Image.fromarray(held).save(path)
    data = opened(tmp_path, **{"task.first_class": 1, "task.ignored": [0]})
    _, mask = data.train.pairs.read(0, Seen())
    wanted = picture(0)[1]
    wanted[5] = IGNORE
    assert np.array_equal(mask.numpy(), wanted)


@pytest.mark.parametrize("palette", [True, False])
def test_masks_of_a_palette_and_of_sixteen_bits(tmp_path: Path, palette: bool) -> None:
    write_folder(tmp_path)
    path = annotations(tmp_path) / "train0.png"
    held = Image.open(path)
    if palette:
        held.putpalette([7] * 768)
        held.save(path)
    else:
        Image.fromarray(np.asarray(held).astype(np.uint16)).save(path)
    _, mask = opened(tmp_path).train.pairs.read(0, Seen())
    assert np.array_equal(mask.numpy(), picture(0)[1])


def test_three_layouts_and_the_names_of_downloads(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "CamVid")
    kinds = {"images": "{split}", "annotations": "{split}annot"}
    other = tmp_path / "other"
    for split in ("train", "val"):
        for kind, name in kinds.items():
            shutil.copytree(root / kind / split, other / "camvid" / name.format(split=split))
    third = tmp_path / "third"
    for split, long in (("train", "training"), ("val", "validation")):
        for kind, name in (("images", "images"), ("annotations", "masks")):
            shutil.copytree(root / kind / split, third / long / name)
    found = [find_location(folder, "camvid") for folder in (tmp_path, other, third)]
    assert all(place is not None for place in found)
    lists = [{split: files.names for split, files in place.splits.items()} for place in found if place]
    assert lists[0] == lists[1] == lists[2]
    assert lists[0]["train"][:3] == ("train0.png", "train1.png", "train2.png") and len(lists[0]["evaluation"]) == 6
    assert lists[0]["train"][-1] == "train15.png"  # digits as numbers
    assert find_location(tmp_path / "third" / "training", "camvid") is None


def test_the_fingerprint_is_of_names_and_sizes(tmp_path: Path) -> None:
    write_folder(tmp_path)
    folder = DataFolder(tmp_path, given=True)
    before = folder.fingerprint("camvid")
    assert before == folder.fingerprint("camvid") and before is not None and len(before) == 16
    mask = annotations(tmp_path) / "train0.png"
    mask.write_bytes(mask.read_bytes() + b" ")
    assert folder.fingerprint("camvid") != before


def remove_mask(root: Path) -> None:
    (annotations(root) / "train5.png").unlink()


def remove_image(root: Path) -> None:
    (root / "images" / "train" / "train5.png").unlink()


def remove_both(root: Path) -> None:
    remove_mask(root)
    remove_image(root)


def two_of_a_name(root: Path) -> None:
    folder = root / "images" / "train"
    shutil.copy(folder / "train5.png", folder / "train5.jpg")


def second_form(root: Path) -> None:
    shutil.copytree(annotations(root), root / "masks" / "train")


def no_validation(root: Path) -> None:
    shutil.rmtree(root / "images" / "val")


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (remove_mask, r"images/train: 1 of 16 files have no mask of the same name in .*annotations/train: train5.png"),
        (remove_image, r"annotations/train: 1 of 16 files have no image of the same name in .*: train5.png"),
        (remove_both, r"holds 15 images for train, but data.train_images is 16; .*data.train_images=15"),
        (two_of_a_name, r"images/train: train5.\w+ and train5.\w+ have one name but for the ending"),
        (second_form, r"in more than one form \(images/train with annotations/train and images/train with masks/train"),
        (no_validation, r"camvid has no images and masks for evaluation \(val or validation\); allowed: images/"),
        (lambda root: shutil.rmtree(root / "images"), r"camvid is not in .*name its folder with --data"),
    ],
)
def test_folders_that_are_wrong(tmp_path: Path, break_it: Callable[[Path], Any], sentence: str) -> None:
    break_it(write_folder(tmp_path))
    with pytest.raises(RequestError, match=sentence):
        opened(tmp_path)


def test_masks_that_were_compressed_with_losses_are_refused(tmp_path: Path) -> None:
    """Of many classes most values of a JPEG are some class."""
    write_folder(tmp_path)
    path = annotations(tmp_path) / "train0.png"
    with Image.open(path) as mask:
        mask.save(path.with_suffix(".jpg"), quality=95)
    path.unlink()
    with pytest.raises(RequestError, match=r"train0\.jpg: is a JPEG, whose compression changes the classes"):
        opened(tmp_path).train.pairs.read(0, Seen())


def smaller(mask: np.ndarray) -> np.ndarray:
    return mask[:-1, :-2]


def unknown_value(mask: np.ndarray) -> np.ndarray:
    mask[4, :2] = 9, 77
    return mask


def in_colour(mask: np.ndarray) -> np.ndarray:
    return np.stack([mask] * 3, axis=2)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (smaller, r"train0.png: is \d+ x \d+ pixels, and its image \d+ x \d+; allowed: a mask of the image's size"),
        (unknown_value, r"train0.png: holds 9, 77; allowed: 0 to 3 for 4 classes, and 255 for what counts for nothing"),
        (in_colour, r"train0.png: its mode is RGB; allowed: one channel that holds the class of each pixel"),
    ],
)
def test_masks_that_cannot_be_meant_end_the_run(
    tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], sentence: str
) -> None:
    write_folder(tmp_path)
    path = annotations(tmp_path) / "train0.png"
    Image.fromarray(change(np.asarray(Image.open(path)).copy())).save(path)
    data, run = opened(tmp_path), spec()
    with pytest.raises(RequestError, match=sentence):
        list(data.train_loader(run.train, 0, (0, 0), 0, Unreadable(50)))


def test_an_image_that_cannot_be_read_is_noted_and_counts_for_nothing(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "images" / "train" / "train2.png").write_bytes(b"no picture")
    (tmp_path / "images" / "val" / "val3.png").write_bytes(b"no picture")
    data, run, unreadable = opened(tmp_path), spec(), Unreadable(50)
    images, masks = zip(*data.train_loader(run.train, 0, (0, 0), 0, unreadable), strict=True)
    assert torch.cat(images).shape == (16, 3, 32, 32) and torch.cat(masks).shape == (16, 32, 32)
    found = list(data.evaluation_loader(run.train, 0, unreadable))
    assert len(found) == 6 and (found[3][1] == IGNORE).all() and not (found[2][1] == IGNORE).all()
    assert {split: list(names) for split, names in unreadable.found.items()} == {
        "train": ["train2.png"],
        "evaluation": ["val3.png"],
    }


def test_images_that_are_evaluated_and_trained_on_are_told(tmp_path: Path) -> None:
    write_folder(tmp_path)
    assert opened(tmp_path).trained_on == ()
    for kind in ("images", "annotations"):
        shutil.rmtree(tmp_path / kind / "val")
        (tmp_path / kind / "val").symlink_to(tmp_path / kind / "train")
    settings = {"data.test_images": 16}
    data, unreadable = opened(tmp_path, **settings), Unreadable(50)
    data.evaluation_loader(spec(**settings).train, 0, unreadable)
    assert unreadable.to_record()["remarks"]["trained_on"]["evaluation"]["images"] == 16
    assert opened(tmp_path, **settings, **{"data.evaluate_on": "holdout"}).trained_on == ()


def test_batches_follow_from_seed_epoch_and_index_alone(tmp_path: Path) -> None:
    write_folder(tmp_path)
    data, run = opened(tmp_path), spec(**{"task.distortion": True})

    def batches(place: tuple[int, int], seed: int = 0, **over: Any) -> list[Any]:
        train = run.train.model_copy(update=over)
        return list(data.train_loader(train, seed, place, 0, Unreadable(0)))

    whole = batches((1, 0))
    for (image, mask), (image2, mask2) in zip(whole[2:], batches((1, 2)), strict=True):
        assert torch.equal(image, image2) and torch.equal(mask, mask2)
    parts = batches((1, 0), micro_batch=2)
    assert torch.equal(
        torch.cat([m for _, m in parts]).flatten(1).long().sum(1).sort()[0],
        torch.cat([m for _, m in whole]).flatten(1).long().sum(1).sort()[0],
    )
    assert not torch.equal(whole[0][0], batches((0, 0))[0][0]) and not torch.equal(
        whole[0][0], batches((1, 0), 1)[0][0]
    )


def test_every_tenth_training_image_is_held_out(tmp_path: Path) -> None:
    write_folder(tmp_path)
    data = opened(tmp_path, **{"data.evaluate_on": "holdout"})
    assert data.sizes == (15, 1)
    assert data.evaluation.pairs.name(0) == "train9.png" and data.train.pairs.name(9) == "train10.png"


def test_sizes_that_make_no_batch_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path)
    with pytest.raises(RequestError, match=r"task\.crop and task.exact_size are null, and images of many sizes"):
        opened(tmp_path, **{"task.crop": None})


@pytest.mark.parametrize(
    ("over", "wanted"),
    [
        ({}, None),
        ({"task.exact_size": [40, 64]}, None),  # crops of 32 x 32, and 48 x 64 in evaluation
        ({"task.exact_size": [32, 64], "task.crop": [32, 64]}, (32, 64)),
        ({"task.exact_size": [32, 64], "task.crop": None}, (32, 64)),
        ({"data.name": "scenes_segmentation", "data.image_size": 64, "task.crop": None}, (64, 64)),
        ({"data.name": "scenes_segmentation", "data.image_size": 64, "task.crop": [32, 32]}, None),
        # Trained on as they are, evaluated at the next multiple of 16.
        ({"task.exact_size": [30, 60], "task.crop": None}, None),
        ({"data.name": "scenes_segmentation", "data.image_size": 72, "task.crop": None}, None),
        ({"task.exact_size": [30, 60], "task.crop": [32, 64]}, (32, 64)),
    ],
)
def test_the_size_that_a_net_always_sees(over: dict[str, Any], wanted: tuple[int, int] | None) -> None:
    run = spec(**over)
    assert net_size(run) == wanted
    random = run.model.model_copy(update={"token_mixer": ("random",) * 4})
    why = task_of(run).not_applicable(run.model_copy(update={"model": random}))
    assert (why is None) == (wanted is not None)


@pytest.mark.parametrize(
    ("size", "crop", "tokens"),
    [
        ([64, 96], None, (32, 48)),
        ([60, 90], None, (32, 48)),  # evaluated at 64 x 96
        ([64, 96], [32, 32], (112, 112)),  # as for 224 pixels
        (None, [32, 32], (112, 112)),
    ],
)
def test_what_position_embeddings_are_drawn_for(
    size: list[int] | None, crop: list[int] | None, tokens: tuple[int, int]
) -> None:
    """The id of a run does not say it, so it stays as it is."""
    net = build_net(spec(**{"task.exact_size": size, "task.crop": crop, "model.position_embedding": True}))
    assert net.backbone.body.stages[0].position.pos_embed.shape[2:] == tokens


def test_no_class_is_called_as_what_counts_for_nothing(tmp_path: Path) -> None:
    with pytest.raises(
        RequestError, match=r"first_class is 1 and data.num_classes is 255, but a pixel of 255 counts for"
    ):
        opened(tmp_path, **{"task.first_class": 1, "data.num_classes": 255})


@pytest.mark.parametrize(("channels", "fits"), [(24, True), (6, True), (20, True), (28, False)])
def test_the_groups_of_the_head_divide_its_channels(channels: int, fits: bool) -> None:
    over = {"task.head_channels": channels, "task.head_norm": "group_norm"}
    if fits:
        assert spec(**over).task is not None
    else:
        with pytest.raises(RequestError, match=r"group_norm with task.head_channels a multiple of 8"):
            spec(**over)
