"""Images that are read one by one: timm as the oracle for files, transforms and batches; what changes no pixel."""

from __future__ import annotations

import os
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm.data.auto_augment
import timm.data.random_erasing
import torch
from conftest import Result
from opened_files import CPU, opened
from pictures import (
    CLASSES,
    COUNTS,
    TEST,
    TRAIN,
    files_in_order,
    pictures_spec,
    write_folder,
    write_parquet,
    write_shards,
)
from PIL import Image
from timm.data import ImageDataset, create_loader
from timm.data.mixup import FastCollateMixup
from timm.data.random_erasing import RandomErasing

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.data.layouts import find_location
from metaformer_ablate.data.sampling import micro_batch_rows
from metaformer_ablate.data.spec import DataSpec
from metaformer_ablate.data.unreadable import TooManyUnreadable, Unreadable
from metaformer_ablate.errors import RequestError
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.tasks.classification.data.augment import Augment, draw_box, erase
from metaformer_ablate.tasks.classification.data.image_files import GREY, ImageFileData
from metaformer_ablate.tasks.classification.data.transforms import evaluation_transform, posterize, training_transform

PREPARED = os.environ.get("ABLATE_TEST_DATA")  # read before any fixture touches the environment

# What the authors' train.py gives timm by default, in its words.
AUTHORS_TRAINING: dict[str, Any] = {
    "is_training": True,
    "re_prob": 0.25,
    "re_mode": "pixel",
    "re_count": 1,
    "re_split": False,
    "scale": [0.08, 1.0],
    "ratio": [3.0 / 4.0, 4.0 / 3.0],
    "hflip": 0.5,
    "vflip": 0.0,
    "color_jitter": 0.4,
    "auto_augment": "rand-m9-mstd0.5-inc1",
    "interpolation": "random",
}
# The configuration of its models: crop_pct 0.9 (0.95 for those with attention or spatial FCs), bicubic.
AUTHORS_EVALUATION: dict[str, Any] = {"is_training": False, "interpolation": "bicubic", "crop_pct": 0.9}
EVERY = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "num_workers": 0,
    "device": CPU,
    "persistent_workers": False,
}


@pytest.fixture(scope="module")
def folder(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def shards(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(folder, tmp_path_factory.mktemp("shards") / "imagenet")


def data_spec(**settings: Any) -> DataSpec:
    return pictures_spec(**{f"data.{key}": value for key, value in settings.items()}).data


def batches(data: ImageFileData, spec: RunSpec, epochs: int = 1, rank: int = 0, **place: int) -> list[Any]:
    loader = data.train_loader(spec.train, spec.seed, (place.get("epoch", 0), place.get("batch", 0)), rank, none())
    found = []
    for epoch in range(place.get("epoch", 0), epochs):
        loader.sampler.set_epoch(epoch)
        found += list(loader)
    return found


def none() -> Unreadable:
    return Unreadable(0)


def assert_same(ours: list[Any], theirs: list[Any]) -> None:
    assert len(ours) == len(theirs) > 0
    for batch, other in zip(ours, theirs, strict=True):
        assert torch.equal(batch[0], other[0]) and torch.equal(batch[1], other[1])
        assert np.array_equal(batch[2], other[2])


# ---------------------------------------------------------------------------------------------------------------------
# Sources


def test_the_images_of_a_folder_are_those_of_timm_in_its_order(folder: Path) -> None:
    data = opened(folder)
    for split, part in (("train", data.train), ("val", data.evaluation)):
        theirs = files_in_order(folder / split)
        assert len(part) == len(theirs) == 3 * COUNTS[split]
        assert [(part.name(i), part.label(i)) for i in range(len(part))] == [(name, label) for name, label, _ in theirs]
        labels = {name: label for label, name in enumerate(("n2", "N3", "n10"))}
        assert {Path(name).parent.name: label for name, label, _ in theirs} == labels.copy()
    assert set(CLASSES) == set(labels)


@pytest.mark.parametrize("kind", ["tar", "hf"])
def test_shards_and_parquet_files_give_the_same_images(
    kind: str, folder: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shards.parent
    if kind == "hf":
        pytest.importorskip("datasets")
        import datasets.config

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        root = write_parquet(folder, tmp_path / "parquet")
    ours, theirs = opened(root), opened(folder)
    assert find_location(root, "imagenet").kind == kind
    spec = pictures_spec()
    assert_same(batches(ours, spec), batches(theirs, spec))
    for loader in (ours, theirs):
        assert loader.evaluation.label(0) == 0 and loader.evaluation.label(TEST - 1) == 2
    one, other = (list(data.evaluation_loader(spec.train, 0, none())) for data in (ours, theirs))
    assert torch.equal(one[0][0], other[0][0]) and torch.equal(one[0][1], other[0][1])


def test_an_index_of_shards_is_kept_until_they_change(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(shards)
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", lambda *_: pytest.fail("read once more"))
        opened(shards)
        path = next(shards.glob("*train-01.tar"))
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
        with pytest.raises(pytest.fail.Exception, match="read once more"):
            opened(shards)


def test_every_tenth_training_image_is_held_out(folder: Path) -> None:
    data, whole = opened(folder, **{"data.evaluate_on": "holdout", "train.batch_size": 4}), opened(folder)
    held = [9, 19, 29, 39]
    names = [whole.train.name(i) for i in range(TRAIN)]
    assert [data.evaluation.name(i) for i in range(len(data.evaluation))] == [names[i] for i in held]
    rest = [name for i, name in enumerate(names) if i not in held]
    assert [data.train.name(i) for i in range(len(data.train))] == rest


def refused(root: Path, reader: str = "auto", **settings: Any) -> str:
    with pytest.raises(RequestError) as error:
        opened(root, **{"data.reader": reader, **{f"data.{key}": value for key, value in settings.items()}})
    text = str(error.value)
    assert "\n" not in text and str(root) in text
    return text


def test_what_is_missing_or_ambiguous_is_said_in_a_sentence(folder: Path, shards: Path, tmp_path: Path) -> None:
    assert "imagenet is not in" in refused(tmp_path) and "--data" in refused(tmp_path)
    assert "tar: *train*.tar" in refused(folder, "tar") and "folder:" not in refused(folder, "tar")
    (tmp_path / "train" / "a").mkdir(parents=True)
    assert "no evaluation split (val or validation)" in refused(tmp_path)
    for name in ("val", "validation"):
        (tmp_path / name / "a").mkdir(parents=True)
    assert "holds val and validation" in refused(tmp_path)
    (tmp_path / "validation" / "a").rmdir()
    (tmp_path / "validation").rmdir()
    for path in shards.iterdir():
        (tmp_path / path.name).symlink_to(path)
    assert "more than one form (folder, tar)" in refused(tmp_path) and "data.reader=tar" in refused(tmp_path)
    assert opened(tmp_path, **{"data.reader": "tar"}).train.name(0) == opened(shards).train.name(0)
    Image.new("RGB", (9, 9)).save(tmp_path / "train" / "b.jpg")
    assert "b.jpg lies in the folder of no class" in refused(tmp_path, "folder")


def test_counts_that_differ_are_said_with_both_numbers_and_the_override(folder: Path) -> None:
    assert f"holds {TRAIN} images for train, but data.train_images is 50; " in refused(folder, train_images=50)
    assert f"data.train_images={TRAIN}" in refused(folder, train_images=50)
    assert f"holds {TEST} images for evaluation, but data.test_images is 50000" in refused(folder, test_images=50_000)
    assert "from 0 to 2, but data.num_classes is 1000; " in refused(folder, num_classes=1000)
    assert "data.num_classes=3" in refused(folder, num_classes=2)


def test_classes_of_both_splits_are_the_same(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    (root / "val" / "n10").rename(root / "val" / "n11")
    assert "n11 is in val alone, n10 is in train alone" in refused(root)


def test_a_damaged_shard_and_an_image_without_a_label_are_named(shards: Path, tmp_path: Path) -> None:
    for path in shards.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    broken = tmp_path / "imagenet1k-train-01.tar"
    broken.write_bytes(broken.read_bytes()[:5000])
    assert "imagenet1k-train-01.tar: cannot be read as a shard" in refused(tmp_path)
    with tarfile.open(broken, "w") as archive:
        archive.addfile(tarfile.TarInfo("0001.jpg"))
    assert "0001.jpg has no label" in refused(tmp_path)


# ---------------------------------------------------------------------------------------------------------------------
# Fingerprints


def test_a_fingerprint_is_of_names_and_sizes(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "a")
    first = DataFolder(root, given=True).fingerprint("imagenet")
    assert first is not None and len(first) == 16
    moved = root.rename(tmp_path / "b")
    assert DataFolder(moved, given=True).fingerprint("imagenet") == first
    (moved / "val" / "n2" / "0.jpg").rename(moved / "val" / "n2" / "zero.jpg")
    second = DataFolder(moved, given=True).fingerprint("imagenet")
    assert second not in (first, None)
    (moved / "val" / "n2" / "zero.jpg").rename(moved / "val" / "n2" / "0.jpg")
    assert DataFolder(moved, given=True).fingerprint("imagenet") == first
    (moved / "val" / "n2" / "0.jpg").unlink()
    (moved / "val" / "n2" / "0.jpg").write_bytes(b"another size")
    assert DataFolder(moved, given=True).fingerprint("imagenet") not in (first, second, None)
    assert DataFolder(tmp_path, given=True).fingerprint("imagenet") is None


def test_a_folder_whose_time_was_set_back_is_read_again(tmp_path: Path) -> None:
    """As programs do that unpack with times of their own."""
    folder = DataFolder(write_folder(tmp_path), given=True)
    before = folder.fingerprint("imagenet")
    for inside in (path for path in (tmp_path / "train").rglob("*") if path.is_dir()):
        state = inside.stat()
        Image.new("RGB", (9, 9)).save(inside / "more.png")
        os.utime(inside, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert folder.fingerprint("imagenet") != before


def test_asking_for_a_fingerprint_again_reads_no_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = DataFolder(folder, given=True).fingerprint("imagenet")
    monkeypatch.setattr("metaformer_ablate.data.listings._walk", lambda *_: pytest.fail("walked once more"))
    assert DataFolder(folder, given=True).fingerprint("imagenet") == first


# ---------------------------------------------------------------------------------------------------------------------
# Transforms: timm's loader with the arguments of the authors' script


def attributes(value: Any) -> Any:
    """All that a transform is made of, for comparison."""
    if isinstance(value, (list, tuple)):
        return [attributes(item) for item in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if type(value).__module__.startswith(("timm.data", "torchvision.transforms.transforms")):
        return type(value), {key: attributes(item) for key, item in vars(value).items() if not key.startswith("_")}
    return timm.data.auto_augment.posterize if value is posterize else value


def of_timm(folder: Path, split: str, **arguments: Any) -> Any:
    dataset = ImageDataset(str(folder / split))
    return create_loader(dataset, input_size=(3, 224, 224), batch_size=8, **EVERY, **arguments)


def test_transforms_are_those_of_timms_loader_field_by_field(folder: Path) -> None:
    spec = data_spec(image_size=224)
    ours, theirs = training_transform(spec), of_timm(folder, "train", **AUTHORS_TRAINING).dataset.transform
    kinds = [type(step).__name__ for step in ours.transforms]
    assert kinds == ["RandomResizedCropAndInterpolation", "RandomHorizontalFlip", "RandAugment", "MaybePILToTensor"]
    assert attributes(ours.transforms) == attributes(theirs.transforms)
    assert attributes(ours.transforms) != attributes(training_transform(data_spec(image_size=192)).transforms)
    for crop, side in ((0.9, 248), (0.95, 235)):
        ours = evaluation_transform(data_spec(image_size=224, eval_crop=crop))
        theirs = of_timm(folder, "val", **{**AUTHORS_EVALUATION, "crop_pct": crop}).dataset.transform
        assert [type(step).__name__ for step in ours.transforms] == ["Resize", "CenterCrop", "MaybePILToTensor"]
        assert attributes(ours.transforms) == attributes(theirs.transforms)
        assert ours.transforms[0].size == side


def test_pixels_are_those_of_timm_for_the_same_random_numbers(folder: Path) -> None:
    ours = training_transform(data_spec(image_size=48))
    theirs = create_loader(
        ImageDataset(str(folder / "train")), input_size=(3, 48, 48), batch_size=8, **EVERY, **AUTHORS_TRAINING
    ).dataset.transform
    pictures = opened(folder).train
    seen = 0
    for seed in range(200):
        picture, _ = pictures.open(seed % TRAIN)
        found = []
        for transform in (ours, theirs):
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            try:
                found.append(transform(picture))
            except ValueError as error:  # of timm's, with a Pillow that refuses to keep 0 bits
                assert transform is theirs and "bits" in str(error)
        if len(found) == 2:
            assert torch.equal(*found)
            seen += 1
    assert seen > 190


def test_no_bits_are_black_and_the_rest_is_timms() -> None:
    picture = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    assert posterize(picture, 0).getextrema() == ((0, 0),) * 3
    for bits in range(1, 9):
        assert posterize(picture, bits) == timm.data.auto_augment.posterize(picture, bits)


def test_a_policy_that_timm_does_not_read_is_refused(folder: Path) -> None:
    with pytest.raises(RequestError, match=r"data.rand_augment is 'rand-x9', which timm does not read"):
        opened(folder, **{"data.rand_augment": "rand-x9"})


def test_without_augmentation_a_crop_is_all_there_is() -> None:
    spec = data_spec(rand_augment=None, flip=False, interpolation="bicubic")
    kinds = [type(step).__name__ for step in training_transform(spec).transforms]
    assert kinds == ["RandomResizedCropAndInterpolation", "MaybePILToTensor"]


def test_evaluation_batches_are_those_of_timms_loader_to_the_bit(folder: Path) -> None:
    data, spec = opened(folder, **{"data.image_size": 224}), pictures_spec()
    augment = Augment(spec.data, 3, data.mean, data.std, "contiguous")
    theirs = list(of_timm(folder, "val", **AUTHORS_EVALUATION))
    ((images, labels),) = data.evaluation_loader(spec.train, 0, none())
    assert torch.equal(augment.normalise(images), torch.cat([batch for batch, _ in theirs]))
    assert torch.equal(labels, torch.cat([batch for _, batch in theirs]))


def test_boxes_are_those_of_timm_for_the_same_random_numbers() -> None:
    eraser = RandomErasing(0.25, mode="const", max_count=1, device="cpu")
    random.seed(5)
    theirs = []
    for _ in range(400):
        image = torch.ones(1, 31, 47)
        eraser(image)
        rows, columns = (image[0] == 0).nonzero().unbind(1)
        box = (
            (rows.min(), columns.min(), rows.max() - rows.min() + 1, columns.max() - columns.min() + 1)
            if len(rows)
            else None
        )
        theirs.append(box and tuple(int(value) for value in box))
    random.seed(5)
    ours = [draw_box(0.25, 31, 47) for _ in range(400)]
    assert ours == theirs
    assert 60 < len(ours) - ours.count(None) < 140


def test_mixed_then_normalised_then_erased() -> None:
    """What timm's collation and its prefetching loader do, in their order; inside the box noise and nothing else."""
    spec = pictures_spec(**{"data.cutmix": 0.0}).data
    augment = Augment(spec, 3, EVERY["mean"], EVERY["std"], "contiguous")
    images, labels = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8), torch.tensor([0, 1, 2, 0, 1, 1])
    boxes = np.array([[1, 4, 5, 20, 15, 77], [4, 0, 0, 3, 3, 78]])
    torch.manual_seed(3)
    ours, targets = augment(images, labels, boxes)
    kept = float(targets[0, 0])
    collate = FastCollateMixup(num_classes=3, label_smoothing=0.0)
    collate._params_per_batch = lambda: (kept, False)
    mixed, shares = collate(list(zip(images, labels, strict=True)))
    torch.testing.assert_close(targets, shares)
    mean, std = (255 * torch.tensor(EVERY[key]).view(3, 1, 1) for key in ("mean", "std"))
    expected = (mixed.float() - mean) / std
    inside = torch.zeros(6, 1, 32, 32, dtype=torch.bool)
    inside[1, :, 4:24, 5:20] = inside[4, :, :3, :3] = True
    torch.testing.assert_close(ours.where(~inside, 0), expected.where(~inside, 0))
    noise = ours[1, :, 4:24, 5:20]
    assert abs(noise.mean()) < 0.15 and abs(noise.std() - 1) < 0.1
    alone = erase(torch.zeros(1, 3, 32, 32), np.array([[0, 4, 5, 20, 15, 77]]))
    assert torch.equal(alone[0, :, 4:24, 5:20], noise), "the noise is not of its seed alone"


# ---------------------------------------------------------------------------------------------------------------------
# Order, seeds, parts


def test_an_image_follows_from_seed_epoch_and_index_alone(folder: Path) -> None:
    data, spec = opened(folder), pictures_spec()
    whole = batches(data, spec, epochs=2)
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)
    assert_same(batches(data, spec, epochs=2), whole)
    assert_same(batches(data, spec, epochs=2, epoch=1), whole[4:])
    resumed = data.train_loader(spec.train, spec.seed, (1, 2), 0, none())
    resumed.sampler.set_epoch(1)
    assert_same(list(resumed), whole[6:])
    other = batches(data, pictures_spec(seed=1))
    assert not torch.equal(whole[0][0], other[0][0])
    # The same image in the next epoch, and in a batch with others.
    pictures = data.train_loader(spec.train, spec.seed, (0, 0), 0, none()).dataset
    (one, *_), _ = pictures[0, torch.tensor([7])]
    (two, *_), _ = pictures[0, torch.tensor([3, 7])]
    (three, *_), _ = pictures[1, torch.tensor([7])]
    assert torch.equal(one[0], two[1]) and not torch.equal(one, three)


def test_reading_images_draws_nothing_from_the_process(folder: Path) -> None:
    data, spec = opened(folder), pictures_spec()
    pictures = data.train_loader(spec.train, 0, (0, 0), 0, none()).dataset
    drawn = []
    for read in (False, True):
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        if read:
            pictures[0, torch.arange(3)]
        drawn.append((torch.rand(()).item(), random.random(), np.random.rand()))
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_loader_processes_change_nothing(workers: int, folder: Path, shards: Path) -> None:
    spec = pictures_spec()
    expected = batches(opened(folder), spec, epochs=2)
    data = opened(shards.parent if workers == 2 else folder, **{"data.workers": workers})
    assert_same(batches(data, spec, epochs=2), expected)


@pytest.mark.parametrize(("devices", "micro_batch"), [(1, 4), (2, None), (3, 2)])
def test_a_part_is_read_alone_with_its_partners(devices: int, micro_batch: int | None, folder: Path) -> None:
    data, whole = opened(folder), batches(opened(folder), pictures_spec())
    spec = pictures_spec(**{"train.devices": devices, "train.micro_batch": micro_batch})
    parts = devices * spec.train.accumulation
    for rank in range(devices):
        found = batches(data, spec, rank=rank)
        assert len(found) == 4 * spec.train.accumulation
        for i, (images, labels, boxes) in enumerate(found):
            batch, turn = divmod(i, spec.train.accumulation)
            at = rank * spec.train.accumulation + turn
            assert torch.equal(images, micro_batch_rows(whole[batch][0], parts, at))
            assert torch.equal(labels, micro_batch_rows(whole[batch][1], parts, at))
            rows = micro_batch_rows(torch.arange(12), parts, at).tolist()
            of_part = {rows[box[0]]: box[1:].tolist() for box in boxes}
            of_whole = {int(box[0]): box[1:].tolist() for box in whole[batch][2] if box[0] in rows}
            assert of_part == of_whole


def test_a_part_of_an_odd_number_cannot_be_mixed() -> None:
    for settings, found in (
        ({"train.devices": 4}, "a device has 3"),
        ({"train.micro_batch": 1}, "train.micro_batch is 1"),
    ):
        with pytest.raises(RequestError, match=found + r".*; allowed where data.mixup or data.cutmix is on: an even"):
            pictures_spec(**settings)
        pictures_spec(**settings, **{"data.mixup": 0.0, "data.cutmix": 0.0})


@pytest.mark.parametrize("shares", [1, 2, 5])
def test_shares_of_an_evaluation_are_all_images_once_in_order(shares: int, folder: Path) -> None:
    data, train = opened(folder), pictures_spec(**{"train.devices": shares, "train.batch_size": 2 * shares}).train
    whole = torch.stack([data.evaluation.transform(data.evaluation.open(i)[0]) for i in range(TEST)])
    found = [batch for rank in range(shares) for batch in data.evaluation_loader(train, rank, none())]
    assert torch.equal(torch.cat([images for images, _ in found]), whole)


# ---------------------------------------------------------------------------------------------------------------------
# Images that cannot be read


@pytest.fixture
def damaged(tmp_path: Path) -> Iterator[Path]:
    """Two training images and one to evaluate on that cannot be read: cut off, empty, and no picture."""
    root = write_folder(tmp_path / "damaged")
    for name, keep in (("train/n2/0.jpg", 700), ("train/N3/1.jpg", 0)):
        (root / name).write_bytes((root / name).read_bytes()[:keep])
    (root / "val" / "n10" / "2.jpg").write_text("not a picture")
    yield root


def test_another_image_stands_in_and_is_always_the_same(damaged: Path, folder: Path) -> None:
    data, spec = opened(damaged), pictures_spec()
    unreadable = Unreadable(2)
    found = list(data.train_loader(spec.train, 0, (0, 0), 0, unreadable))
    assert sorted(unreadable.found["train"]) == ["N3/1.jpg", "n2/0.jpg"]
    again = list(opened(damaged, **{"data.workers": 1}).train_loader(spec.train, 0, (0, 0), 0, Unreadable(2)))
    assert_same(again, found)
    whole = batches(opened(folder), spec)
    differs = [
        not torch.equal(a, b)
        for ours, theirs in zip(found, whole, strict=True)
        for a, b in zip(ours[0], theirs[0], strict=True)
    ]
    assert sum(differs) == 2


def test_a_grey_picture_keeps_the_place_in_an_evaluation(damaged: Path, folder: Path) -> None:
    data, spec, unreadable = opened(damaged), pictures_spec(), Unreadable(2)
    ((images, labels),) = data.evaluation_loader(spec.train, 0, unreadable)
    ((whole, expected),) = opened(folder).evaluation_loader(spec.train, 0, none())
    assert torch.equal(labels, expected)
    place = [data.evaluation.name(i) for i in range(TEST)].index("n10/2.jpg")
    assert list(unreadable.found["evaluation"]) == ["n10/2.jpg"]
    assert torch.equal(images[place], torch.tensor(GREY, dtype=torch.uint8).view(3, 1, 1).expand_as(images[place]))
    rest = [i for i in range(TEST) if i != place]
    assert torch.equal(images[rest], whole[rest])


def test_each_unreadable_image_counts_once_and_too_many_are_too_many(capsys: pytest.CaptureFixture[str]) -> None:
    unreadable = Unreadable(2)
    for _ in range(3):
        unreadable.note("train", {"a.jpg": "OSError: cut off"})
    unreadable.note("evaluation", {"b.jpg": "OSError: empty"})
    assert capsys.readouterr().err.count("a.jpg") == 1
    assert unreadable.to_record() == {
        "unreadable": {"train": {"images": 1, "names": ["a.jpg"]}, "evaluation": {"images": 1, "names": ["b.jpg"]}}
    }
    assert none().to_record() == {}
    with pytest.raises(TooManyUnreadable, match=r"3 images cannot be read.*which is 2; they are a.jpg \(OSError: cut"):
        unreadable.note("train", {"c.jpg": "OSError"})


def test_where_hardly_an_image_can_be_read_the_end_comes_soon(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "gone")
    data, spec = opened(root), pictures_spec()
    for path in (root / "train").rglob("*.*"):
        path.unlink()
    with pytest.raises(RuntimeError, match="20 images drawn at random cannot be read"):
        list(data.train_loader(spec.train, 0, (0, 0), 0, Unreadable(1000)))


# ---------------------------------------------------------------------------------------------------------------------
# Real pictures


@pytest.mark.skipif(not PREPARED, reason="ABLATE_TEST_DATA names no folder as ../shared/data/prepare.py makes it")
@pytest.mark.slow
def test_real_pictures_are_those_of_timms_loader() -> None:
    assert PREPARED is not None
    root = Path(PREPARED) / "imagenet-sample"
    sizes = {"data.num_classes": 1000, "data.train_images": 1000, "data.test_images": 1000, "data.image_size": 224}
    data, spec = opened(root, **sizes), pictures_spec()
    augment = Augment(spec.data, 1000, data.mean, data.std, "contiguous")
    theirs = iter(of_timm(root, "val", **AUTHORS_EVALUATION))
    for begin in range(0, 64, 8):
        (images, labels), _ = data.evaluation[begin : begin + 8]
        expected, of_timm_labels = next(theirs)
        assert torch.equal(augment.normalise(images), expected) and torch.equal(labels, of_timm_labels)


def test_show_needs_no_data_and_tells_no_lie_about_missing_folders(ablate: Any, tmp_path: Path) -> None:
    shown: Result = ablate("show", "pooling_size", "--recipe", "imagenet", "--data", tmp_path, "--json")
    assert shown.code == 0 and shown.json["to_run"] == 4
