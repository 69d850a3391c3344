"""What to run: the resolved spec of a run, how it comes out of layers of settings, and its id. Loads no torch.

A `RunSpec` holds everything that can change a result and nothing else, so its id can name the result. Settings
come in layers (recipe, experiment, row, command line), later over earlier; `resolve` merges them, checks them and
sets to null every field that the chosen parts do not read.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from metaformer_ablate.data.catalogue import DATASETS, split_sizes
from metaformer_ablate.models.own_parts import own_parts_file, read_own_parts
from metaformer_ablate.models.parts import ACTIVATIONS, MIXERS, NORMS, Part, full_name, readable, readers
from metaformer_ablate.models.zoo import COMPARATORS, NAMED, SIZES
from metaformer_ablate.yaml_reader import RequestError, kind, nearest, parse

# Raised by hand whenever the same spec would train differently; CHANGELOG.md says why.
SEMANTICS = 2


def unknown(what: str, found: str, allowed: Iterable[str]) -> str:
    """`unknown token mixer 'poling' (did you mean 'pooling'?); allowed: pooling, identity`."""
    names = list(allowed)
    return f"unknown {what} {found!r}{nearest(found, names)}; allowed: {', '.join(names)}"


def _name_in(what: str, table: Mapping[str, Any] | tuple[str, ...]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in table:
            raise ValueError(unknown(what, value, table))
        return value

    return AfterValidator(check)


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("allowed: an odd integer of at least 1")
    return value


def _float(value: Any) -> Any:
    # YAML writes 1 for 1.0, and -0.0 is 0.0; the canonical JSON must not depend on it.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    return float(value) + 0.0 if abs(value) < 1e300 else math.inf if value > 0 else -math.inf


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _part_in(what: str, table: Mapping[str, Part]) -> AfterValidator:
    """A name of a table; of the user's own parts it may lack the digest, which the resolved spec has."""

    def check(value: str) -> str:
        if (found := full_name(value, table)) is not None:
            return found
        names = [key.partition("@")[0] for key in table]
        if (short := value.partition("@")[0]) != value and short in names:
            raise ValueError(
                f"unknown {what} {value!r}: the class of {short} is another by now, {full_name(short, table)}"
            )
        said = unknown(what, value, names)
        if own_parts_file() is None:
            said += "; those of your own are in parts.yaml, which is neither here nor named by $ABLATE_PARTS"
        raise ValueError(said)

    return AfterValidator(check)


T = TypeVar("T")
Real = Annotated[float, BeforeValidator(_float)]
Odd = Annotated[int, Field(ge=1), AfterValidator(_odd)]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[Real, Field(ge=0, lt=1)]
Share = Annotated[Real, Field(ge=0, le=1)]
NotNegative = Annotated[Real, Field(ge=0)]
AboveZero = Annotated[Real, Field(gt=0)]
MixerName = Annotated[str, _part_in("token mixer", MIXERS)]
NormName = Annotated[str, _part_in("norm", NORMS)]
ActivationName = Annotated[str, _part_in("activation", ACTIVATIONS)]
Stages = Annotated[tuple[T, ...], BeforeValidator(_tuple)]
Pair = Annotated[tuple[T, ...], BeforeValidator(_tuple), Field(min_length=2, max_length=2)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _f(default: Any, allowed: str) -> Any:
    """A field with its default and what it may be, in words: the end of every error message about it."""
    return Field(default=default, description=allowed)


def _execution(default: Any, allowed: str) -> Any:
    """A field that says how a run is carried out: it stays out of the id and of spec.yaml."""
    return Field(default=default, exclude=True, description=allowed)


class ConvSpec(_Strict):
    """Geometry of an embedding: one convolution, with a norm after it (stem) or before it (down-sampling)."""

    kernel: Positive = _f(3, "an integer of at least 1")
    stride: Positive = _f(2, "an integer of at least 1")
    padding: Annotated[int, Field(ge=0)] = _f(1, "an integer of at least 0")
    norm: NormName = _f("none", "one of: " + ", ".join(NORMS))


class ModelSpec(_Strict):
    """The MetaFormer (paper, section 3 and table 1), or a comparator. A field that nothing reads is null.

    Fields with one entry a stage may be written as one value for all stages. Where `timm` or `comparator` names a
    model, only `drop_path` and `init_from` are read beside it.
    """

    timm: str | None = _f(None, "the name of a model of timm")
    comparator: Annotated[str, _name_in("comparator", COMPARATORS)] | None = _f(
        None, "one of: " + ", ".join(COMPARATORS)
    )
    depths: Stages[Positive] | None = _f((2, 2, 6, 2), "a list of integers of at least 1, one a stage")
    dims: Stages[Positive] | None = _f((64, 128, 320, 512), "a list of integers of at least 1, one a stage")
    token_mixer: Stages[MixerName] | None = _f("pooling", "one name or one a stage, of: " + ", ".join(MIXERS))
    pool_size: Stages[Odd | None] | None = _f(3, "an odd integer of at least 1, or one a stage")
    kernel_size: Stages[Odd | None] | None = _f(
        None, "an odd integer of at least 1, or one a stage; null for the mixer's own"
    )
    window: Stages[Positive | None] | None = _f(7, "an integer of at least 1, or one a stage")
    head_dim: Positive | None = _f(32, "an integer of at least 1 that divides the width of each stage with attention")
    mixer_bias: bool | None = _f(True, "true or false")
    mixer_expansion: AboveZero | None = _f(2.0, "a number above 0")
    token_mlp_ratio: AboveZero | None = _f(0.5, "a number above 0: hidden width over channels")
    norm: NormName | None = _f("mln", "one of: " + ", ".join(NORMS))
    norm_eps: AboveZero | None = _f(1e-5, "a number above 0")
    norm_bias: bool | None = _f(True, "true or false")
    activation: ActivationName | None = _f("gelu", "one of: " + ", ".join(ACTIVATIONS))
    residual: bool | None = _f(True, "true or false")
    channel_mlp: bool | None = _f(True, "true or false")
    mlp_ratio: AboveZero | None = _f(4.0, "a number above 0")
    mlp_bias: bool | None = _f(True, "true or false")
    layer_scale: AboveZero | None = _f(1e-5, "a number above 0, or null for none")
    res_scale: Stages[AboveZero | None] | None = _f(None, "a number above 0 or null for none, or one a stage")
    drop_path: Rate | None = _f(0.1, "a number of at least 0 and below 1: the rate of the last block")
    position_embedding: Stages[bool] | None = _f(False, "true or false, or one a stage")
    stem: ConvSpec | None = _f(ConvSpec(kernel=7, stride=4, padding=2), "kernel, stride, padding and norm")
    downsample: ConvSpec | None = _f(ConvSpec(kernel=3, stride=2, padding=1), "kernel, stride, padding and norm")
    head: Annotated[str, _name_in("head", ("linear", "mlp"))] | None = _f("linear", "linear or mlp")
    head_norm: Annotated[str, _name_in("place", ("before_pool", "after_pool"))] | None = _f(
        "before_pool", "before_pool (the model's norm) or after_pool (Layer Normalization)"
    )
    head_dropout: Rate | None = _f(0.0, "a number of at least 0 and below 1")
    conv_init: Annotated[str, _name_in("initialisation", ("torch", "trunc_normal"))] | None = _f(
        "torch", "torch (PyTorch's default) or trunc_normal (of 0.02)"
    )
    # The file is not part of a run's identity, its content is: `init_from` stays out of the id, its SHA-256 is in it.
    init_from: str | None = _execution(None, "a path of weights to start from")
    init_sha256: str | None = _f(None, "set by the file")

    def stages(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[str, ...]]:
        """depths, dims and token mixers; all empty for a comparator."""
        return self.depths or (), self.dims or (), self.token_mixer or ()

    def at_stage(self, name: str, stage: int) -> Any:
        """A field's value at a stage, from 0: its own entry where the field has one a stage."""
        value = getattr(self, name)
        return value[stage] if isinstance(value, tuple) else value


class DataSpec(_Strict):
    """The images: which set, at what size, how augmented, and which split is evaluated.

    A set that is read image by image (`imagenet`) has the numbers of classes and images of the original unless others
    are set: for a subset, or for another set that lies in folders as it does.
    """

    name: Annotated[str, _name_in("data set", DATASETS)] = _f(..., "one of: " + ", ".join(DATASETS))
    image_size: Annotated[int, Field(ge=4, le=4096)] = _f(..., "an integer from 4 to 4096: pixels a side")
    evaluate_on: Annotated[str, _name_in("split", ("test", "holdout"))] = _f(
        "test", "test, or holdout (every tenth training image, for choosing a recipe)"
    )
    num_classes: Annotated[int, Field(ge=2, le=65_536)] | None = _f(None, "an integer from 2 to 65536")
    train_images: Positive | None = _f(None, "an integer of at least 1: training images there are")
    test_images: Positive | None = _f(None, "an integer of at least 1: evaluation images there are")
    flip: bool | None = _f(False, "true or false: flip left to right at random")
    crop_padding: Annotated[int, Field(ge=0)] | None = _f(
        0, "an integer of at least 0: pixels of padding before a random crop"
    )
    crop_scale: Pair[Share] | None = _f((0.08, 1.0), "two numbers from 0 to 1: the share of the picture in a crop")
    interpolation: Annotated[str, _name_in("interpolation", ("random", "bilinear", "bicubic"))] | None = _f(
        "random", "random (bilinear or bicubic, drawn for each image), bilinear or bicubic: of training crops"
    )
    rand_augment: str | None = _f(None, "a policy string as timm reads it, or null for none")
    random_erasing: Share | None = _f(0.0, "a number from 0 to 1: probability of a rectangle of noise")
    eval_crop: Annotated[Real, Field(gt=0, le=1)] | None = _f(
        0.9, "a number above 0 and at most 1: the share of the resized side that the centre crop keeps"
    )
    eval_interpolation: Annotated[str, _name_in("interpolation", ("bilinear", "bicubic"))] | None = _f(
        "bicubic", "bilinear or bicubic"
    )
    mixup: NotNegative = _f(0.0, "a number of at least 0: alpha, 0 for none")
    cutmix: NotNegative = _f(0.0, "a number of at least 0: alpha, 0 for none")
    cutmix_switch: Share | None = _f(0.5, "a number from 0 to 1: how often CutMix is drawn where both are on")
    # How a set that is read image by image gets here.
    reader: Annotated[str, _name_in("reader", ("auto", "folder", "tar", "hf"))] | None = _execution(
        "auto", "auto, folder (of images), tar (WebDataset shards) or hf (a Hugging Face datasets folder)"
    )
    workers: Annotated[int, Field(ge=0, le=1024)] | None = _execution(
        None,
        "an integer from 0 to 1024: processes that read images, of each device; null for as many as there are cores",
    )
    max_unreadable: Annotated[int, Field(ge=0)] | None = _execution(
        50, "an integer of at least 0: images that may be missing or damaged before the run fails"
    )

    @property
    def in_memory(self) -> bool:
        """Whether the set is held as tensors on the training device."""
        return DATASETS[self.name].in_memory

    @property
    def classes(self) -> int:
        return self.num_classes or DATASETS[self.name].num_classes

    def split_sizes(self) -> tuple[int, int]:
        """How many images are trained on and evaluated on."""
        facts = DATASETS[self.name]
        return split_sizes(
            self.train_images or facts.train_images, self.test_images or facts.test_images, self.evaluate_on
        )


class TrainSpec(_Strict):
    """Optimiser, schedule and what of the machine can change a result."""

    epochs: Positive = _f(300, "an integer of at least 1")
    batch_size: Annotated[int, Field(ge=2)] = _f(1024, "an integer of at least 2: images a step in all")
    optimizer: Annotated[str, _name_in("optimizer", ("adamw",))] = _f("adamw", "adamw")
    lr: AboveZero = _f(1e-3, "a number above 0: the peak learning rate")
    weight_decay: NotNegative = _f(0.05, "a number of at least 0")
    betas: Pair[Rate] = _f((0.9, 0.999), "two numbers of at least 0 and below 1")
    eps: AboveZero = _f(1e-8, "a number above 0")
    schedule: Annotated[str, _name_in("schedule", ("cosine", "constant"))] = _f("cosine", "cosine or constant")
    schedule_unit: Annotated[str, _name_in("unit", ("step", "epoch"))] = _f("step", "step or epoch")
    warmup_epochs: NotNegative = _f(5.0, "a number of at least 0")
    warmup_lr: NotNegative | None = _f(1e-6, "a number of at least 0: the learning rate that warm-up begins with")
    min_lr: NotNegative | None = _f(1e-5, "a number of at least 0: the learning rate that the cosine ends with")
    cooldown_epochs: Annotated[int, Field(ge=0)] = _f(0, "an integer of at least 0: epochs at min_lr after the cosine")
    label_smoothing: Rate = _f(0.0, "a number of at least 0 and below 1")
    clip_grad: AboveZero | None = _f(None, "a number above 0: the largest norm of the gradient, or null for none")
    ema: Rate | None = _f(
        None,
        "a number of at least 0 and below 1: decay a step of the averaged weights, which are evaluated; null for none",
    )
    precision: Annotated[str, _name_in("precision", ("fp32", "bf16", "auto"))] = _f(
        "fp32", "fp32, bf16 or auto (bf16 on GPUs that have it, fp32 elsewhere)"
    )
    memory_format: Annotated[str, _name_in("memory format", ("contiguous", "channels_last"))] = _f(
        "channels_last", "contiguous or channels_last"
    )
    compile: bool | Annotated[str, _name_in("way to compile", ("auto",))] = _f(
        False, "true, false or auto (on GPUs, not on a CPU)"
    )
    kernels: Annotated[str, _name_in("kind of kernels", ("torch", "triton", "auto"))] = _f(
        "torch", "torch, triton (fused norm and pooling) or auto (triton on GPUs that have it)"
    )
    threads: Annotated[int, Field(ge=1, le=256)] = _f(1, "an integer from 1 to 256: CPU threads of the run")
    # Where the batch is computed. Whatever these say, a step takes `batch_size` images in all.
    devices: Positive = _execution(1, "an integer of at least 1: devices of a node that share each batch")
    nodes: Positive = _execution(1, "an integer of at least 1: machines that share each batch")
    strategy: Annotated[str, _name_in("strategy", ("auto", "ddp", "fsdp"))] = _execution(
        "auto", "auto (ddp on more than one device), ddp or fsdp"
    )
    micro_batch: Positive | None = _execution(
        None, "an integer of at least 1, images that a device takes at once, or null for all of its share"
    )
    grad_checkpointing: bool = _execution(
        False, "true or false: compute each block's activations once more in the backward pass, to save memory"
    )

    @property
    def world(self) -> int:
        """Devices on all nodes together."""
        return self.devices * self.nodes

    @property
    def accumulation(self) -> int:
        """Parts that a device takes one after another of its share of a batch."""
        share = self.batch_size // self.world
        return share // (self.micro_batch or share)


class RunSpec(_Strict):
    """One run, fully resolved."""

    model: ModelSpec
    data: DataSpec
    train: TrainSpec
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    semantics: int = SEMANTICS

    @model_validator(mode="before")
    @classmethod
    def _with_own_parts(cls, values: Any) -> Any:
        read_own_parts()  # a spec out of a record names them too
        return values

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what spec.yaml holds and the id is made of."""
        return json.loads(self.model_dump_json())

    def with_execution(self) -> dict[str, Any]:
        """`to_dict` and what is not part of the id: enough to make this spec again elsewhere."""
        tree = self.to_dict()
        for name in SECTIONS:
            section = getattr(self, name)
            fields = type(section).model_fields.items()
            tree[name] |= {key: getattr(section, key) for key, info in fields if info.exclude}
        return tree

    @property
    def run_id(self) -> str:
        """The first 12 hex digits of the SHA-256 of the canonical JSON of the resolved spec with the seed."""
        return digest(self.to_dict())[:12]

    def with_seed(self, seed: int) -> RunSpec:
        return self.model_copy(update={"seed": seed})

    def cost_key(self) -> str:
        """Names what parameters and MACs depend on: the model, the channels, the classes and the resolution."""
        shape = [DATASETS[self.data.name].channels, self.data.classes, self.data.image_size]
        model = {
            k: v for k, v in self.to_dict()["model"].items() if k not in ("drop_path", "layer_scale", "init_sha256")
        }
        model["layer_scale"] = self.model.layer_scale is not None
        return digest([model, shape])


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON: keys sorted, no spaces, ASCII."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


# ---------------------------------------------------------------------------------------------------------------------
# Layers of settings


@dataclass
class Layer:
    """Settings from one place. `values` has dotted paths; `strict` says that a setting nothing reads is an error."""

    values: dict[str, Any]
    where: Callable[[str], str]  # path -> what an error calls the place: "experiments/x.yaml:12"
    strict: bool = False
    about: str = ""  # "row 'pool5'": named in errors


def flatten(tree: Mapping[Any, Any], where: Callable[[str], str], prefix: str = "") -> dict[str, Any]:
    """{"model": {"stem": {"kernel": 3}}} -> {"model.stem.kernel": 3}. Keys may be dotted already, at any depth."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if not isinstance(key, str):
            raise RequestError(f"{where(prefix)}: the key {key!r} is not a string")
        path = f"{prefix}.{key}" if prefix else key
        inner = flatten(value, where, path) if isinstance(value, Mapping) and path not in _LEAVES else {path: value}
        if isinstance(value, Mapping) and not inner:
            raise RequestError(f"{where(path)}: {path} is an empty mapping")
        if repeated := sorted(flat.keys() & inner.keys()):
            raise RequestError(f"{where(path)}: {repeated[0]} is set twice")
        flat.update(inner)
    return flat


def override_layer(words: Iterable[str]) -> Layer:
    """The layer of `key.path=value` words of a command line; each value is read as YAML."""
    values: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise RequestError(
                f"command line: {word!r} is not an override; write key.path=value, for example train.epochs=10"
            )
        value = parse(text, f"command line: {key}")
        new = flatten({key: value}, lambda path: "command line")
        if repeated := sorted(values.keys() & new.keys()):
            raise RequestError(f"command line: {repeated[0]} is set twice")
        values.update(new)
    return Layer(values, lambda path: "command line", strict=True)


def as_words(values: Mapping[str, Any]) -> list[str]:
    """Settings by dotted path as `key.path=value` words, which `override_layer` reads as the same values."""
    return [f"{path}={value if _is_plain(value) else json.dumps(value)}" for path, value in values.items()]


def _is_plain(value: Any) -> bool:
    """Whether a string is a name that YAML, too, takes for that string."""
    return isinstance(value, str) and value.isidentifier() and parse(value, "") == value


def _section_of(annotation: Any) -> type[BaseModel] | None:
    kinds = [k for k in (annotation, *get_args(annotation)) if isinstance(k, type) and issubclass(k, BaseModel)]
    return kinds[0] if kinds else None


def _leaves(model: type[BaseModel], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        path = f"{prefix}.{name}"
        if (inner := _section_of(info.annotation)) is not None:
            found.update(_leaves(inner, path))
        else:
            found[path] = info
    return found


SECTIONS: dict[str, type[_Strict]] = {"model": ModelSpec, "data": DataSpec, "train": TrainSpec}
_LEAVES: dict[str, Any] = {p: info for name, cls in SECTIONS.items() for p, info in _leaves(cls, name).items()}
del _LEAVES["model.init_sha256"]  # follows from the file
# Short for other fields; none of them stays in the resolved spec.
_SHORTHANDS = {
    "model.name": "a named model: " + ", ".join(NAMED),
    "model.size": "a size: " + ", ".join(SIZES),
    "train.epoch_factor": "a number above 0: the recipe's epochs times it",
}
# Of the model's fields, those with one entry a stage; a single value stands for all stages.
STAGED = ("token_mixer", "pool_size", "kernel_size", "window", "res_scale", "position_embedding")
# What token mixers may read, besides the place they stand in.
MIXER_OPTIONS = readable(MIXERS)

# Words that are easily taken for settings, and the options that they are.
_OPTIONS = {"seed": "--seeds N", "seeds": "--seeds N", "recipe": "--recipe NAME", "results": "--results DIR"}


def check_path(path: str, where: str) -> None:
    """Raises unless a dotted path is a setting."""
    known = [*_LEAVES, *_SHORTHANDS]
    if path in known:
        return
    inside = [p for p in known if p.startswith(path + ".")]
    if inside:
        raise RequestError(f"{where}: {path} must be a mapping with: {', '.join(p[len(path) + 1 :] for p in inside)}")
    parent = path.rpartition(".")[0]
    siblings = [p for p in known if p.rpartition(".")[0] == parent]
    allowed = f"; allowed in {parent}: {', '.join(p[len(parent) + 1 :] for p in siblings)}" if siblings else ""
    if not siblings:
        allowed = f"; settings begin with {', '.join(f'{s}.' for s in SECTIONS)}"
    if path in _OPTIONS:
        allowed += f"; did you mean the option {_OPTIONS[path]}?"
    raise RequestError(f"{where}: unknown key {path!r}{nearest(path, known)}{allowed}")


def resolve(layers: Iterable[Layer], seed: int = 0) -> RunSpec:
    """Merges layers, later over earlier, and checks the result.

    `model.size` and `model.name` are presets: values set in the same or a later layer stand over them, and what they
    set themselves is cleared of earlier layers. Raises RequestError for anything unknown, of a wrong type, out of
    range or contradictory, and for a strict setting that the chosen parts do not read.
    """
    read_own_parts()
    merged = _merge(layers)
    values = _with_presets(merged)
    model = _validate(ModelSpec, "model", _per_stage(values.get("model", {}), merged), merged)
    if model.init_from is not None:
        model = model.model_copy(update={"init_sha256": _file_digest(model.init_from, merged)})
    data = _validate(DataSpec, "data", values.get("data", {}), merged)
    if not data.in_memory:
        facts = DATASETS[data.name]
        numbers = {"num_classes": data.classes}
        numbers |= {key: getattr(data, key) or getattr(facts, key) for key in ("train_images", "test_images")}
        data = data.model_copy(update=numbers)
    train = _validate(TrainSpec, "train", values.get("train", {}), merged)
    spec = RunSpec(
        model=_without_inert(model, "model", _inert_model(model), merged),
        data=_without_inert(data, "data", _inert_data(data), merged),
        train=_without_inert(train, "train", _inert_train(train), merged),
        seed=seed,
    )
    _check_together(spec, merged)
    return spec


@dataclass
class _Merged:
    """The settings of all layers, and which layer each came from."""

    explicit: dict[str, tuple[Any, Layer]] = field(default_factory=dict)
    named: tuple[str, Layer] | None = None
    size: tuple[str, Layer] | None = None
    epoch_factor: tuple[float, Layer] | None = None
    home: str = ""  # `file: ` of the first layer, which has to set what has no default

    def where(self, path: str) -> str:
        """`file:line: row 'x': ` of what set a path, or of what holds it; empty for a default."""
        chosen = self.explicit.get(path)
        if chosen is None:
            inside = [v for p, v in self.explicit.items() if p.startswith(path + ".")]
            preset = (self.size or self.named) if path in ("model.depths", "model.dims") else self.named
            source = inside[0][1] if inside else preset[1] if preset and path.startswith("model.") else None
        else:
            source = chosen[1]
        if source is None:
            return ""
        about = f"{source.about}: " if source.about else ""
        return f"{source.where(path)}: {about}"


def _merge(layers: Iterable[Layer]) -> _Merged:
    merged = _Merged()
    for layer in layers:
        merged.home = merged.home or f"{layer.where('')}: "
        for path in layer.values:
            check_path(path, layer.where(path))
        values = dict(layer.values)
        name, size = values.pop("model.name", None), values.pop("model.size", None)
        if name is not None and size is not None:
            raise RequestError(f"{layer.where('model.size')}: set model.name or model.size, not both")
        for key, chosen, table in (("model.name", name, NAMED), ("model.size", size, SIZES)):
            if key in layer.values and (not isinstance(chosen, str) or chosen not in table):
                what = "model" if table is NAMED else "size"
                raise RequestError(f"{layer.where(key)}: {key}: {unknown(what, str(chosen), table)}")
        cleared: set[str] = set()
        if name is not None:
            merged.named, merged.size = (name, layer), None
            # A named model stands for all of an architecture, but how much of it is dropped is the recipe's to say.
            cleared = {f"model.{key}" for key in NAMED[name] if key != "drop_path"}
            cleared |= {"model.timm", "model.comparator"}
        if size is not None:
            merged.size = (size, layer)
        if name is not None or size is not None:
            cleared |= {"model.depths", "model.dims"}
        if "model.timm" in values and merged.named and "comparator" in NAMED[merged.named[0]]:
            merged.named = None
        merged.explicit = {p: v for p, v in merged.explicit.items() if p not in cleared}
        if "train.epoch_factor" in values:
            factor = values.pop("train.epoch_factor")
            if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 < factor < 1e6:
                raise RequestError(
                    f"{layer.where('train.epoch_factor')}: train.epoch_factor is {factor!r}; "
                    f"allowed: {_SHORTHANDS['train.epoch_factor']}"
                )
            merged.epoch_factor = (factor, layer)
        if "train.epochs" in values:
            merged.epoch_factor = None
        merged.explicit.update({path: (value, layer) for path, value in values.items()})
    return merged


def _with_presets(merged: _Merged) -> dict[str, Any]:
    """Nested values of the presets with the explicit settings over them."""
    flat: dict[str, Any] = {}
    named = dict(NAMED[merged.named[0]]) if merged.named else {}
    size = SIZES[merged.size[0]] if merged.size else SIZES[named.pop("size")] if "size" in named else None
    named.pop("size", None)
    if size is not None:
        flat |= {"model.drop_path": size.drop_path, "model.layer_scale": size.layer_scale}
    flat |= {f"model.{key}": value for key, value in named.items()}
    if size is not None and (merged.size or "depths" not in named):
        flat |= {"model.depths": size.depths, "model.dims": size.dims}
    flat |= {path: value for path, (value, _) in merged.explicit.items()}
    if merged.epoch_factor and isinstance(flat.get("train.epochs"), int):
        flat["train.epochs"] = max(1, round(flat["train.epochs"] * merged.epoch_factor[0]))
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, leaf = path.split(".")
        target = nested
        for parent in parents:
            target = target.setdefault(parent, {})
        target[leaf] = value
    for path in ("model.stem", "model.downsample"):  # a part of a geometry keeps the rest of the default
        section, leaf = path.split(".")
        if leaf in nested.get(section, {}):
            default = SECTIONS[section].model_fields[leaf].default.model_dump()
            nested[section][leaf] = {**default, **nested[section][leaf]}
    return nested


def _per_stage(values: dict[str, Any], merged: _Merged) -> dict[str, Any]:
    """Writes single values out for all stages and checks the lengths of lists."""
    fields = ModelSpec.model_fields
    lists = {key: values.get(key, fields[key].default) for key in ("depths", "dims", *STAGED)}
    depths = lists["depths"]
    if not isinstance(depths, (list, tuple)) or not depths:
        raise _bad("model.depths", depths, f"allowed: {fields['depths'].description}", merged)
    stages = len(depths)
    for key, value in lists.items():
        if key in STAGED and not isinstance(value, (list, tuple)):
            lists[key] = [value] * stages
        elif isinstance(value, (list, tuple)) and len(value) != stages:
            raise RequestError(
                f"{merged.where(f'model.{key}')}model.{key} has {len(value)} entries, {list(value)}; "
                f"allowed: {'one value, or ' if key in STAGED else ''}{stages} entries, "
                f"one for each stage of depths {list(depths)}"
            )
    lists = {key: list(v) if isinstance(v, tuple) else v for key, v in lists.items()}
    for option in (key for key in STAGED if key in MIXER_OPTIONS):
        for i, mixer in enumerate(lists["token_mixer"]):
            name = full_name(mixer, MIXERS) if isinstance(mixer, str) else None
            if lists[option][i] is None and name is not None and option in MIXERS[name].reads:
                lists[option][i] = MIXERS[name].defaults.get(option, fields[option].default)
    return {**values, **lists}


def _bad(path: str, value: Any, allowed: str, merged: _Merged) -> RequestError:
    shown = list(value) if isinstance(value, tuple) else value
    return RequestError(f"{merged.where(path)}{path} is {shown!r} ({kind(shown)}); {allowed}")


def _file_digest(path: str, merged: _Merged) -> str:
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise _bad("model.init_from", path, f"the file cannot be read: {error.strerror}", merged) from None


S = TypeVar("S", bound=_Strict)


def _validate(model: type[S], section: str, values: dict[str, Any], merged: _Merged) -> S:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        keys = [str(key) for key in first["loc"]]
        path = ".".join([section, *keys])
        while path not in _LEAVES:  # inside a list: the field is what has a description
            path = path.rpartition(".")[0]
            if not path:
                raise RequestError(f"{section} must be a mapping with: {', '.join(model.model_fields)}") from None
        if first["type"] == "missing":
            raise RequestError(f"{merged.home}{path} is not set; allowed: {_LEAVES[path].description}") from None
        reason = str(first["ctx"]["error"]) if first["type"] == "value_error" else ""
        allowed = reason or f"allowed: {_LEAVES[path].description}"
        value: Any = values
        for key in path.split(".")[1:]:
            value = value[key]
        if path in merged.explicit:  # as it was written, not spread over the stages
            value = merged.explicit[path][0]
        raise _bad(path, value, allowed, merged) from None


# ---------------------------------------------------------------------------------------------------------------------
# What nothing reads


def _inert_model(model: ModelSpec) -> dict[str, str]:
    """{field, or field.i for stage i: why nothing reads it}."""
    if (comparator := model.timm or model.comparator) is not None:
        read = {"timm", "comparator", "drop_path", "init_from", "init_sha256"}
        return {key: f"the model is {comparator}" for key in ModelSpec.model_fields if key not in read}
    inert: dict[str, str] = {}
    names = model.stages()[2]
    mixers = [MIXERS[name] for name in names]
    for option in MIXER_OPTIONS:
        unread = [i for i, mixer in enumerate(mixers) if option not in mixer.reads]
        can = ", ".join(readers(option, MIXERS))
        if option in STAGED:
            inert |= {f"{option}.{i}": f"token_mixer {names[i]} does not read it (it is for {can})" for i in unread}
        elif len(unread) == len(mixers) and not (option == "activation" and model.channel_mlp):
            mlp = " and channel_mlp is false" if option == "activation" else ""
            inert[option] = f"token_mixer {', '.join(dict.fromkeys(names))} does not read it (it is for {can}){mlp}"
    norms = {model.norm, *(conv.norm for conv in (model.stem, model.downsample) if conv)}
    for option in ("norm_eps", "norm_bias"):
        if not norms & set(readers(option, NORMS)):
            inert[option] = f"norm {model.norm} does not read it"
    if not model.residual:
        inert |= dict.fromkeys(("layer_scale", "res_scale", "drop_path"), "residual is false")
    if not model.channel_mlp:
        inert |= dict.fromkeys(("mlp_ratio", "mlp_bias"), "channel_mlp is false")
    if model.head != "mlp":
        inert["head_dropout"] = f"head {model.head} does not read it"
    return inert


def _inert_data(data: DataSpec) -> dict[str, str]:
    if data.in_memory:
        of_files = ("num_classes", "train_images", "test_images", "reader", "workers", "max_unreadable")
        of_large = ("crop_scale", "interpolation", "rand_augment", "random_erasing", "eval_crop", "eval_interpolation")
        inert = dict.fromkeys(of_files, f"{data.name} is not read image by image")
        inert |= dict.fromkeys(of_large, f"the images of {data.name} are small")
    else:
        inert = {"crop_padding": f"the images of {data.name} are cropped by crop_scale"}
    if not (data.mixup and data.cutmix):
        inert["cutmix_switch"] = "mixup and cutmix are not both on"
    return inert


def _inert_train(train: TrainSpec) -> dict[str, str]:
    inert = {}
    if train.schedule == "constant":
        inert["min_lr"] = "the schedule is constant"
    if not train.warmup_epochs:
        inert["warmup_lr"] = "warmup_epochs is 0"
    return inert


def _without_inert(section: S, name: str, inert: dict[str, str], merged: _Merged) -> S:
    """The section with inert fields null. Raises where a row or the command line sets one of them, and for a null
    where something reads the field and its description allows none."""
    for key, info in type(section).model_fields.items():
        nullable = info.default is None or "null" in (info.description or "")
        if getattr(section, key) is None and key not in inert and not nullable:
            raise _bad(f"{name}.{key}", None, f"allowed: {info.description}", merged)
    update: dict[str, Any] = {}
    for key, why in inert.items():
        option, _, stage = key.partition(".")
        path = f"{name}.{option}"
        inside = [p for p in merged.explicit if p == path or p.startswith(path + ".")]
        path = inside[0] if inside else path
        value, layer = merged.explicit.get(path, (None, None))
        if layer is not None and layer.strict and value is not None:
            # One value for all stages is read where any stage reads it; an entry of a list stands for its own stage.
            if not stage:
                unread = True
            elif isinstance(value, list):
                unread = value[int(stage)] is not None
            else:
                unread = all(f"{option}.{i}" in inert for i in range(len(getattr(section, option))))
            if unread:
                at = f" at stage {int(stage) + 1}" if stage and isinstance(value, list) else ""
                raise RequestError(f"{merged.where(path)}{path} is {value!r}, but nothing reads it{at}: {why}")
        if stage:
            entries = list(update.get(option, getattr(section, option)))
            entries[int(stage)] = None
            update[option] = tuple(entries)
        else:
            info = type(section).model_fields[option]
            update[option] = info.default if info.exclude else None  # what is not in the id is not in a record either
    return section.model_copy(update=update)


def _check_together(spec: RunSpec, merged: _Merged) -> None:
    """What no single field can tell: the geometry leaves a map in every stage, the schedule fits the epochs."""
    model = spec.model
    if model.timm is not None and model.comparator is not None:
        raise RequestError(
            f"{merged.where('model.timm')}model.timm is {model.timm!r} and model.comparator is {model.comparator!r}; "
            f"allowed: one of them"
        )
    if (comparator := model.timm or model.comparator) is not None and merged.size and merged.size[1].strict:
        size, layer = merged.size
        about = f"{layer.about}: " if layer.about else ""
        raise RequestError(
            f"{layer.where('model.size')}: {about}model.size is {size!r}, but nothing reads it: "
            f"the model is {comparator}"
        )
    for stage, (height, _) in enumerate(stage_sizes(spec)):
        if height < 1:
            assert model.stem is not None and model.downsample is not None
            raise RequestError(
                f"{merged.where('data.image_size')}data.image_size is {spec.data.image_size}, which leaves nothing in "
                f"stage {stage + 1} after a stem of stride {model.stem.stride} and down-sampling of stride "
                f"{model.downsample.stride}; allowed: a larger image or smaller strides"
            )
    for i, (_, dim, mixer) in enumerate(zip(*model.stages(), strict=True)):
        if "head_dim" in MIXERS[mixer].reads and (not model.head_dim or dim % model.head_dim):
            allowed = f"allowed for {mixer} in stage {i + 1}: a divisor of its width {dim}"
            raise _bad("model.head_dim", model.head_dim, allowed, merged)
    train = spec.train
    if train.warmup_epochs >= train.epochs and train.warmup_epochs > 0:
        _, source = merged.explicit.get("train.warmup_epochs", (None, None))
        place = "train.warmup_epochs" if source is not None and source.strict else "train.epochs"
        raise RequestError(
            f"{merged.where(place)}train.warmup_epochs is {train.warmup_epochs:g} and train.epochs is "
            f"{train.epochs}; allowed: fewer warm-up epochs than epochs"
        )
    images, _ = spec.data.split_sizes()
    if train.batch_size > images:
        raise RequestError(
            f"{merged.where('train.batch_size')}train.batch_size is {train.batch_size}; allowed: at most {images}, "
            f"the training images of {spec.data.name}"
        )
    _check_sharing(train, merged)
    mixed = not spec.data.in_memory and bool(spec.data.mixup or spec.data.cutmix)
    part = train.micro_batch or train.batch_size // train.world
    if mixed and part < train.batch_size and part % 2:
        found = f"train.micro_batch is {part}" if train.micro_batch else f"a device has {part} images of a batch"
        raise RequestError(
            f"{merged.where('train.micro_batch')}{found}; allowed where data.mixup or data.cutmix is on: an even "
            f"number, for both images of a pair are read by one device"
        )


def _check_sharing(train: TrainSpec, merged: _Merged) -> None:
    """The devices of a run get equal shares of each batch, and take them in equal parts."""
    if train.batch_size % train.world:
        where = next((found for key in ("devices", "nodes") if (found := merged.where(f"train.{key}"))), "")
        raise RequestError(
            f"{where}train.devices is {train.devices} and train.nodes is {train.nodes}, which cannot share a batch of "
            f"{train.batch_size} evenly; allowed: as many devices in all as divide train.batch_size"
        )
    share = train.batch_size // train.world
    if share % (train.micro_batch or 1):
        allowed = f"allowed: a divisor of the {share} images of a batch that a device has"
        raise _bad("train.micro_batch", train.micro_batch, allowed, merged)
    if train.strategy != "auto" and train.world == 1:
        allowed = "allowed on one device: auto"
        raise _bad("train.strategy", train.strategy, allowed, merged)


def stage_sizes(spec: RunSpec) -> list[tuple[int, int]]:
    """(height, width) of the feature map in each stage, in tokens; empty for a comparator."""
    size, sizes = spec.data.image_size, []
    for stage in range(len(spec.model.depths or ())):
        conv = spec.model.downsample if stage else spec.model.stem
        assert conv is not None
        size = (size + 2 * conv.padding - conv.kernel) // conv.stride + 1
        sizes.append((size, size))
    return sizes


def not_applicable(spec: RunSpec) -> str | None:
    """Why a comparator makes no sense at a recipe's resolution; None where it does. A MetaFormer fits any."""
    size = spec.data.image_size
    fits = COMPARATORS.get(spec.model.comparator or "")
    if fits is not None and (size < 64 or not fits.takes(size)):
        times = "a power of two" if fits.powers else "an integer"
        return f"{spec.model.comparator} takes images of {fits.base} pixels times {times}, from 64 on; here {size}"
    if (name := spec.model.timm) is not None:
        if name.startswith("resnet"):
            small = f"{name} leaves less than one position of images below 32 pixels; here {size}"
            return None if size >= 32 else small
        if size < 64 or size % 16:
            return f"{name} takes images of a multiple of 16 pixels, from 64 on; here {size}"
    return None
