"""`ablate init NAME --data DIR`: a recipe for a folder of images."""

from __future__ import annotations

import json
import logging
import shlex
from pathlib import Path

from metaformer_ablate.data.looking import FoundImages, look_at
from metaformer_ablate.errors import RequestError, visible
from metaformer_ablate.spec.experiment import find_all

logger = logging.getLogger(__name__)

# What is held in memory, as CIFAR-10 is; more is read from the disk image by image.
MOST_BYTES = 2**30

# Larger images are made smaller, to a size that a CPU trains on; where they are too many for memory, to the paper's.
LARGE, SMALL_SIZE, PAPER_SIZE = 96, 64, 224

SHOWN_CLASSES = 20

_RECIPE = """\
# {about}
# Found: {found}.
# Classes, in the order of the labels: {classes}.
# Run:   ablate run {name} --recipe {name} --data {data}
# Held:  {held}
# Not tuned: rates, epochs and crops are those of recipes for other images. Choose on `data.evaluate_on=holdout`, every
#        tenth training image, never on the images that are evaluated on.
# flip:  {flip}
title: {title}
model:
{model}
data:
  name: folder
  set: {set}
  num_classes: {num_classes}
  train_images: {train_images}
  test_images: {test_images}
  channels: {channels}
  held_in: {held_in}
  image_size: {image_size}
  flip: {flips}
  crop_padding: {crop_padding}
train:
  epochs: {epochs}
  batch_size: {batch_size}
  lr: {lr}
  weight_decay: 0.05
  warmup_epochs: 0.5
  warmup_lr: 1e-5
  min_lr: 1e-5
  label_smoothing: 0.1
  threads: {threads}
"""


def recipe_text(found: FoundImages, name: str, data: str) -> str:
    """A commented recipe for a folder of images that runs as it is. `data` is what --data was given."""
    size, in_memory = choose_size(found)
    channels = found.channels if in_memory else 3
    batch, lr, epochs = _training(found.train_images)
    shown = [visible(each) for each in found.classes[:SHOWN_CLASSES]]
    rest = len(found.classes) - len(shown)
    square = f"{size} x {size}"
    if in_memory:
        resized = (
            "" if found.one_size and size == found.sides[0] else "the middle square of the shorter side, resized, "
        )
        held = f"in memory at {square}, {resized}augmented there in batches (data.held_in: memory)."
    else:
        held = (
            f"on disk, read image by image and cropped at random to {square} (data.held_in: disk); in memory it would "
            f"take more than {MOST_BYTES >> 30} GiB."
        )
    return _RECIPE.format(
        about=visible(f"The images in {found.name}, as `ablate init {name} --data` found them."),
        found=visible(in_words(found)),
        classes=", ".join(shown) + (f", and {rest} more" if rest else "") or "the files have numbers alone",
        name=name,
        data=visible(shlex.quote(data)),
        held=held,
        flip="left and right are taken to be alike; set false where they are not (text, signs, scans)."
        if channels == 3
        else "not of grey images, which are often text or scans; set true where left and right are alike.",
        title=json.dumps(f"{found.name}, {square}"),
        model=_model(size),
        set=json.dumps(found.name),
        num_classes=found.num_classes,
        train_images=found.train_images,
        test_images=found.test_images,
        channels=channels,
        held_in="memory" if in_memory else "disk",
        image_size=size,
        flips=str(channels == 3).lower(),
        crop_padding=max(1, size // 16),
        epochs=epochs,
        batch_size=batch,
        lr=lr,
        threads=1 if size <= LARGE else 8,
    )


def choose_size(found: FoundImages) -> tuple[int, bool]:
    """Pixels per side to train on, and whether the images are held in memory at that size."""
    size = max(8, found.shorter_side) if found.shorter_side <= LARGE else SMALL_SIZE
    images = found.train_images + found.test_images
    if images * found.channels * size**2 <= MOST_BYTES:
        return size, True
    return size if found.shorter_side <= LARGE else PAPER_SIZE, False


def _model(size: int) -> str:
    """A small MetaFormer whose last stage has two tokens per side or more, from 16 pixels on; or the paper's.

    Its embeddings do not overlap, as far as they can: mixing is left to the mixers.
    """
    if size > LARGE:
        return "  size: s12"
    stem = "{kernel: 4, stride: 4, padding: 0}"
    if size < 64:
        stem = f"{{kernel: 3, stride: {1 if size < 32 else 2}, padding: 1}}"
    lines = ("size: t5", "head_dim: 16", "layer_scale: 0.1", "drop_path: 0", f"stem: {stem}")
    return "\n".join(f"  {line}" for line in (*lines, "downsample: {kernel: 2, stride: 2, padding: 0}"))


def _training(images: int) -> tuple[int, str, int]:
    """Batch, peak rate and epochs, for about two thousand steps."""
    known = ((5000, 128, "8e-3"), (320, 32, "2e-3"), (2, max(2, min(16, images // 4)), "1e-3"))
    batch, lr = next((batch, lr) for least, batch, lr in known if images >= least)
    return batch, lr, max(3, min(40, round(2000 * batch / images)))


def in_words(found: FoundImages) -> str:
    """`3 classes, 48 training and 24 evaluation images of 24 x 24 pixels in colour`."""
    low, high = found.sides
    sizes = f"{low} x {low} pixels" if found.one_size else f"{low} to {high} pixels per side"
    colour = "in grey" if found.channels == 1 else "in colour"
    split = ", every fifth of each class, for there are no splits" if found.place.kind == "classes" else ""
    total = found.train_images + found.test_images
    few = "" if found.looked_at >= total else f"; {found.looked_at:,} of them were looked at"
    images = f"{found.train_images:,} training and {found.test_images:,} evaluation images"
    return f"{found.num_classes} classes, {images}{split}, of {sizes} {colour}{few}"


def new_recipe(name: str, data: str) -> str:
    """Looks at a folder of images and writes experiments/recipes/NAME.yaml for it; a line that says what was found.

    Raises RequestError where the name is taken, and as `look_at` does.
    """
    path = Path("experiments") / "recipes" / f"{name}.yaml"
    if path.exists():
        raise RequestError(f"{path} is there already; choose another name or edit it")
    if (there := find_all("recipe").get(name)) is not None:
        raise RequestError(f"the package has a recipe {name!r} ({there}); choose another name")
    if not Path(data).is_dir():
        raise RequestError(f"--data is {data!r}, which is not a folder")
    found = look_at(Path(data))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(recipe_text(found, name, data))
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror}") from None
    for note in found.notes:
        logger.info(visible(f"note: {data}: {note}"))
    return visible(f"{path}: {in_words(found)}")
