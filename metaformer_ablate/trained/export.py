"""A trained model for other programs: weights as safetensors, in timm's names where it has the model, and ONNX."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from metaformer_ablate.errors import NotAvailable, RequestError
from metaformer_ablate.models.presets import NAMED
from metaformer_ablate.models.spec import ModelSpec
from metaformer_ablate.settings.layers import Layer
from metaformer_ablate.spec.resolve import resolve
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.tasks.error_analysis.runs import facts_of_run
from metaformer_ablate.tasks.registry import part_of
from metaformer_ablate.trained.load import load_images_of, load_net, load_trained

if TYPE_CHECKING:
    from torch import Tensor, nn

    from metaformer_ablate.data.folder import DataFolder
    from metaformer_ablate.records.record import Record


FORMATS = ("safetensors", "onnx")


WEIGHTS, GRAPH, ABOUT = "model.safetensors", "model.onnx", "export.json"


OPSET = 18


# Another program may round otherwise than torch, but no logit may move by more than this share of the largest.
TOLERANCE = 1e-3


# Settings that change how a model trains and not what it computes once it has its weights.
_TRAINING_ALONE = (
    *("drop_path", "head_dropout", "conv_init"),
    *("init_from", "init_sha256", "init_run", "init_averaged", "new_head"),
)


class NotExported(Exception):
    """A model that cannot be written in a format, or whose file gives other numbers: one sentence."""


def timm_name(spec: RunSpec) -> str | None:
    """The model of timm that has the architecture of a spec; None where timm has none."""
    import timm

    if spec.model.whole is not None:
        return spec.model.timm
    for name in NAMED:
        if timm.is_model(name) and _architecture(_named(name)) == _architecture(spec.model):
            return name
    return None


def _named(name: str) -> ModelSpec:
    values = {"data.name": "imagenet", "data.image_size": 224, "model.name": name}
    return resolve([Layer(values, lambda path: name)]).model


def _architecture(model: ModelSpec) -> dict[str, Any]:
    scales = [model.at_stage("res_scale", stage) is not None for stage in range(len(model.depths or ()))]
    tree = model.model_dump() | {"layer_scale": model.layer_scale is not None, "res_scale": scales}
    return {key: value for key, value in tree.items() if key not in _TRAINING_ALONE}


def check_formats(formats: tuple[str, ...]) -> None:
    """Raises RequestError where a format needs a package that is not there."""
    if "onnx" not in formats:
        return
    if lacking := [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]:
        raise RequestError(
            f"ONNX needs the packages {', '.join(lacking)}: pip install 'metaformer-ablate[export]'; "
            f"without them: --format safetensors"
        )


@dataclass(frozen=True)
class _Trained:
    spec: RunSpec
    net: nn.Module  # on the CPU, in fp32, for evaluation
    check: dict[str, Any] | None  # how closely it repeats the record's predictions
    mean: tuple[float, ...] | None  # 0 to 1, per channel
    std: tuple[float, ...] | None
    output: str  # what the net gives, as its task calls it


def export(
    record: Record,
    folder: DataFolder,
    out: Path,
    formats: tuple[str, ...] = FORMATS,
    own_class: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes a run's model into `out` and returns what export.json says of it; each file is written whole.

    The model takes normalised images, float32 [N, C, H, W], and gives logits [N, classes]. `own_class` says where its
    class may be, besides where an experiment here says (`located`).

    Raises RequestError where the run has no weights or its weights are not those of the record, NotExported where the
    model cannot be written or what was written computes something else.
    """
    import torch

    notes: list[str] = []
    trained = _load(record, folder, notes, own_class)
    spec, net = trained.spec, trained.net
    channels, _, size = spec.data.net_shape
    images = torch.randn((3, channels, size, size), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = net(images)
    name = timm_name(spec)
    weights, timm_logits = net.state_dict(), None
    if name is not None and spec.model.timm is None:
        weights, timm_logits = _for_timm(name, net, images, logits)
        if timm_logits > TOLERANCE * float(logits.abs().max()):
            why = (
                ": it pools before the norm of its head, ours after it" if spec.model.head_norm == "before_pool" else ""
            )
            notes.append(f"timm's {name} with these weights gives other logits, by {timm_logits:.3g} on noise{why}")
    about: dict[str, Any] = {
        "run_id": record.run_id,
        "name": record.name,
        "status": record.status,
        "metrics": record.data["metrics"],
        "timm": name,
        "timm_largest_difference": timm_logits,
        "input": {"shape": ["N", channels, size, size], "mean": trained.mean, "std": trained.std},
        "output": {"shape": ["N", spec.data.classes], "classes": list(facts_of_run(record).known_classes) or None},
        "weights": trained.check,
        "files": {},
        "notes": notes,
        "spec": spec.to_dict(),
    }
    if (out / ABOUT).exists():  # an earlier export, whose files would stand beside those of this one
        for file in (ABOUT, WEIGHTS, GRAPH):
            (out / file).unlink(missing_ok=True)
    metadata = {key: json.dumps(about[key]) for key in ("run_id", "timm", "input", "output", "spec")}
    if "safetensors" in formats:
        about["files"][WEIGHTS] = _whole(out / WEIGHTS, lambda path: _write_weights(path, weights, metadata))
    if "onnx" in formats:
        about["files"][GRAPH] = _whole(
            out / GRAPH, lambda path: _write_onnx(path, net, images, logits, metadata, trained.output)
        )
    _whole(out / ABOUT, lambda path: path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8"))
    return about


def _load(record: Record, folder: DataFolder, notes: list[str], own_class: Sequence[str]) -> _Trained:
    """The trained net; where the images are at hand, held to the record's predictions."""
    import torch

    part = part_of(record.spec(), "export", "graph to export")
    images = check = None
    try:
        try:
            images = load_images_of(record, folder)
        except NotAvailable as error:
            notes.append(f"the weights were not checked against the record's predictions: {error}")
            spec, net = load_net(record, own_class)
        else:
            run, check = load_trained(record, images, torch.device("cpu"), own_class)
            spec, net = run.spec, run.net.to(memory_format=torch.contiguous_format)
    except NotAvailable as error:
        raise RequestError(str(error)) from None
    mean, std = part.normalisation(spec.data, images)
    return _Trained(spec, net.eval(), check, mean, std, part.GRAPH_OUTPUT)


def _for_timm(name: str, net: nn.Module, images: Tensor, logits: Tensor) -> tuple[dict[str, Tensor], float]:
    """The weights in timm's names and shapes, and by how much the logits of timm's model with them are others."""
    import timm
    import torch

    from metaformer_ablate.models.weights import to_timm

    theirs = timm.create_model(name, in_chans=images.shape[1], num_classes=logits.shape[1]).eval()
    weights = to_timm(net, theirs)
    theirs.load_state_dict(weights)
    with torch.no_grad():
        return weights, float((theirs(images) - logits).abs().max())


def _whole(path: Path, write: Callable[[Path], Any]) -> Any:
    """Has `write` fill a temporary file, which then takes its place, and returns what `write` does."""
    from safetensors import SafetensorError

    temporary = path.with_name(f".{uuid4().hex[:8]}.{path.name}")
    try:
        found = write(temporary)
        temporary.replace(path)
        return found
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or _sentence(error)
        raise NotExported(f"{path} cannot be written: {reason}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _write_weights(path: Path, weights: dict[str, Tensor], metadata: dict[str, str]) -> dict[str, Any]:
    import torch

    from metaformer_ablate.models.weights import read_weights, save_weights

    save_weights(weights, path, {"format": "pt", **metadata})
    again = read_weights(path)
    if again.keys() != weights.keys() or not all(torch.equal(again[name], value) for name, value in weights.items()):
        raise NotExported(f"{path.name}: what was read back is not what was written")
    return {"tensors": len(weights), "bytes": path.stat().st_size}


def _write_onnx(
    path: Path, net: nn.Module, images: Tensor, logits: Tensor, metadata: dict[str, str], output: str
) -> dict[str, Any]:
    """The graph in fp32 for any number of images, held to torch's logits by the ONNX runtime."""
    import onnx
    import onnxruntime
    import torch

    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                net,
                (images,),
                input_names=["images"],
                output_names=[output],
                dynamic_shapes=({0: torch.export.Dim("N")},),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
            assert program is not None
        model = program.model_proto
    except Exception as error:  # whatever a part of the user's own makes of the tracer
        raise NotExported(f"the model cannot be written as ONNX: {_sentence(error)}") from None
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    # One image and three: whether the number is free, and whether one image is told from another.
    found = [torch.from_numpy(session.run(None, {"images": images[:n].numpy()})[0]) for n in (1, len(images))]
    difference = max(float((part - logits[: len(part)]).abs().max()) for part in found)
    if not difference <= TOLERANCE * float(logits.abs().max()):
        raise NotExported(f"ONNX gives other logits than torch, by up to {difference:.3g}; the file was not kept")
    return {"opset": OPSET, "bytes": path.stat().st_size, "largest_difference": difference}


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
