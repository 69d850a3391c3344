"""Image files, opened as a run opens them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pictures import pictures_spec

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.tasks.classification.data.image_files import ImageFileData, open_image_files

CPU = torch.device("cpu")


def opened(root: Path, **settings: Any) -> ImageFileData:
    return open_image_files(pictures_spec(**settings).data, DataFolder(root, given=True), CPU)
