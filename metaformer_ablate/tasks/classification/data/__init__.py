"""What image classification is trained and evaluated on: images in memory, or read one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metaformer_ablate.data.spec import DataSpec

if TYPE_CHECKING:
    import torch

    from metaformer_ablate.data.folder import DataFolder
    from metaformer_ablate.tasks.base import RunSections, TaskData


def open_data(run: RunSections, folder: DataFolder, device: torch.device) -> TaskData:
    """The images of a run: on the training device, or opened where they are read one by one.

    Raises RequestError where they are missing or are not what the spec says.
    """
    if run.data.in_memory:
        from metaformer_ablate.tasks.classification.data.in_memory import load_images

        return load_images(run.data, folder).to(device)
    from metaformer_ablate.tasks.classification.data.image_files import open_image_files

    return open_image_files(run.data, folder, device)


def data_key(run: RunSections) -> DataSpec:
    """The settings that change what `open_data` gives: runs with equal keys share it."""
    data = run.data
    if not data.in_memory:
        return data
    # The others are augmentation, which happens batch by batch; only the order knows of flips that alternate.
    read = ("name", "image_size", "evaluate_on", "flip", "set", "channels", "held_in", "reader")
    numbers = ("num_classes", "train_images", "test_images")
    return DataSpec(**{key: getattr(data, key) for key in (*read, *numbers)})
