"""What is part of a folder, of shards and of parquet files: nothing vanishes or changes without a word."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from opened_files import opened
from pictures import pictures_spec
from PIL import Image

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.data.pictures import as_rgb, remark_on
from metaformer_ablate.data.rules import natural
from metaformer_ablate.data.unreadable import Unreadable
from metaformer_ablate.errors import RequestError

CLASSES = ("cat", "dog", "fox")


def picture(ending: str = ".png", bright: int = 250, **arguments: Any) -> bytes:
    """A small picture; its upper half is bright."""
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[:4] = bright
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=Image.registered_extensions()[ending], **arguments)
    return stream.getvalue()


def write(root: Path, *names: str, content: bytes | None = None) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(Path(name).suffix.lower()) if content is None else content)
    return root


def small(root: Path, train: int = 4, val: int = 2) -> Path:
    """Three classes."""
    for split, count in (("train", train), ("val", val)):
        write(root, *(f"{split}/{name}/{i}.png" for name in CLASSES for i in range(count)))
    return root


SIZES = {"num_classes": 3, "train_images": 12, "test_images": 6}
OF_DATA = {"train.batch_size": 2, **{f"data.{key}": value for key, value in SIZES.items()}}


def refused(root: Path, **sizes: Any) -> str:
    with pytest.raises(RequestError) as error:
        opened(root, **OF_DATA | {f"data.{key}": value for key, value in sizes.items()})
    text = str(error.value)
    assert "\n" not in text and str(root) in text
    return text


def shard(path: Path, members: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def samples(*labels: int) -> list[tuple[str, bytes]]:
    return [
        (f"{i:04}{ending}", content)
        for i, label in enumerate(labels)
        for ending, content in ((".png", picture()), (".cls", b"%d" % label))
    ]


def shards(root: Path, train: list[tuple[str, bytes]]) -> Path:
    shard(root / "train-0.tar", train)
    shard(root / "val-0.tar", samples(0, 1, 2, 0, 1, 2))
    return root


# ---------------------------------------------------------------------------------------------------------------------
# Folders


def test_the_fingerprint_of_a_folder_stays_for_ever_whatever_else_lies_in_it(tmp_path: Path) -> None:
    """The number is that of the first release; records name it."""
    for split in ("train", "val"):
        for name in ("b10", "b9", "x/A"):
            for i in (0, 1, 10):
                write(tmp_path, f"{split}/{name}/{i}.jpg", content=b"x" * (i + 5))
            write(tmp_path, f"{split}/{name}/z.PNG", f"{split}/{name}/notes.txt", content=b"")
    assert DataFolder(tmp_path, given=True).fingerprint("imagenet") == "ae3787054e316ed2"
    write(tmp_path, "train/.ipynb_checkpoints/0.jpg", "train/b9/._0.jpg", "val/b9/.DS_Store", content=b"")
    assert DataFolder(tmp_path, given=True).fingerprint("imagenet") == "ae3787054e316ed2"


def test_digits_of_other_scripts_and_powers_sort_as_names_do() -> None:
    assert sorted(["20", "10²", "x", "9", "٣"], key=natural) == ["٣", "9", "10²", "20", "x"]


def test_hidden_folders_are_no_class_and_are_said(tmp_path: Path) -> None:
    root = small(tmp_path)
    write(root, "train/.ipynb_checkpoints/0.png", "train/cat/.ipynb_checkpoints/0.png", "train/dog/._1.png")
    data = opened(root, **OF_DATA)
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    (note,) = data.notes
    assert note.startswith(f"{root}: not counted for train are 3 hidden")
    assert ".ipynb_checkpoints, cat/.ipynb_checkpoints, ..." in note and "evaluation" not in note


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("train/cat/left/0.png", "train/dog/left/0.png"), "cat holds images, and so does cat/left in it"),
        (("train/a/left/0.png", "train/b/left/0.png"), "the last folder of a/left and of b/left is left"),
    ],
)
def test_folders_that_could_be_two_sets_of_classes_are_refused(
    more: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    assert f"train: {said}: which is the class cannot be told" in refused(write(small(tmp_path), *more))


def test_folders_in_folders_that_read_one_way_are_classes_by_their_own_names(tmp_path: Path) -> None:
    root = small(tmp_path)
    for split in ("train", "val"):
        (root / split / "wild").mkdir()
        (root / split / "cat").rename(root / split / "wild" / "lynx")
    data = opened(root, **OF_DATA)
    assert data.train.source.classes == ("dog", "fox", "lynx")
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_every_format_of_images_is_read(tmp_path: Path) -> None:
    root = small(tmp_path)
    expected = opened(root, **OF_DATA).evaluation[0:6][0][0]
    for name, ending in zip(CLASSES, (".webp", ".bmp", ".TIF"), strict=True):
        for path in (root / "val" / name).iterdir():
            lossless = {"lossless": True} if ending == ".webp" else {}
            path.with_suffix(ending).write_bytes(picture(ending.lower(), **lossless))
            path.unlink()
    assert torch.equal(opened(root, **OF_DATA).evaluation[0:6][0][0], expected)


def test_what_is_not_read_is_counted_where_the_number_is_wrong(tmp_path: Path) -> None:
    root = small(tmp_path)
    for i in range(3):
        (root / "train" / "cat" / f"{i}.png").rename(root / "train" / "cat" / f"{i}.jp2")
    (root / "train" / "cow").mkdir()
    text = refused(root)
    assert (
        "holds 9 images for train, but data.train_images is 12; not counted are 1 folders without an image: cow; "
        in text
    )
    assert "3 with endings that are not read: cat/0.jp2, cat/1.jp2, ...; read are .jpg, .jpeg, .png" in text
    for path in (root / "train").rglob("*.png"):
        path.rename(path.with_suffix(".jp2"))
    assert "12 with endings that are not read: cat/0.jp2" in (text := refused(root)) and "train_images=" not in text
    for path in (root / "val").rglob("*.png"):
        path.rename(path.with_suffix(".jp2"))
    assert "holds no image for train; not counted are" in (text := refused(root)) and "train_images=" not in text


def test_an_evaluation_without_a_class_is_said_and_numbers_classes_as_training_does(tmp_path: Path) -> None:
    root = small(tmp_path)
    for path in (root / "val" / "cat").iterdir():
        path.unlink()
    data = opened(root, **OF_DATA | {"data.test_images": 4})
    assert data.evaluation.labels.tolist() == [1, 1, 2, 2]
    assert data.evaluation[0:4][0][1].tolist() == [1, 1, 2, 2]
    assert [data.evaluation.open(i)[1] for i in range(4)] == [1, 1, 2, 2]
    assert "1 of 3 classes have no image to evaluate on: cat" in data.notes[0]
    write(root, "val/cow/1.png")
    assert "cow is in val alone, cat is in train alone" in refused(root)


def test_an_image_that_is_all_of_its_class_is_not_held_out_in_silence(tmp_path: Path) -> None:
    root = small(tmp_path, train=3)
    write(root, "train/zebra/0.png", "val/zebra/0.png")
    sizes = {"num_classes": 4, "train_images": 10, "test_images": 7}
    assert "1 of 4 classes have no image to train on, and 1 to evaluate on: zebra" in refused(
        root, evaluate_on="holdout", **sizes
    )


@pytest.mark.parametrize("name", ["train/cat/x.png", "train-0.tar", "val-0.parquet"])
@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_what_is_not_a_regular_file_is_refused_and_not_read(name: str, kind: str, tmp_path: Path) -> None:
    root = small(tmp_path) if name.endswith(".png") else tmp_path
    for other in ("val-0.tar", "train-0.parquet"):
        if other.endswith(Path(name).suffix):
            write(root, other, content=b"")
    if kind == "fifo":
        os.mkfifo(root / name)
    else:
        (root / name).symlink_to("/dev/zero")
    assert f"{root / name}: is not a regular file" in refused(root)
    assert DataFolder(root, given=True).fingerprint("imagenet") is None


def test_a_file_that_became_a_fifo_cannot_be_read_and_is_not_waited_for(tmp_path: Path) -> None:
    root = small(tmp_path)
    data, unreadable = opened(root, **OF_DATA), Unreadable(1)
    (root / "val" / "cat" / "0.png").unlink()
    os.mkfifo(root / "val" / "cat" / "0.png")
    list(data.evaluation_loader(pictures_spec(**OF_DATA).train, 0, unreadable))
    assert "not a regular file" in unreadable.found["evaluation"]["cat/0.png"]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("..", "again leads back to {root}/train; "),
        (".", "again leads back to {root}/train/cat; "),
        ("again", "again: cannot be read: Too many levels of symbolic links"),
        ("../dog", " is the same folder as "),
    ],
)
def test_links_that_lead_round_or_to_a_folder_once_more_are_named(target: str, said: str, tmp_path: Path) -> None:
    root = small(tmp_path)
    (root / "train" / "cat" / "again").symlink_to(target)
    assert said.format(root=root) in refused(root)
    assert DataFolder(root, given=True).fingerprint("imagenet") is None


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "/dev/zero"])
def test_a_name_that_no_folder_can_have_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match=r"--data is .*, which is not a folder"):
        DataFolder.choose(name)


# ---------------------------------------------------------------------------------------------------------------------
# Shards and parquet files


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (samples(0, 1, 2) + samples(2), "holds 0000.png twice"),
        ([*samples(0, 1, 2), ("./0001.png", picture())], "holds 0001.png twice"),
        ([*samples(0, 1, 2), ("0001.jpg", picture(".jpg"))], "0001.png and 0001.jpg are two images of one sample"),
        (
            [*samples(0, 1, 2), ("a.v2.png", b""), ("a.v2.cls", b"1"), ("b.1.png", b"")],
            "2 images have more than one dot in their names (a.v2.png, b.1.png)",
        ),
        (
            [*samples(0, 1, 2), ("0001.2.png", picture()), ("0001.2.cls", b"2")],
            "0001.2.png: more than one dot in the name, and a label of its own",
        ),
        ([*samples(0, 1, 2), ("0003.png", b""), ("0003.cls", b"1_0")], "0003.cls holds '1_0'; allowed: a label in"),
        ([*samples(0, 1, 2), ("0003.png", b""), ("0003.cls", b"9" * 30)], "allowed: a label in digits"),
        (samples(2, 2, 2), "2 of 3 classes have no image to train on, and 4 to evaluate on: 0, 1; "),
    ],
)
def test_shards_of_which_images_would_be_lost_are_refused(
    members: list[tuple[str, bytes]], said: str, tmp_path: Path
) -> None:
    text = refused(shards(tmp_path, members), train_images=3)
    assert said in text


def test_a_link_in_a_shard_is_no_image(tmp_path: Path) -> None:
    root = shards(tmp_path, samples(0, 1, 2))
    with tarfile.open(root / "train-0.tar", "a") as archive:
        link = tarfile.TarInfo("0009.png")
        link.type, link.linkname = tarfile.SYMTYPE, "0001.png"
        archive.addfile(link)
    assert "0009.png is a link, a sparse file or a device" in refused(root)


def test_fields_of_a_sample_are_nothing_lost_and_samples_without_an_image_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [("0000.json", b"{}"), ("0001.seg.png", picture()), ("./._0002.png", b""), ("7.npy", b""), ("7.cls", b"1")]
    root = shards(tmp_path, samples(0, 1, 2) + more)
    data = opened(root, **OF_DATA | {"data.train_images": 3})
    assert data.train.labels.tolist() == [0, 1, 2]
    for _ in range(2):  # the second time from what is cached_cost
        assert "train images" not in capsys.readouterr().err
        text = refused(root, train_images=4)
        assert "1 hidden (their names begin with a dot): train-0.tar/./._0002.png" in text
        assert "2 members of samples without an image: train-0.tar/7.cls, train-0.tar/7.npy" in text
        assert "1 further images of a sample (x.seg.png beside x.jpg): train-0.tar/0001.seg.png" in text


def test_files_of_a_split_in_two_folders_are_refused(tmp_path: Path) -> None:
    root = shards(tmp_path, samples(0, 1, 2))
    shard(root / "train" / "train-1.tar", samples(0))
    assert "train-0.tar, ... lie in" in refused(root)


def parquet(
    root: Path,
    train: list[Any],
    val: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    column: str = "label",
    names: dict[str, list[str]] | None = None,
    path: str | None = None,
) -> Path:
    """Two splits; `names` are the ClassLabel of each, of those that have one."""
    pytest.importorskip("datasets")
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", root / "cache")
    (root / "data").mkdir()
    for word, labels in (("train", train), ("validation", val)):
        columns = {"image": [{"bytes": picture(), "path": path} for _ in labels], column: labels}
        made = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
        if word in (names or {}):
            made = made.cast_column(column, datasets.ClassLabel(names=names[word]))
        made.to_parquet(str(root / "data" / f"{word}-00000-of-00001.parquet"))
    return root


def test_labels_of_parquet_files_may_be_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = parquet(tmp_path, ["c10", "dog", "c9"], ["dog", "c9", "c9"], monkeypatch)
    data = opened(root, **OF_DATA | {"data.train_images": 3, "data.test_images": 3})
    assert data.train.source.classes == ("c9", "c10", "dog")
    assert data.train.labels.tolist() == [1, 2, 0] and data.evaluation.labels.tolist() == [2, 0, 0]
    assert [data.evaluation.open(i)[1] for i in range(3)] == [2, 0, 0]


def test_whole_numbers_of_parquet_files_count_by_the_names_of_their_own_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Splits that were exported apart may count otherwise."""
    names = {"train": ["ant", "bee", "cat"], "validation": ["cat", "bee"]}
    root = parquet(tmp_path, [0, 1, 2], [0, 1, 1], monkeypatch, names=names)
    data = opened(root, **OF_DATA | {"data.train_images": 3, "data.test_images": 3})
    assert data.train.source.classes == ("ant", "bee", "cat")
    assert data.train.labels.tolist() == [0, 1, 2] and data.evaluation.labels.tolist() == [2, 1, 1]
    assert [data.evaluation.open(i)[1] for i in range(3)] == [2, 1, 1]
    assert [data.train.name(i) for i in range(3)] == ["row 0", "row 1", "row 2"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"train": ["ant", "bee", "cat"]}, "labels of evaluation are whole numbers without names"),
        ({"train": ["ant", "bee", "cat"], "validation": ["fly", "bee"]}, "fly is in validation alone"),
    ],
)
def test_splits_of_parquet_files_whose_names_do_not_fit_are_refused(
    names: dict[str, list[str]], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said in refused(parquet(tmp_path, [0, 1, 2], [0, 1, 1], monkeypatch, names=names))


def test_images_of_one_name_in_a_parquet_file_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each that cannot be read counts."""
    root = parquet(tmp_path, [0, 1, 2], [0, 1, 2], monkeypatch, path="image.png")
    data = opened(root, **OF_DATA | {"data.train_images": 3, "data.test_images": 3})
    assert [data.train.name(i) for i in range(3)] == [f"row {i} (image.png)" for i in range(3)]


def test_images_that_are_evaluated_and_trained_on_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A link or a copy of the training images, or some of them; the same names and sizes alone are no copy."""
    small(tmp_path, 4, 4)
    for split, value in (("train", 1), ("val", 2)):
        for path in (tmp_path / split).glob("*/*.png"):
            path.unlink()
            Image.new("RGB", (8, 8), (value,) * 3).save(path.with_suffix(".bmp"))
    sizes = OF_DATA | {"data.test_images": 12}

    def told(**settings: Any) -> dict[str, Any]:
        data, unreadable = opened(tmp_path, **sizes | settings), Unreadable(0)
        list(data.evaluation_loader(pictures_spec(**sizes).train, 0, unreadable))
        return unreadable.to_record()

    assert told() == {}
    (tmp_path / "val" / "cat" / "1.bmp").unlink()
    (tmp_path / "val" / "cat" / "1.bmp").symlink_to(tmp_path / "train" / "cat" / "1.bmp")
    (tmp_path / "val" / "dog" / "0.bmp").write_bytes((tmp_path / "train" / "dog" / "0.bmp").read_bytes())
    both = {"images": 2, "names": ["cat/1.bmp", "dog/0.bmp"]}
    assert told() == {"remarks": {"trained_on": {"evaluation": both}}}
    assert "evaluation images such as cat/1.bmp are trained on too: they say nothing" in capsys.readouterr().err
    assert told(**{"data.evaluate_on": "holdout"}) == {}, "the folder of evaluation images is not read"


@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        ([0.0, 1.7, 2.0], [0.0], "labels of train are of type double"),
        ([0, None, 2], [0], "labels of train are 1 missing"),
        ([[0], [1], [2]], [[0]], "labels of train are of type list"),
        (["a", "b", "c"], ["a", "z"], "z is in validation alone, b, c are in train alone"),
    ],
)
def test_other_labels_of_parquet_files_are_refused(
    train: list[Any], val: list[Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said in refused(parquet(tmp_path, train, val, monkeypatch))


def test_parquet_files_without_labels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = parquet(tmp_path, [0, 1, 2], [0], monkeypatch, column="class")
    assert "the columns of train are image, class; allowed: image and label" in refused(root)


def test_parquet_files_of_which_the_package_reads_others_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where some names say which of how many they are, it reads these alone."""
    root = parquet(tmp_path, [0, 1, 2], [0, 1, 2], monkeypatch)
    found = next((root / "data").glob("validation*"))
    found.with_name("validation-more.parquet").write_bytes(found.read_bytes())
    text = refused(root)
    assert "reads 3 images for evaluation, but the files validation-00000-of-00001.parquet, ... hold 6" in text


# ---------------------------------------------------------------------------------------------------------------------
# Pixels


@pytest.mark.parametrize("ending", [".png", ".pgm", ".tif"])
def test_grey_of_16_bits_is_scaled_and_not_white(ending: str, tmp_path: Path) -> None:
    values = np.array([[0, 128, 129, 257 * 7], [3000, 25000, 55000, 65535]], dtype=np.uint16)
    path = tmp_path / f"deep{ending}"
    Image.fromarray(values).save(path)
    with Image.open(path) as found:
        image = np.asarray(as_rgb(found))
    expected = np.round(values / 257).astype(np.uint8)
    assert image.shape == (2, 4, 3) and (image == expected[..., None]).all()


def test_values_of_unknown_range_cannot_be_read(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), dtype=np.float32)).save(tmp_path / "f.tif")
    with Image.open(tmp_path / "f.tif") as found, pytest.raises(ValueError, match="its mode is F, whose range"):
        as_rgb(found)


def test_images_that_are_stored_turned_are_read_as_stored_counted_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, plain = small(tmp_path / "turned"), opened(small(tmp_path / "plain"), **OF_DATA)
    for path in (root / "train").glob("*/*.png"):
        path.write_bytes(picture(bright=240))
    for name in ("val/cat/0", "val/dog/1", "train/fox/0"):
        exif = Image.Exif()
        exif[0x0112] = 6
        (root / f"{name}.png").write_bytes(picture(exif=exif))
    Image.fromarray(np.full((8, 8), 40000, dtype=np.uint16)).save(root / "val" / "fox" / "0.png")
    spec, unreadable = pictures_spec(**OF_DATA), Unreadable(0)
    data = opened(root, **OF_DATA)
    ((images, _),) = data.evaluation_loader(spec.train, 0, unreadable)
    assert torch.equal(images[:4], plain.evaluation[0:4][0][0])
    for _ in range(2):
        list(data.train_loader(spec.train, 0, (0, 0), 0, unreadable))
    said = capsys.readouterr().err
    assert said.count("evaluation images such as cat/0.png have an EXIF orientation") == 1
    assert unreadable.to_record() == {
        "remarks": {
            "orientation": {
                "train": {"images": 1, "names": ["fox/0.png"]},
                "evaluation": {"images": 2, "names": ["cat/0.png", "dog/1.png"]},
            },
            "sixteen_bits": {"evaluation": {"images": 1, "names": ["fox/0.png"]}},
        }
    }
    resumed = Unreadable(0)
    resumed.add(unreadable.found)
    assert resumed.to_record() == unreadable.to_record() and resumed.count == 0


def test_what_is_dropped_of_a_picture_is_told(tmp_path: Path) -> None:
    """As timm drops it: an alpha channel, and all frames but the first."""
    clear, solid = (Image.new("RGBA", (8, 8), (9, 9, 9, alpha)) for alpha in (0, 255))
    palette = Image.new("P", (8, 8))
    for name, image, arguments, kind in (
        ("a.png", clear, {}, "transparency"),
        ("b.png", palette, {"transparency": 0}, "transparency"),
        ("c.png", solid, {}, None),
        ("d.png", palette, {}, None),
        ("e.webp", solid, {"save_all": True, "append_images": [Image.new("RGBA", (8, 8), "white")]}, "frames"),
        ("f.tif", solid, {}, None),
        ("g.jpg", Image.new("L", (8, 8)), {}, None),
    ):
        image.save(tmp_path / name, **arguments)
        with Image.open(tmp_path / name) as found:
            as_rgb(found)
            assert remark_on(found) == kind, name


def test_names_that_are_no_utf8_leave_a_record_that_can_be_read() -> None:
    unreadable = Unreadable(1)
    unreadable.note("train", {os.fsdecode(b"caf\xe9.jpg"): "cut off"})
    assert unreadable.to_record()["unreadable"]["train"]["names"] == ["caf\\udce9.jpg"]
