"""Images, splits, the order of batches, augmentation and fingerprints, against scikit-learn and torchvision."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision.datasets
from prepared import PREPARED, needs_data
from specs import spec_of
from torch import Tensor
from torchvision.transforms import functional as TF

import metaformer_ablate.tasks.classification.module
from metaformer_ablate.data.datasets import DATASETS, split_sizes
from metaformer_ablate.data.folder import TORCHVISION_CLASS, DataFolder
from metaformer_ablate.data.sampling import EpochBatches
from metaformer_ablate.data.spec import DataSpec
from metaformer_ablate.data.unreadable import Unreadable
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.runner import Runner
from metaformer_ablate.tasks.classification.data.augment import Augment, random_crop
from metaformer_ablate.tasks.classification.data.in_memory import (
    ImageTensors,
    InMemoryData,
    evaluation_loader,
    load_images,
    train_loader,
)


def folder() -> DataFolder:
    return DataFolder.choose(None)


def digits(size: int = 8, evaluate_on: str = "test") -> InMemoryData:
    return load_images(DataSpec(name="digits", image_size=size, evaluate_on=evaluate_on), folder())


def sklearn_digits() -> tuple[Tensor, Tensor]:
    """[1797, 8, 8] in 0 to 16, as scikit-learn has them, and the labels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return torch.from_numpy(found.images), torch.from_numpy(found.target)


# ---------------------------------------------------------------------------------------------------------------------
# Splits


def test_digits_are_split_by_the_documented_rule() -> None:
    data = digits()
    images, labels = sklearn_digits()
    seen, rank = [0] * 10, []
    for label in labels.tolist():
        rank.append(seen[label])
        seen[label] += 1
    test = torch.tensor([i for i in range(1797) if rank[i] % 5 == 4])
    train = torch.tensor([i for i in range(1797) if rank[i] % 5 != 4])
    assert (len(data.train), len(data.evaluation)) == (1442, 355)
    assert split_sizes(1442, 355, "test") == (1442, 355)
    assert "every fifth of each class" in DATASETS["digits"].about
    for part, indices in ((data.train, train), (data.evaluation, test)):
        assert part.images.shape == (len(indices), 1, 8, 8) and part.images.dtype == torch.uint8
        # Sixteen grey levels, spread over a byte: half a level of a byte is the rounding.
        torch.testing.assert_close(part.images[:, 0] / 255.0, images[indices].float() / 16, rtol=0, atol=0.5001 / 255)
        assert torch.equal(part.labels, labels[indices])
        assert part.labels.unique().tolist() == list(range(10))
    counts = data.evaluation.labels.bincount()
    assert (counts.min(), counts.max()) == (34, 36)


def test_no_image_is_in_both_splits() -> None:
    data = digits()
    train = {image.numpy().tobytes() for image in data.train.images}
    assert not [image for image in data.evaluation.images if image.numpy().tobytes() in train]


def test_holdout_is_every_tenth_training_image() -> None:
    whole, held = digits(), digits(evaluate_on="holdout")
    chosen = torch.tensor([i for i in range(1442) if i % 10 == 9])
    rest = torch.tensor([i for i in range(1442) if i % 10 != 9])
    assert split_sizes(1442, 355, "holdout") == (len(rest), len(chosen)) == (1298, 144)
    assert torch.equal(held.evaluation.images, whole.train.images[chosen])
    assert torch.equal(held.evaluation.labels, whole.train.labels[chosen])
    assert torch.equal(held.train.images, whole.train.images[rest])
    assert torch.equal(held.train.labels, whole.train.labels[rest])
    values = held.train.images.double() / 255
    assert held.mean[0] == pytest.approx(values.mean().item(), abs=1e-6), "the mean is of what is trained on"


@pytest.mark.parametrize("name", DATASETS)
def test_split_sizes_add_up(name: str) -> None:
    facts = DATASETS[name]
    assert split_sizes(facts.train_images, facts.test_images, "test") == (facts.train_images, facts.test_images)
    train, held = split_sizes(facts.train_images, facts.test_images, "holdout")
    assert train + held == facts.train_images and held == facts.train_images // 10


# ---------------------------------------------------------------------------------------------------------------------
# Order


def batches(seed: int, epoch: int, count: int = 23, size: int = 5) -> list[Tensor]:
    order = EpochBatches(count, size, seed, torch.device("cpu"))
    order.set_epoch(epoch)
    assert len(order) == count // size
    return list(order)


def test_an_epoch_is_full_batches_without_a_repeat() -> None:
    left_out = set()
    for epoch in range(8):
        found = batches(0, epoch)
        assert [len(batch) for batch in found] == [5, 5, 5, 5]
        indices = torch.cat(found).tolist()
        assert len(set(indices)) == 20 and set(indices) <= set(range(23))
        left_out |= set(range(23)) - set(indices)
    assert len(left_out) > 3, "the same images are always left over"


def test_the_order_follows_from_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return torch.cat(batches(seed, epoch)).tolist()

    first = order(0, 1)
    torch.manual_seed(99)
    torch.rand(7)
    assert order(0, 1) == first
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_the_loader_gives_images_with_their_labels() -> None:
    data = digits()
    (images, labels), *rest = list(train_loader(data.train, 32, seed=0))
    assert len(rest) == 1442 // 32 - 1
    known = {
        image.numpy().tobytes(): int(label) for image, label in zip(data.train.images, data.train.labels, strict=True)
    }
    assert images.shape == (32, 1, 8, 8) and images.dtype == torch.uint8
    assert [known[image.numpy().tobytes()] for image in images] == labels.tolist()


@pytest.mark.parametrize("size", [100, 359, 512])
def test_evaluation_sees_every_image_once_in_order(size: int) -> None:
    data = digits().evaluation
    found = list(evaluation_loader(data, size))
    assert torch.equal(torch.cat([images for images, _ in found]), data.images)
    assert torch.equal(torch.cat([labels for _, labels in found]), data.labels)


def test_lightning_tells_the_sampler_the_epoch(
    tmp_path: Path, tiny_words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    class Recorder(Augment):
        def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            seen.append(labels)
            return super().__call__(images, labels)

    monkeypatch.setattr(metaformer_ablate.tasks.classification.module, "Augment", Recorder)
    spec = spec_of({"train.epochs": 3, "train.batch_size": 256}, words=tiny_words, seed=4)
    runner = Runner(Store(tmp_path), folder(), torch.device("cpu"))
    assert runner.run(spec).status == "ok"
    order = EpochBatches(1442, 256, 4, torch.device("cpu"))
    data = runner.data(spec)
    assert isinstance(data, InMemoryData)
    expected = []
    for epoch in range(3):
        order.set_epoch(epoch)
        expected += [data.train.labels[batch] for batch in order]
    assert len(seen) == len(expected) == 15
    for ours, labels in zip(seen, expected, strict=True):
        assert torch.equal(ours, labels)
    assert not torch.equal(torch.cat(seen[:5]), torch.cat(seen[5:10]))


# ---------------------------------------------------------------------------------------------------------------------
# Pixels


def test_random_crop_is_that_of_torchvision() -> None:
    images = torch.randint(0, 256, (29, 3, 7, 11), dtype=torch.uint8)
    torch.manual_seed(2)
    cropped = random_crop(images, 2)
    torch.manual_seed(2)
    offsets = torch.randint(0, 5, (2, 29, 1)).flatten(1).T.tolist()
    assert {top for top, _ in offsets} == {left for _, left in offsets} == set(range(5))
    for image, ours, (top, left) in zip(images, cropped, offsets, strict=True):
        assert torch.equal(ours, TF.crop(TF.pad(image, [2]), top, left, 7, 11))


def test_flip_is_of_each_image_by_itself() -> None:
    augment = Augment(spec_of({"data.flip": True, "data.crop_padding": 0}).data, 10, (0.4,), (0.3,), "contiguous")
    images = torch.randint(0, 256, (200, 1, 5, 7), dtype=torch.uint8)
    torch.manual_seed(0)
    flipped, labels = augment(images, torch.arange(200))
    assert torch.equal(labels, torch.arange(200))
    same = [torch.equal(a, b) for a, b in zip(flipped, augment.normalise(images), strict=True)]
    mirrored = [torch.equal(a, b) for a, b in zip(flipped, augment.normalise(TF.hflip(images)), strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert 70 < sum(mirrored) < 130


def test_an_alternating_flip_shows_each_image_and_its_mirror_in_turn() -> None:
    """Over two epochs every image is seen once as it is and once mirrored, as arXiv 2404.00498 has it."""
    images = torch.randint(0, 256, (97, 1, 5, 7), dtype=torch.uint8)
    data = InMemoryData(ImageTensors(images, torch.arange(97)), ImageTensors(images, torch.arange(97)), (0.4,), (0.3,))
    spec = spec_of({"train.batch_size": 97, "data.flip": "alternating", "data.crop_padding": 0})
    augment = Augment(spec.data, 10, (0.4,), (0.3,), "contiguous")

    def mirrored(epoch: int, alternating: bool = True) -> list[bool]:
        loader = replace(data, alternating=alternating).train_loader(spec.train, 3, (epoch, 0), 0, Unreadable(0))
        ((found, labels),) = (augment(*batch) for batch in loader)
        same = augment.normalise(images[labels])
        other = augment.normalise(TF.hflip(images[labels]))
        turned = [torch.equal(a, b) for a, b in zip(found, other, strict=True)]
        assert [torch.equal(a, b) for a, b in zip(found, same, strict=True)] == [not turn for turn in turned]
        return [turn for _, turn in sorted(zip(labels.tolist(), turned, strict=True))]

    first = mirrored(0)
    assert 30 < sum(first) < 67
    assert mirrored(1) == mirrored(3) == [not turn for turn in first] and mirrored(2) == first
    assert not any(mirrored(0, alternating=False)), "what is drawn at random besides"


def test_without_augmentation_images_are_only_normalised() -> None:
    augment = Augment(spec_of({"data.flip": False, "data.crop_padding": 0}).data, 10, (0.4,), (0.3,), "contiguous")
    images, labels = torch.randint(0, 256, (5, 1, 5, 7), dtype=torch.uint8), torch.arange(5)
    augmented, targets = augment(images, labels)
    torch.testing.assert_close(augmented, TF.normalize(images.float() / 255, [0.4], [0.3]))
    assert torch.equal(targets, labels)


@pytest.mark.parametrize("size", [8, 16])
def test_normalised_training_images_have_mean_0_and_deviation_1(size: int) -> None:
    data = digits(size)
    augment = Augment(spec_of().data, 10, data.mean, data.std, "contiguous")
    values = augment.normalise(data.train.images).double()
    assert abs(values.mean()) < 1e-4
    assert abs(values.std(correction=0) - 1) < 1e-4


@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_images_come_in_the_memory_format_of_the_spec(memory_format: str) -> None:
    augment = Augment(spec_of().data, 10, (0.4,) * 3, (0.3,) * 3, memory_format)
    images, _ = augment(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4).long())
    wanted = torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
    assert images.is_contiguous(memory_format=wanted)


@pytest.mark.parametrize("size", [5, 11, 16])
def test_resizing_is_that_of_torchvision(size: int) -> None:
    native, resized = digits(), digits(size)
    expected = TF.resize(native.train.images, [size, size], antialias=True)
    assert torch.equal(resized.train.images, expected)
    assert torch.equal(resized.evaluation.images, TF.resize(native.evaluation.images, [size, size], antialias=True))


@needs_data
@pytest.mark.parametrize(("name", "channels"), [("fashion_mnist", 1), ("cifar10", 3)])
def test_images_are_those_of_torchvision(name: str, channels: int) -> None:
    assert PREPARED is not None
    spec = spec_of(recipe=name).data
    data = load_images(spec, DataFolder(Path(PREPARED), given=True))
    size = DATASETS[name].native_size
    assert spec.image_size == size
    dataset = getattr(torchvision.datasets, TORCHVISION_CLASS[name])
    for train, part in ((True, data.train), (False, data.evaluation)):
        theirs = dataset(PREPARED, train=train)
        assert part.images.shape == (len(theirs), channels, size, size)
        assert part.labels.tolist() == [int(label) for label in theirs.targets]
        for index in (0, 1, 997, len(theirs) - 1):
            image, label = theirs[index]
            assert torch.equal(part.images[index], TF.pil_to_tensor(image))
            assert part.labels[index] == label
    for channel, (mean, std) in enumerate(zip(data.mean, data.std, strict=True)):  # one at a time: they are many
        values = data.train.images[:, channel].float() / 255
        assert mean == pytest.approx(values.mean().item(), abs=1e-5)
        assert std == pytest.approx(values.std().item(), abs=1e-5)


@needs_data
@pytest.mark.slow
def test_a_run_on_images_of_a_folder(tmp_path: Path) -> None:
    assert PREPARED is not None
    settings = {"train.epochs": 1, "train.warmup_epochs": 0, "train.batch_size": 1024, "model.dims": [4, 4, 8, 8]}
    prepared = DataFolder(Path(PREPARED), given=True)
    record = Runner(Store(tmp_path), prepared, torch.device("cpu")).run(spec_of(settings, recipe="fashion_mnist"))
    assert record.status == "ok", record.data["reason"]
    assert record.data["data_fingerprint"] == prepared.fingerprint("fashion_mnist") is not None
    assert len(record.predictions()["label"]) == 10_000
    assert record.data["images_seen"] == 60_000 // 1024 * 1024


# ---------------------------------------------------------------------------------------------------------------------
# Fingerprints


@pytest.fixture
def fake(tmp_path: Path) -> DataFolder:
    """A folder with files of the right names and a few bytes each."""
    for number, file in enumerate(DATASETS["cifar10"].files):
        path = tmp_path / "data" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"bytes of file %d" % number)
    return DataFolder(tmp_path / "data", given=True)


def test_a_fingerprint_is_of_the_bytes(fake: DataFolder, tmp_path: Path) -> None:
    first = fake.fingerprint("cifar10")
    assert first is not None and len(first) == 16
    assert fake.fingerprint("cifar10") == first
    moved = fake.path.rename(tmp_path / "elsewhere")
    there = DataFolder(moved, given=True)
    assert there.fingerprint("cifar10") == first, "the fingerprint depends on the place"
    path = there.files("cifar10")[3]
    times = path.stat()
    path.write_bytes(path.read_bytes().replace(b"3", b"4"))  # one byte, the same size
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    changed = there.fingerprint("cifar10")
    assert changed is not None and changed != first


def test_a_fingerprint_tells_which_file_has_which_bytes(fake: DataFolder) -> None:
    before = fake.fingerprint("cifar10")
    first, second = fake.files("cifar10")[:2]
    contents = first.read_bytes(), second.read_bytes()
    for path, content in ((first, contents[1]), (second, contents[0])):
        times = path.stat()
        path.write_bytes(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 10**9))
    assert fake.fingerprint("cifar10") not in (None, before)


def test_what_is_not_there_has_no_fingerprint(fake: DataFolder) -> None:
    path = fake.files("cifar10")[0]
    path.unlink()
    assert fake.missing("cifar10") == [path]
    assert fake.fingerprint("cifar10") is None
    assert fake.fingerprint("imagenet") is None


def test_digits_have_a_fingerprint() -> None:
    path = folder().files("digits")[0]
    assert path.is_file(), "scikit-learn keeps its digits elsewhere now"
    assert folder().fingerprint("digits") == folder().fingerprint("digits") is not None


def test_a_cache_that_cannot_be_written_costs_only_time(
    fake: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fake.fingerprint("cifar10")
    blocked = tmp_path / "a file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert fake.fingerprint("cifar10") == expected
