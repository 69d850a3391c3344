"""Downloads of the sets that torchvision has."""

from __future__ import annotations

from metaformer_ablate.data.folder import TORCHVISION_CLASS, TORCHVISION_OPTIONS, DataFolder
from metaformer_ablate.errors import RequestError


def download(name: str, folder: DataFolder) -> None:
    """Downloads a data set into the default folder unless it is there. Raises RequestError where that fails."""
    import torchvision.datasets
    from filelock import FileLock

    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.path / f".{name}.lock"):  # of several processes one downloads
            if folder.missing(name):
                make = getattr(torchvision.datasets, TORCHVISION_CLASS[name])
                make(str(folder.path), download=True, **TORCHVISION_OPTIONS.get(name, {}))
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise RequestError(
            f"{name} cannot be downloaded into {folder.path} ({reason}); where there is a network: "
            f"{folder.how_to_get(name)}; then pass the folder with --data"
        ) from None
