"""A run's evaluation images and its trained model, each checked against the run's record before anything uses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from metaformer_ablate.data.datasets import DATASETS
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.checkpoints import LAST, evaluated_weights
from metaformer_ablate.records.record import Record
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.tasks.classification.predictions import read_predictions

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from metaformer_ablate.tasks.classification.data.augment import Augment
    from metaformer_ablate.tasks.classification.data.in_memory import InMemoryData


BATCH = 512  # of the evaluation loader: the same bits as in training need the same batches


class NotAvailable(Exception):
    """Images or weights that are not there, or are not those of the record: one sentence."""


def load_images_of(record: Record, folder: DataFolder) -> InMemoryData:
    """The images that a run was trained and evaluated on. Downloads nothing.

    Raises NotAvailable where they are missing or are not those that the record's fingerprint and labels name.
    """
    spec = _spec(record)
    name, recorded = spec.data.name, record.data["data_fingerprint"]
    if not DATASETS[name].in_memory:
        raise NotAvailable(f"{name} is not read into memory; pictures are for the small data sets")
    if missing := folder.missing(name):
        names = ", ".join(path.name for path in missing[:3]) + (" and others" if len(missing) > 3 else "")
        raise NotAvailable(f"{name} is not in {folder.path} (missing {names}); name its folder with --data")
    if (found := folder.fingerprint(name)) != recorded:
        raise NotAvailable(
            f"{name} in {folder.path} has the data fingerprint {found}, run {record.run_id} was evaluated on "
            f"{recorded or 'unknown data'}"
        )
    from metaformer_ablate.tasks.classification.data.in_memory import load_images

    try:
        data = load_images(spec.data, folder)
    except RequestError as error:
        raise NotAvailable(str(error)) from None
    if not np.array_equal(data.evaluation.labels.numpy(), read_predictions(record)[0]):
        raise NotAvailable(f"the labels of {name} in {folder.path} are not those of run {record.run_id}")
    return data


def _spec(record: Record) -> RunSpec:
    try:
        return RunSpec.model_validate(record.spec())
    except ValueError as error:  # a record of another version of this package
        reason = str(error).splitlines()[0]
        raise NotAvailable(f"{record.folder / 'spec.yaml'}: this version cannot build the run: {reason}") from None


@dataclass(frozen=True)
class TrainedRun:
    """A trained net in evaluation mode, with what its images go through before it sees them."""

    record: Record
    spec: RunSpec
    net: nn.Module
    augment: Augment
    device: torch.device
    bf16: bool = False  # whether it was trained and evaluated in it

    def logits(self, images: Tensor) -> Tensor:
        """uint8 images [N, C, H, W] to logits [N, classes] in fp32 on the CPU, computed as in training."""
        import torch

        torch.set_num_threads(self.spec.train.threads)
        parts = []
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, self.bf16),
        ):
            for start in range(0, len(images), BATCH):
                batch = images[start : start + BATCH].to(self.device)
                parts.append(self.net(self.augment.normalise(batch)).float().cpu())
        return torch.cat(parts)


def load_net(record: Record) -> tuple[RunSpec, nn.Module]:
    """A run's spec and its net on the CPU with the weights that `--keep-checkpoints` left, not yet held to anything.

    Raises NotAvailable where there are no weights, or where they do not fit the model.
    """
    import torch

    from metaformer_ablate.models.build import build_model

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
    model = spec.model.model_copy(update={"init_from": None})
    net = build_model(model, *spec.data.net_shape, seed=spec.seed)
    try:
        net.load_state_dict(evaluated_weights(stored, spec.train.ema is not None))
    except RuntimeError as error:
        raise NotAvailable(f"{path}: not the weights of this model: {' '.join(str(error).split())[:200]}") from None
    return spec, net


def load_trained(record: Record, data: InMemoryData, device: torch.device) -> tuple[TrainedRun, dict[str, Any]]:
    """The net with the weights that `--keep-checkpoints` left, and how closely it repeats the record's predictions.

    On every evaluation image the net has to give the recorded class the recorded confidence, as its largest. The
    tolerance is one of rounding: 0.1 points of confidence on the same chip in fp32, 2 on another, 10 in bf16.

    Raises NotAvailable where there are no weights, or where they are not those of the record.
    """
    import torch

    from metaformer_ablate.tasks.classification.data.augment import Augment

    spec, net = load_net(record)
    if spec.train.memory_format == "channels_last":
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    classes = spec.data.classes
    augment = Augment(spec.data, classes, data.mean, data.std, spec.train.memory_format)
    # The record says what `auto` came to; older ones lack it, and then the spec says it.
    bf16 = record.data.get("precision", spec.train.precision) == "bf16"
    run = TrainedRun(record, spec, net.to(device).eval(), augment, device, bf16)
    return run, _check_weights(run, data)


def _check_weights(run: TrainedRun, data: InMemoryData) -> dict[str, Any]:
    from metaformer_ablate.system.devices import device_name

    _, predicted, confidence = read_predictions(run.record)
    shares = run.logits(data.evaluation.images).softmax(dim=1).numpy().astype(np.float64)
    of_recorded = np.abs(shares[np.arange(len(predicted)), predicted] - confidence)
    of_largest = np.abs(shares.max(axis=1) - confidence)
    difference = 100 * float(np.maximum(of_recorded, of_largest).max())  # NaN stays NaN, and fails below
    repeated = int((shares.argmax(axis=1) == predicted).sum())
    same_chip = device_name(run.device) == run.record.data["device"]
    tolerance = 10.0 if run.bf16 else 0.1 if same_chip else 2.0
    if not difference <= tolerance:
        raise NotAvailable(
            f"{run.record.folder / LAST}: not the weights of the record: {len(predicted) - repeated:,} of "
            f"{len(predicted):,} predictions are others, and a confidence differs by {difference:.3g} points "
            f"(allowed: {tolerance:g})"
        )
    return {
        "file": LAST,
        "images": len(predicted),
        "predictions_repeated": repeated,
        "largest_confidence_difference": difference,
        "tolerance": tolerance,
    }
