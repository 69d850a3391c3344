"""Any folder of images: looked at once, held in memory or read from disk, its classes named in all that shows one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import Result
from PIL import Image

from metaformer_ablate.data.datasets import DATASETS
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.data.looking import look_at
from metaformer_ablate.data.spec import DataSpec
from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.store import Store
from metaformer_ablate.tasks.classification.data.in_memory import load_images
from metaformer_ablate.tasks.classification.error_analysis import report_line
from metaformer_ablate.tasks.classification.error_analysis.object_size import UNKNOWN, covered, has_even_background

CLASSES = ("cat", "dog", "fox")
SPLITS = {"train": 16, "val": 8}
Ablate = Callable[..., Result]

# Half a second a run.
QUICK = ("train.epochs=6", "train.lr=1e-2", "model.depths=[1,1,1,1]", "model.dims=[16,16,16,16]")


def make_folder(
    root: Path,
    splits: dict[str, int] = SPLITS,
    size: tuple[int, int] = (24, 24),
    ending: str = "png",
    low: int = 0,
    grey: bool = False,
) -> Path:
    """Noise from `low` on, in which a channel, or the brightness, tells the class."""
    random = np.random.default_rng(0)
    for split, number in splits.items():
        for k, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for i in range(number):
                pixels = random.integers(low, 60, (size[1], size[0], 3), dtype=np.uint8)
                pixels[..., k] += 150
                picture = Image.fromarray(pixels[..., 0] // 2 + 60 * k if grey else pixels)
                picture.save(root / split / name / f"{i}.{ending}")
    return root


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "animals")


def data_of(home: Path, name: str = "mine") -> dict[str, Any]:
    return yaml.safe_load((home / "experiments" / "recipes" / f"{name}.yaml").read_text())["data"]


def test_the_facts_are_found_and_are_in_the_id(images: Path, tmp_path: Path, ablate: Ablate) -> None:
    done = ablate("init", "mine", "--data", images)
    assert done.code == 0, done.err
    assert "3 classes, 48 training and 24 evaluation images, of 24 x 24 pixels in colour" in done.out
    assert f"ablate run mine --recipe mine --data {images} --seeds 3" in done.out
    facts = {"name": "folder", "set": "animals", "num_classes": 3, "train_images": 48, "test_images": 24}
    facts |= {"channels": 3, "held_in": "memory", "image_size": 24}
    assert data_of(tmp_path).items() >= facts.items()
    assert (
        "# Classes, in the order of the labels: cat, dog, fox.\n"
        in (tmp_path / "experiments/recipes/mine.yaml").read_text()
    )
    written = (tmp_path / "experiments" / "mine.yaml").read_text()
    assert f"# Run:   ablate run mine --recipe mine --data {images} --seeds 3\n" in written
    assert "`ablate show mine --recipe NAME`" in written
    images.rename(tmp_path / "elsewhere")
    words = ("mine", "--recipe", "mine", "--json")
    shown, explained = ablate("show", *words), ablate("show", *words, "data.train_images=47")
    assert shown.code == 0 and ablate("table", *words).code in (0, 1), "they need no data"
    first, second = (row["runs"][0]["run_id"] for row in (shown.json["rows"][0], explained.json["rows"][0]))
    assert first != second
    assert ablate("show", *words, "data.set=plants").json["rows"][0]["runs"][0]["run_id"] not in (first, second)


@pytest.mark.parametrize("held_in", ["memory", "disk"])
def test_classes_are_named_in_all_that_shows_one(images: Path, tmp_path: Path, ablate: Ablate, held_in: str) -> None:
    assert ablate("init", "mine", "--data", images).code == 0
    where = ("--data", images)
    words = (*QUICK, f"data.held_in={held_in}", *(["data.workers=0"] if held_in == "disk" else []))
    done = ablate("run", "mine", "--recipe", "mine", *where, "--keep-checkpoints", *words, "--json")
    assert done.code == 0, done.err
    row = done.json["tables"][0]["rows"][0]
    assert row["status"] == "ok" and row["mean"] > 60
    run = row["runs"][0]["run_id"]
    record = json.loads((tmp_path / "results" / "runs" / run / "record.json").read_text())
    assert record["classes"] == list(CLASSES)

    found = ablate("errors", run, *where, "--probe", "noise", "--gradcam", "--json")
    assert found.code == 0, found.err
    tree = found.json
    assert tree["dataset"] == "animals"
    assert [line["name"] for line in tree["classes"]] == list(CLASSES)
    assert tree["weights"]["predictions_repeated"] == tree["weights"]["images"] == (24 if held_in == "memory" else 16)
    probe = tree["probes"]["noise"]
    assert (probe["images"], probe["of"]) == (24, 24)
    clean = probe["runs"][0]["points"][0]
    assert clean["accuracy"] == tree["accuracy"] and clean["classes"][2]["name"] == "fox"
    assert "differ from the picture's border" in tree["object_size_method"] and len(tree["object_size"]) == 5
    for line in tree["mistakes"]:
        assert line["label_name"] in line["file"] and line["predicted_name"] in CLASSES
    assert {"mistakes.png", "gradcam.png"} <= set(tree["figures"]) or not tree["mistakes"]

    assert ablate("export", run, *where, "--format", "safetensors").code == 0
    exported = json.loads((tmp_path / f"export-{run}" / "export.json").read_text())
    assert exported["output"] == {"shape": ["N", 3], "classes": list(CLASSES)}
    cells = report_line(Store(tmp_path / "results").find(run))
    assert cells[1][1].partition(":")[0] in CLASSES, "the worst class, as the report has it"


@pytest.mark.slow
def test_pictures_of_a_set_on_disk_are_shown_with_their_files(tmp_path: Path, ablate: Ablate) -> None:
    """The net has learnt nothing, so that there are mistakes; ImageNet is read the same way."""
    make_folder(tmp_path / "data" / "imagenet", size=(40, 30), ending="jpg")
    for k, picture in enumerate(sorted((tmp_path / "data" / "imagenet" / "val").rglob("*.jpg"))):
        noise = np.random.default_rng(k).integers(0, 255, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(picture.with_name(f"val_{k}.jpg"))
        picture.unlink()
    (tmp_path / "experiments" / "recipes").mkdir(parents=True)
    (tmp_path / "experiments" / "one.yaml").write_text("title: One\nbaseline: a\nrows: {a: {label: A}}\n")
    (tmp_path / "experiments" / "recipes" / "tiny.yaml").write_text(TINY)
    run = ("run", "one", "--recipe", "tiny", "--data", tmp_path / "data", "--keep-checkpoints", "--json")
    run_id = ablate(*run).json["runs"][0]["run_id"]
    found = ablate("errors", run_id, "--data", tmp_path / "data", "--json")
    assert found.code == 0, found.err
    assert {"mistakes.png", "gradcam.png"} <= set(found.json["figures"])
    assert all(line["file"].startswith(line["label_name"] + "/") for line in found.json["mistakes"])
    assert found.json["object_size_method"] == UNKNOWN and "object_size" not in found.json
    assert f"Object size      {UNKNOWN}" in ablate("errors", run_id, "--data", tmp_path / "data").out
    annotate(tmp_path / "data" / "imagenet", box=(0, 0, 20, 15))
    boxed = ablate("errors", run_id, "--data", tmp_path / "data", "--json").json
    assert "boxes" in boxed["object_size_method"] and boxed["object_size"][0]["size"] == pytest.approx(25)


TINY = """
title: Tiny
model:
  {depths: [1, 1, 1, 1], dims: [8, 8, 16, 16], layer_scale: 0.1, drop_path: 0, stem: {kernel: 3, stride: 1, padding: 1}}
data: {name: imagenet, image_size: 16, num_classes: 3, train_images: 48, test_images: 24, workers: 0}
train:
  {epochs: 1, batch_size: 16, lr: 1e-2, weight_decay: 0, warmup_epochs: 0, warmup_lr: 1e-5, min_lr: 1e-5, threads: 1}
"""


def annotate(root: Path, box: tuple[int, int, int, int]) -> None:
    """A box in every picture to evaluate on, as ImageNet's Annotations have it."""
    names = ("xmin", "ymin", "xmax", "ymax")
    corners = "".join(f"<{name}>{value}</{name}>" for name, value in zip(names, box, strict=True))
    for picture in (root / "val").rglob("*.jpg"):
        path = root / "Annotations" / "CLS-LOC" / "val" / f"{picture.stem}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = "<size><width>40</width><height>30</height></size>"
        path.write_text(f"<annotation>{size}<object><bndbox>{corners}</bndbox></object></annotation>")


def test_boxes_that_overlap_cover_once(tmp_path: Path) -> None:
    box = "<object><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
    two = box.format(0, 0, 50, 10) + box.format(25, 0, 75, 10)
    (tmp_path / "a.xml").write_text(f"<a><size><width>100</width><height>20</height></size>{two}</a>")
    assert covered(tmp_path / "a.xml") == pytest.approx(0.375)
    for broken in (
        "",
        "<a/>",
        "<a><size><width>x</width></size></a>",
        "<a><size><width>5</width><height>5</height></size></a>",
    ):
        (tmp_path / "a.xml").write_text(broken)
        assert covered(tmp_path / "a.xml") is None


def test_an_even_background_is_seen() -> None:
    from metaformer_ablate.data import digits

    pixels, _, _ = digits.load()
    noise = np.random.default_rng(0).integers(0, 255, (50, 3, 16, 16), dtype=np.uint8)
    assert not has_even_background(noise) and has_even_background(np.zeros((5, 1, 8, 8), dtype=np.uint8))
    assert not has_even_background(pixels[:, None]), "digits of 8 x 8 reach the border: a flag of theirs says so"


def test_images_in_memory_are_the_middle_squares(tmp_path: Path) -> None:
    """Of one size they are as Pillow reads them; labels and order are those of torchvision's ImageFolder."""
    from torchvision.datasets import ImageFolder

    root = make_folder(tmp_path / "a")
    spec = DataSpec(
        name="folder", image_size=24, num_classes=3, train_images=48, test_images=24, channels=3, held_in="memory"
    )
    data = load_images(spec, DataFolder(root, given=True))
    theirs = ImageFolder(root / "val")
    ours = {file: (data.evaluation.images[i], int(data.evaluation.labels[i])) for i, file in enumerate(data.files)}
    assert len(ours) == len(theirs) == 24 and data.classes == tuple(theirs.classes) == CLASSES
    for path, label in theirs.samples:
        pixels, mine = ours[str(Path(path).relative_to(root / "val"))]
        assert mine == label
        assert np.array_equal(pixels.permute(1, 2, 0).numpy(), np.asarray(Image.open(path)))
    wide = Image.new("RGB", (48, 24), "red")
    wide.paste("blue", (12, 0, 36, 24))
    wide.save(root / "train" / "cat" / "0.png")
    first = load_images(spec, DataFolder(root, given=True)).train.images[0]
    assert first[0].max() == 0 and first[2].min() == 255, "the sides are cut off, the middle is not squeezed"
    held = load_images(spec.model_copy(update={"evaluate_on": "holdout"}), DataFolder(root, given=True))
    assert held.sizes == (44, 4)


def test_grey_images_have_one_channel(tmp_path: Path, ablate: Ablate) -> None:
    make_folder(tmp_path / "grey", size=(20, 28), grey=True)
    assert ablate("init", "mine", "--data", "grey").code == 0
    found = data_of(tmp_path)
    assert (found["channels"], found["image_size"], found["flip"]) == (1, 20, False)
    done = ablate("run", "mine", "--recipe", "mine", "--data", "grey", *QUICK, "--json")
    assert done.code == 0, done.err
    assert done.json["tables"][0]["rows"][0]["mean"] > 60
    sentence = ablate("show", "mine", "--recipe", "mine", "data.held_in=disk").sentence
    assert "data.channels is 1 (a number); allowed with data.held_in=disk: 3" in sentence


def test_a_folder_of_classes_without_splits(tmp_path: Path, ablate: Ablate) -> None:
    make_folder(tmp_path / "flat", {"": 10})
    found = look_at(tmp_path / "flat")
    assert (found.train_images, found.test_images, found.classes) == (24, 6, CLASSES)
    assert ablate("init", "mine", "--data", "flat").code == 0
    done = ablate("run", "mine", "--recipe", "mine", "--data", "flat", *QUICK, "--json")
    assert done.code == 0, done.err
    # ImageNet is never read so: what lies in a folder of data sets is not one.
    with pytest.raises(RequestError, match="imagenet is not in"):
        DataFolder(tmp_path / "flat", given=True).require("imagenet")


def test_other_names_of_the_evaluation_split(tmp_path: Path) -> None:
    make_folder(tmp_path / "a", {"train": 4, "test": 2})
    assert look_at(tmp_path / "a").test_images == 6
    make_folder(tmp_path / "a", {"val": 1}, low=1)
    found = look_at(tmp_path / "a")
    assert found.test_images == 3
    assert found.notes == ("not counted are 1 files and folders that are of no split: test/",)
    make_folder(tmp_path / "b", {"train": 4, "test": 2, "valid": 2})
    with pytest.raises(RequestError, match="holds valid and test; allowed: one of them, or a val"):
        look_at(tmp_path / "b")


def test_what_is_odd_about_the_images_is_said(tmp_path: Path, ablate: Ablate) -> None:
    root = make_folder(tmp_path / "odd", size=(30, 20))
    (root / "train" / "cat" / "notes.txt").write_text("x")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(root / "train" / "cat" / "turned.jpg", exif=exif)
    (root / "val" / "dog" / "broken.png").write_bytes(b"no picture")
    shutil.copy(root / "train" / "dog" / "1.png", root / "val" / "dog" / "1.png")
    done = ablate("init", "mine", "--data", "odd")
    assert done.code == 0, done.err
    assert "1 with endings that are not read: cat/notes.txt" in done.err
    assert "1 images have an EXIF orientation: they are read as they are stored" in done.err
    assert "1 images to evaluate on are trained on too: they say nothing of images that a net" in done.err
    assert "1 images cannot be read: dog/broken.png (UnidentifiedImageError)" in done.err
    sentence = ablate("run", "mine", "--recipe", "mine", "--data", "odd", *QUICK)
    assert sentence.code == 2 and "1 of 25 images cannot be read: dog/broken.png" in sentence.err
    (root / "val" / "dog" / "broken.png").unlink()
    words = ("mine", "--recipe", "mine", "--data", "odd", "data.test_images=24", *QUICK)
    assert ablate("run", *words).code == 0
    record = json.loads(next((tmp_path / "results" / "runs").rglob("record.json")).read_text())
    assert record["remarks"]["orientation"]["train"]["images"] == 1
    assert record["remarks"]["trained_on"] == {"evaluation": {"images": 1, "names": ["dog/1.png"]}}
    table = " ".join(ablate("table", *words).out.split())
    said = "evaluation images are trained on too: they say nothing of images that a net has not seen: 1 (seed 0)"
    assert said in table


def test_what_cannot_be_a_recipe_is_refused(images: Path, tmp_path: Path, ablate: Ablate) -> None:
    (tmp_path / "empty").mkdir()
    make_folder(tmp_path / "one", {"train": 2, "val": 2})
    for name in CLASSES[1:]:
        for split in SPLITS:
            for path in (tmp_path / "one" / split / name).iterdir():
                path.unlink()
    for folder, sentence in (
        ("nowhere", "--data is 'nowhere', which is not a folder"),
        ("empty", "empty holds no images that are sorted by class; allowed: folder: {train,val}/CLASS/*.jpg; "),
        ("one", "holds 1 class, labels from 0 to 0; allowed: 2 classes or more"),
    ):
        assert sentence in ablate("init", "mine", "--data", folder).sentence
        assert not (tmp_path / "experiments" / "mine.yaml").exists()
    assert "the package has a recipe 'digits'" in ablate("init", "digits", "--data", images).sentence
    assert ablate("init", "mine", "--data", images).code == 0
    (tmp_path / "experiments" / "mine.yaml").unlink()
    assert "recipes/mine.yaml is there already" in ablate("init", "mine", "--data", images).sentence
    assert "data.num_classes is not set" in ablate("show", "pooling_size", "data.name=folder").sentence
    assert "nothing reads it: digits is no folder of one's own" in ablate("show", "pooling_size", "data.set=a").sentence


def test_many_large_images_are_read_from_the_disk(images: Path) -> None:
    from dataclasses import replace

    from metaformer_ablate.cli.init_data import choose_size, recipe_text

    found = look_at(images)
    assert choose_size(found) == (24, True)
    photographs = replace(found, shorter_side=375, sides=(200, 500), train_images=80_000, test_images=5000)
    assert choose_size(photographs) == (64, True)
    many = replace(photographs, train_images=90_000)
    assert choose_size(many) == (224, False)
    tree = yaml.safe_load(recipe_text(many, "many", "a folder"))
    assert (tree["data"]["held_in"], tree["data"]["channels"], tree["model"]) == ("disk", 3, {"size": "s12"})


def test_imagenette_is_known_and_found(tmp_path: Path, ablate: Ablate) -> None:
    """Its facts need no data; it lies where torchvision puts it."""
    shown = ablate("show", "token_mixers", "--recipe", "imagenette", "--json")
    assert shown.code == 0 and shown.json["rows"][0]["params"] > 0
    assert DATASETS["imagenette"].known_classes[0] == "tench"
    folder = DataFolder(tmp_path, given=False)
    assert [path.name for path in folder.missing("imagenette")] == ["imagenette2-160"]
    assert "Imagenette as D; D('" in folder.how_to_get("imagenette") and "size='160px'" in folder.how_to_get(
        "imagenette"
    )
    make_folder(tmp_path / "imagenette2-160")
    assert not folder.missing("imagenette") and folder.fingerprint("imagenette")
    sentence = "imagenette holds 48 images for train, but data.train_images is 9469; allowed: the whole data set\n"
    run = ablate("run", "token_mixers", "--recipe", "imagenette", "--data", tmp_path)
    assert run.code == 2 and sentence in run.err
