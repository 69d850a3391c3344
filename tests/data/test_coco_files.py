"""Data sets in COCO's format: found, read as pycocotools reads them, and refused where they are wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_folders import SAMPLE, annotation_file, change, needs_coco, write_coco
from pycocotools.coco import COCO

from metaformer_ablate.data import run_lengths
from metaformer_ablate.data.coco_annotations import CocoSplit
from metaformer_ablate.data.coco_files import find_location, missing_images
from metaformer_ablate.data.datasets import DATASETS
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import RequestError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "data" / "coco")


def sentence(call: Callable[[], Any]) -> str:
    with pytest.raises(RequestError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------------------------------------------------------------
# Where things lie


def test_cocos_own_folder_is_found(root: Path) -> None:
    # Beside the instances lie other annotations of the same images.
    for name in ("captions_train2017", "person_keypoints_val2017", "image_info_test2017"):
        (root / "annotations" / f"{name}.json").write_text("{}")
    for folder in (root, root.parent):
        found = find_location(folder, "coco")
        assert found is not None
        assert found.annotations == {"train": annotation_file(root), "evaluation": annotation_file(root, "val")}
        assert found.images == {"train": root / "train2017", "evaluation": root / "val2017"}


@pytest.mark.parametrize(
    ("train", "val", "images"),
    [
        ("train.json", "val.json", ("train", "val")),
        ("instances_train.json", "instances_val.json", ("images/train", "images/val")),
        ("my-train.json", "my-validation.json", ("images", "images")),
        ("annotations/train.json", "annotations/test.json", ("", "")),
        ("train/_annotations.coco.json", "valid/_annotations.coco.json", ("train", "valid")),
    ],
)
def test_any_coco_format_file_is_found(
    root: Path, tmp_path: Path, train: str, val: str, images: tuple[str, str]
) -> None:
    other = tmp_path / "other"
    for name, split, folder in ((train, "train", images[0]), (val, "val", images[1])):
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(root / f"{split}2017", other / folder, dirs_exist_ok=True)
        shutil.copy(annotation_file(root, split), other / name)
    found = find_location(other, "coco")
    assert found is not None
    assert found.annotations == {"train": other / train, "evaluation": other / val}
    assert found.images == {"train": other / images[0], "evaluation": other / images[1]}
    split = CocoSplit.of(found.annotations["train"], masks=False)
    assert not missing_images(found.images["train"], split.names)


def test_names_may_lead_through_folders(root: Path) -> None:
    change(
        annotation_file(root), images=lambda images: [{**i, "file_name": f"train2017/{i['file_name']}"} for i in images]
    )
    found = find_location(root, "coco")
    assert found is not None and found.images["train"] == root


def test_what_is_not_there_or_there_twice_is_said(root: Path, tmp_path: Path) -> None:
    assert find_location(tmp_path / "data" / "nothing", "coco") is None
    shutil.copy(annotation_file(root), root / "annotations" / "instances_train.json")
    found = sentence(lambda: find_location(root, "coco"))
    assert "more than one annotation file for train" in found and "instances_train2017.json" in found
    for path in (root / "annotations").glob("instances_train*"):
        path.unlink()
    assert "no annotation file for train" in sentence(lambda: find_location(root, "coco"))
    empty = tmp_path / "empty"
    empty.mkdir()
    found = sentence(lambda: DataFolder(empty, given=True).require("coco"))
    assert "coco is not in" in found and "instances_train*.json" in found


def test_the_fingerprint_changes_with_annotations_and_images(root: Path) -> None:
    def fingerprint() -> str:
        found = find_location(root, "coco")
        assert found is not None
        return found.fingerprint()

    first = fingerprint()
    assert first == fingerprint() and len(first) == 16
    seen = {first}
    change(annotation_file(root), annotations=lambda entries: entries[1:])
    seen.add(fingerprint())
    (root / "val2017" / "000999.png").write_bytes(b"more")
    seen.add(fingerprint())
    assert len(seen) == 3


# ---------------------------------------------------------------------------------------------------------------------
# What is read


def check_against_pycocotools(path: Path) -> None:
    reference, ours = COCO(str(path)), CocoSplit.of(path, masks=True)
    again = CocoSplit.of(path, masks=True)  # out of the cache
    number = {category: i for i, category in enumerate(sorted(reference.getCatIds()))}
    assert ours.image_ids.tolist() == sorted(reference.getImgIds())
    assert ours.categories == tuple(reference.cats[i]["name"] for i in sorted(reference.cats))
    for i, image in enumerate(ours.image_ids.tolist()):
        facts = reference.imgs[image]
        assert ours.names[i] == facts["file_name"] and ours.sizes[i].tolist() == [facts["height"], facts["width"]]
        entries = ours.entries(i)
        expected = reference.loadAnns(reference.getAnnIds(image))
        assert ours.ids[entries].tolist() == [entry["id"] for entry in expected]
        assert ours.labels[entries].tolist() == [number[entry["category_id"]] for entry in expected]
        assert ours.crowds[entries].tolist() == [entry["iscrowd"] for entry in expected]
        assert ours.areas[entries].tolist() == [entry["area"] for entry in expected]
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (entry["bbox"] for entry in expected)]
        assert np.array_equal(ours.boxes[entries], np.array(boxes).reshape(-1, 4))
        masks = run_lengths.decode(ours.masks(entries), tuple(ours.sizes[i].tolist()))
        for mask, entry in zip(masks, expected, strict=True):
            assert np.array_equal(mask, reference.annToMask(entry))
        assert again.masks(entries) == ours.masks(entries) and np.array_equal(again.boxes, ours.boxes)


def test_a_file_is_read_as_pycocotools_reads_it(root: Path) -> None:
    for split in ("train", "val"):
        check_against_pycocotools(annotation_file(root, split))


@needs_coco
def test_cocos_files_are_read_as_pycocotools_reads_them() -> None:
    for split in ("train", "val"):
        check_against_pycocotools(SAMPLE / f"instances_{split}.json")
    assert CocoSplit.of(SAMPLE / "instances_val.json", masks=False).categories == DATASETS["coco"].classes


def test_masks_that_a_box_run_left_out_are_read_when_they_are_wanted(root: Path) -> None:
    path = annotation_file(root)
    assert CocoSplit.of(path, masks=False).codes is None
    assert CocoSplit.of(path, masks=True).codes is not None


def test_runs_polygons_and_codes_are_one_mask() -> None:
    mask = np.zeros((7, 9), dtype=np.uint8)
    mask[2:5, 3:8] = 1
    columns = mask.T.ravel()
    runs = [int(n) for n in np.diff(np.flatnonzero(np.diff(columns, prepend=1 - columns[0], append=2)))]
    (code,) = run_lengths.encode(mask[None])
    for found in (
        {"size": [7, 9], "counts": runs},
        {"size": [7, 9], "counts": code.decode()},
        [[3, 2, 8, 2, 8, 5, 3, 5]],
        [[3, 2, 8, 2, 8, 5, 3, 5], [1, 1, 2, 2]],  # two points enclose nothing
    ):
        assert run_lengths.of_segmentation(found, (7, 9)) == code
    assert np.array_equal(run_lengths.decode([code], (7, 9))[0], mask)
    assert run_lengths.areas([code], (7, 9)).tolist() == [15]
    assert run_lengths.encode(np.zeros((0, 7, 9))) == [] and run_lengths.decode([], (7, 9)).shape == (0, 7, 9)


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


def entry(**values: Any) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    """Changes the third entry of a list; `...` takes a key out."""

    def changed(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found = {key: value for key, value in {**entries[2], **values}.items() if value is not ...}
        return [*entries[:2], found, *entries[3:]]

    return changed


@pytest.mark.parametrize(
    ("key", "values", "words"),
    [
        ("annotations", {"bbox": [1, 2, float("nan"), 3]}, ("annotation 3 has the bbox [1, 2, nan, 3]", "four finite")),
        ("annotations", {"bbox": [1, 2, float("inf"), 3]}, ("annotation 3 has the bbox", "inf")),
        ("annotations", {"bbox": [1, 2, 3]}, ("annotation 3 has the bbox [1, 2, 3]",)),
        ("annotations", {"bbox": [10, 20, -5, 3]}, ("annotation 3 has the bbox [10, 20, -5, 3]",)),
        ("annotations", {"bbox": ...}, ("annotation 3 has no bbox",)),
        ("annotations", {"bbox": "1 2 3 4"}, ("annotation 3 has the bbox '1 2 3 4'",)),
        ("annotations", {"area": float("nan")}, ("annotation 3 has the area nan", "a finite number")),
        ("annotations", {"category_id": 77}, ("annotation 3 is of category 77, which the file does not list",)),
        ("annotations", {"category_id": ...}, ("annotation 3 has no category_id",)),
        ("annotations", {"image_id": 5}, ("annotation 3 is of image 5, which the file does not list",)),
        ("annotations", {"iscrowd": 2}, ("annotation 3 has the iscrowd 2", "0 or 1")),
        ("annotations", {"id": 1}, ("annotation 1 is there twice",)),
        ("annotations", {"segmentation": []}, ("annotation 3 has no segmentation",)),
        ("annotations", {"segmentation": [[1, 2, 3]]}, ("annotation 3", "even number of coordinates")),
        ("annotations", {"segmentation": [[1, 2, 3, float("nan"), 5, 6]]}, ("annotation 3", "not a finite number")),
        (
            "annotations",
            {"segmentation": {"size": [9, 9], "counts": [81]}},
            ("annotation 3", "it is 9 x 9 pixels, and the image 128 x 96"),
        ),
        ("annotations", {"segmentation": {"size": [96, 128], "counts": [81]}}, ("annotation 3", "12288 pixels")),
        ("annotations", {"segmentation": {"size": [96, 128], "counts": "PPY"}}, ("annotation 3", "12288 pixels")),
        ("annotations", {"segmentation": {"size": [96, 128], "counts": "\u0000"}}, ("annotation 3", "12288 pixels")),
        ("images", {"file_name": "../x.png"}, ("image 986 has the file_name '../x.png'", "below the folder")),
        ("images", {"file_name": "/x.png"}, ("image 986 has the file_name '/x.png'",)),
        ("images", {"file_name": ...}, ("image 986 has the file_name None",)),
        ("images", {"height": 0}, ("image 986 has the height 0", "at least 1")),
        ("images", {"width": ...}, ("image 986 has no width",)),
        ("images", {"id": 1000}, ("image 1000", "is there twice")),
        ("images", {"id": "a"}, ("image entry 2 has the id 'a'", "an integer")),
        ("categories", {"id": 1}, ("category 1 is there twice",)),
        ("categories", {"name": ...}, ("category 5 has no name",)),
    ],
)
def test_what_cannot_be_meant_is_refused_with_file_and_entry(
    root: Path, key: str, values: dict[str, Any], words: tuple[str, ...]
) -> None:
    path = annotation_file(root)
    change(path, **{key: entry(**values)})
    found = sentence(lambda: CocoSplit.of(path, masks=True))
    assert found.startswith(f"{path}: ") and "allowed:" in found
    for word in words:
        assert word in found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not JSON"),
        ("<annotation><object/></annotation>", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "no list images and no list annotations and no list categories"),
        (json.dumps({"images": [], "type": "captions"}), "no list annotations"),
        (json.dumps({"images": [], "annotations": [], "categories": [{"id": 1, "name": "x"}]}), "images is empty"),
        (json.dumps({"images": [3], "annotations": [], "categories": [{"id": 1, "name": "x"}]}), "image entry 0 is 3"),
    ],
)
def test_files_of_another_format_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "instances_train.json"
    path.write_text(text)
    found = sentence(lambda: CocoSplit.of(path, masks=False))
    assert found.startswith(f"{path}: ") and words in found and "allowed:" in found


def test_right_and_bottom_in_place_of_width_and_height_are_noticed(root: Path) -> None:
    path = annotation_file(root)

    def corners(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        boxes = [(x, y, x + w, y + h) for x, y, w, h in (entry["bbox"] for entry in entries)]
        return [{**entry, "bbox": list(box)} for entry, box in zip(entries, boxes, strict=True)]

    change(path, annotations=corners)
    found = sentence(lambda: CocoSplit.of(path, masks=False))
    assert "boxes reach beyond their images" in found and "not right and bottom" in found


def test_a_file_that_was_changed_is_read_anew(root: Path) -> None:
    path = annotation_file(root)
    before = CocoSplit.of(path, masks=False)
    change(path, annotations=lambda entries: entries[:-1])
    assert len(CocoSplit.of(path, masks=False).ids) == len(before.ids) - 1
