"""A run's evaluation images and its trained model, each checked against the run's record before anything uses it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from metaformer_ablate.data.datasets import DATASETS
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import NotAvailable, RequestError
from metaformer_ablate.records.checkpoints import LAST, evaluated_weights
from metaformer_ablate.records.compare import read_spec
from metaformer_ablate.records.record import Record
from metaformer_ablate.spec.own_class import located
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.tasks.registry import part_of, task_of

if TYPE_CHECKING:
    import torch
    from torch import nn


ASKED = "trained model that can be asked again"


def load_images_of(record: Record, folder: DataFolder) -> Any:
    """The images that a run was trained and evaluated on, as its task holds them. Downloads nothing.

    Raises NotAvailable where they are missing or are not those that the record's fingerprint and predictions name,
    RequestError where the task does not ask trained nets again.
    """
    spec = _spec(record)
    name, recorded = spec.data.name, record.data["data_fingerprint"]
    if DATASETS[name].in_folder and _not_there(folder, name):
        raise NotAvailable(f"{name} is not in {folder.path}; name its folder with --data")
    if missing := folder.missing(name):
        names = ", ".join(path.name for path in missing[:3]) + (" and others" if len(missing) > 3 else "")
        raise NotAvailable(f"{name} is not in {folder.path} (missing {names}); name its folder with --data")
    if (found := folder.fingerprint(name)) != recorded:
        raise NotAvailable(
            f"{name} in {folder.path} has the data fingerprint {found}, run {record.run_id} was evaluated on "
            f"{recorded or 'unknown data'}"
        )
    part = part_of(record.spec(), "trained", ASKED)  # loads torch, so what is cheap to see comes first
    try:
        return part.open_images(record, spec, folder)
    except RequestError as error:
        raise NotAvailable(str(error)) from None


def _not_there(folder: DataFolder, name: str) -> bool:
    try:
        return folder.place(name) is None
    except RequestError as error:
        raise NotAvailable(str(error)) from None


def _spec(record: Record) -> RunSpec:
    try:
        return read_spec(record)
    except RequestError as error:  # a record of another version of this package
        raise NotAvailable(str(error)) from None


def load_net(record: Record, own_class: Sequence[str] = ()) -> tuple[RunSpec, nn.Module]:
    """A run's spec and its net on the CPU with the weights that `--keep-checkpoints` left, not yet held to anything.

    `own_class` says where its class may be, besides where an experiment here says (`located`). Raises NotAvailable
    where there are no weights or no class, or where the weights do not fit the model.
    """
    import torch

    spec, path = _spec(record), record.folder / LAST
    if not path.is_file():
        raise NotAvailable(
            f"run {record.run_id} has no weights: train it with `ablate run ... --keep-checkpoints`, or again with "
            f"`ablate reproduce {record.run_id} --keep DIR`"
        )
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    except Exception as error:  # whatever a damaged file makes of the unpickler
        raise NotAvailable(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from None
    # The weights replace whatever the net would have started from, so that file is not needed.
    try:
        model = located(spec.model, record.run_id, own_class)
    except RequestError as error:
        raise NotAvailable(str(error)) from None
    blank = spec.model_copy(update={"model": model.model_copy(update={"init_from": None})})
    net: nn.Module = task_of(spec).part("net").build_net(blank)
    try:
        net.load_state_dict(evaluated_weights(stored, spec.train.ema is not None))
    except RuntimeError as error:
        raise NotAvailable(f"{path}: not the weights of this model: {' '.join(str(error).split())[:200]}") from None
    return spec, net


def load_trained(
    record: Record, images: Any, device: torch.device, own_class: Sequence[str] = ()
) -> tuple[Any, dict[str, Any]]:
    """A run's trained net as its task asks it, and how closely it repeats the record's predictions.

    `images` are those of `load_images_of`. Raises NotAvailable where there are no weights, or where they are not those
    of the record.
    """
    from metaformer_ablate.system.devices import device_name

    part = part_of(record.spec(), "trained", ASKED)
    spec, net = load_net(record, own_class)
    # The record says what `auto` came to; older ones lack it, and then the spec says it.
    bf16 = record.data.get("precision", spec.train.precision) == "bf16"
    trained = part.trained_run(record, spec, net, images, device, bf16)
    same_chip = device_name(device) == record.data["device"]
    return trained, part.check_weights(trained, images, record.folder / LAST, same_chip)
