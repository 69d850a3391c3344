"""Settings of the model, and which of them its components read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from metaformer_ablate.errors import unknown
from metaformer_ablate.models.class_source import TARGET
from metaformer_ablate.models.components import ACTIVATIONS, MIXERS, NORMS, Component, full_name, readable
from metaformer_ablate.models.presets import COMPARATORS
from metaformer_ablate.models.registry import COMPONENTS
from metaformer_ablate.models.user_components import own_parts_file
from metaformer_ablate.settings.schema import (
    AboveZero,
    Odd,
    Positive,
    Probability,
    Stages,
    Strict,
    execution_setting,
    later_setting,
    name_in,
    setting,
)


def _component_in(what: str, kind: str) -> AfterValidator:
    """A name in a table of the registry; of the user's own it may lack the digest, which the resolved spec has."""

    def check(value: str) -> str:
        table: Mapping[str, Component] = getattr(COMPONENTS, kind)
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


MixerName = Annotated[str, _component_in("token mixer", "mixers")]


NormName = Annotated[str, _component_in("norm", "norms")]


ActivationName = Annotated[str, _component_in("activation", "activations")]


def _class_or_target(value: str) -> str:
    """`Class@digest`, as a resolved spec has it, or what a file of settings says."""
    if re.fullmatch(r"[A-Za-z_]\w*@[0-9a-f]{12}", value) is None and TARGET.fullmatch(value) is None:
        raise ValueError(f"allowed: {_TARGETS}")
    return value


_TARGETS = "FILE.py:Class or package.module:Class, a class of torch.nn.Module"


def _plain_values(args: dict[str, Any]) -> dict[str, Any] | None:
    """Arguments as the JSON of a record says them, whatever they came from; None for no arguments."""
    try:
        return json.loads(json.dumps(args, allow_nan=False)) or None
    except (TypeError, ValueError):
        raise ValueError("allowed: finite numbers, text, true, false, null, and lists and mappings of them") from None


class ConvSpec(Strict):
    """Geometry of an embedding: one convolution, with a norm after it (stem) or before it (down-sampling)."""

    kernel: Positive = setting(3, "an integer of at least 1")
    stride: Positive = setting(2, "an integer of at least 1")
    padding: Annotated[int, Field(ge=0)] = setting(1, "an integer of at least 0")
    norm: NormName = setting("none", "one of: " + ", ".join(NORMS))


class ModelSpec(Strict):
    """The MetaFormer (paper, section 3 and table 1), or a model that is named as a whole. A field that nothing reads is
    null.

    Fields with one entry per stage may be written as one value for all stages. Where `timm`, `comparator` or `class`
    names a model, only its `args`, `drop_path`, and what is said of weights and freezing are read beside it.
    """

    timm: Annotated[str, Field(min_length=1)] | None = setting(None, "the name of a model of timm")
    comparator: Annotated[str, name_in("comparator", COMPARATORS)] | None = setting(
        None, "one of: " + ", ".join(COMPARATORS)
    )
    own_class: Annotated[str, AfterValidator(_class_or_target)] | None = later_setting(_TARGETS, alias="class")
    args: Annotated[dict[str, Any], AfterValidator(_plain_values)] | None = later_setting(
        "a mapping of arguments of the model that class or timm names, such as {width: 64}"
    )
    # Where the class is found, by what `find_source` reads; its content is in the id, as the digest.
    class_place: str | None = execution_setting(None, "set by model.class")
    depths: Stages[Positive] | None = setting((2, 2, 6, 2), "a list of integers of at least 1, one per stage")
    dims: Stages[Positive] | None = setting((64, 128, 320, 512), "a list of integers of at least 1, one per stage")
    token_mixer: Stages[MixerName] | None = setting("pooling", "one name or one per stage, of: " + ", ".join(MIXERS))
    pool_size: Stages[Odd | None] | None = setting(3, "an odd integer of at least 1, or one per stage")
    kernel_size: Stages[Odd | None] | None = setting(
        None, "an odd integer of at least 1, or one per stage; null for the mixer's own"
    )
    window: Stages[Positive | None] | None = setting(7, "an integer of at least 1, or one per stage")
    head_dim: Positive | None = setting(
        32, "an integer of at least 1 that divides the width of each stage with attention"
    )
    mixer_bias: bool | None = setting(True, "true or false")
    mixer_expansion: AboveZero | None = setting(2.0, "a number above 0")
    token_mlp_ratio: AboveZero | None = setting(0.5, "a number above 0: hidden width over channels")
    norm: NormName | None = setting("mln", "one of: " + ", ".join(NORMS))
    norm_eps: AboveZero | None = setting(1e-5, "a number above 0")
    norm_bias: bool | None = setting(True, "true or false")
    activation: ActivationName | None = setting("gelu", "one of: " + ", ".join(ACTIVATIONS))
    residual: bool | None = setting(True, "true or false")
    channel_mlp: bool | None = setting(True, "true or false")
    mlp_ratio: AboveZero | None = setting(4.0, "a number above 0")
    mlp_bias: bool | None = setting(True, "true or false")
    layer_scale: AboveZero | None = setting(
        1e-5, "a number above 0, or null for none; model.size may bring another default"
    )
    res_scale: Stages[AboveZero | None] | None = setting(None, "a number above 0 or null for none, or one per stage")
    drop_path: Probability | None = setting(
        0.1, "a number of at least 0 and below 1: the rate of the last block; model.size may bring another default"
    )
    position_embedding: Stages[bool] | None = setting(False, "true or false, or one per stage")
    stem: ConvSpec | None = setting(ConvSpec(kernel=7, stride=4, padding=2), "kernel, stride, padding and norm")
    downsample: ConvSpec | None = setting(ConvSpec(kernel=3, stride=2, padding=1), "kernel, stride, padding and norm")
    head: Annotated[str, name_in("head", ("linear", "mlp"))] | None = setting("linear", "linear or mlp")
    head_norm: Annotated[str, name_in("place", ("before_pool", "after_pool"))] | None = setting(
        "before_pool", "before_pool (the model's norm) or after_pool (Layer Normalization)"
    )
    head_dropout: Probability | None = setting(0.0, "a number of at least 0 and below 1")
    conv_init: Annotated[str, name_in("initialisation", ("torch", "trunc_normal"))] | None = setting(
        "torch", "torch (PyTorch's default) or trunc_normal (of 0.02)"
    )
    freeze: Annotated[Stages[str], AfterValidator(lambda paths: paths or None)] | None = later_setting(
        "a list of paths in the net of what is not trained, such as [stem, stages.0], or null for none"
    )
    batch_norm_eval: Annotated[bool, AfterValidator(lambda kept: kept or None)] | None = later_setting(
        "true (batch norms keep their statistics in training), or null"
    )
    # The file is not part of a run's identity, its content is: `init_from` stays out of the id, its SHA-256 is in it.
    init_from: str | None = execution_setting(
        None,
        "a path of weights to start from (their content is in the id), or recipe:NAME for the row's run under it",
    )
    init_sha256: str | None = setting(None, "set by the file")
    init_averaged: str | None = later_setting("set by the file: the name under which it has averaged weights")
    new_head: Annotated[bool, AfterValidator(lambda new: new or None)] | None = later_setting(
        "true (the last layer begins anew, whatever init_from has), or null"
    )
    init_run: str | None = later_setting("set by init_from: the id of the run whose weights it starts from")

    @property
    def init_recipe(self) -> str | None:
        """The recipe whose run of the same row this starts from; None for a file of weights, or for none."""
        name = (self.init_from or "").removeprefix(FROM_RECIPE)
        return name if name != (self.init_from or "") else None

    @property
    def whole(self) -> str | None:
        """What to call a model that is named as a whole: a comparator, timm's name, a class; None for a MetaFormer."""
        return self.timm or self.comparator or (self.own_class and self.own_class.partition("@")[0])

    def stages(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[str, ...]]:
        """depths, dims and token mixers; all empty for a comparator."""
        return self.depths or (), self.dims or (), self.token_mixer or ()

    def own_names(self) -> set[str]:
        """The names of the user's own components."""
        names = [*self.stages()[2], self.norm, self.activation]
        names += [conv.norm for conv in (self.stem, self.downsample) if conv]
        return {name for name in names if name and "@" in name}

    def at_stage(self, name: str, stage: int) -> Any:
        """A field's value at a stage, from 0: its own entry where the field has one per stage."""
        value = getattr(self, name)
        return value[stage] if isinstance(value, tuple) else value

    def stage_sizes(self, image_size: int) -> list[tuple[int, int]]:
        """(height, width) of the feature map in each stage, in tokens; empty for a comparator.

        Below 1 where the images are too small for the strides.
        """
        size, sizes = image_size, []
        for stage in range(len(self.depths or ())):
            conv = self.downsample if stage else self.stem
            assert conv is not None
            size = (size + 2 * conv.padding - conv.kernel) // conv.stride + 1
            sizes.append((size, size))
        return sizes

    def embedding_field(self) -> int | None:
        """Pixels per side that a token of the last stage sees through the stem and the down-samplings alone.

        What is beyond it only mixers can bring; 63 in the paper's net (0.28 of 224). None for a comparator.
        """
        if self.depths is None or self.stem is None or self.downsample is None:
            return None
        field, stride = 1, 1
        for conv in (self.stem, *[self.downsample] * (len(self.depths) - 1)):
            field += (conv.kernel - 1) * stride
            stride *= conv.stride
        return field

    def not_applicable(self, image_size: int) -> str | None:
        """Why a comparator makes no sense for images of so many pixels per side; None where it does.

        A MetaFormer fits any size.
        """
        fits = COMPARATORS.get(self.comparator or "")
        if fits is not None and (image_size < 64 or not fits.takes(image_size)):
            times = "a power of two" if fits.powers else "an integer"
            return f"{self.comparator} takes images of {fits.base} pixels times {times}, from 64 on; here {image_size}"
        if (name := self.timm) is not None:
            if name.startswith(_PLAIN):  # with arguments such as patch_size it is the user who makes it fit
                if self.args is None and (image_size < 64 or image_size % 16):
                    return f"{name} takes images of a multiple of 16 pixels, from 64 on; here {image_size}"
            elif image_size < 32:
                return f"{name} leaves less than one position of images below 32 pixels; here {image_size}"
        return None

    def not_a_backbone(self, image_size: tuple[int, int] | None) -> str | None:
        """Why this cannot give feature maps of images of (height, width), or of many sizes if None; None where it can.

        What fits one resolution alone cannot follow images whose sizes vary; a comparator needs four stages.
        """
        if self.own_class is not None:
            return f"{self.whole} gives logits and no maps: a class of one's own is no backbone here"
        if self.comparator is not None and not self.comparator.startswith("pvt"):
            return f"{self.comparator} fits one resolution, or has one stage alone: it is no backbone here"
        if self.timm is not None and self.timm.startswith(_PLAIN):
            return f"{self.timm} has maps of one stride alone: it is no backbone here"
        for stage, name in enumerate(self.stages()[2]):
            if COMPONENTS.mixers[name].fixed_resolution:
                fits = f"token_mixer {name} of stage {stage + 1} fits one resolution"
                if image_size is None:
                    return f"{fits}, and the images have many"
                if self.init_recipe is not None:
                    return f"{fits}: it cannot start from a run under {self.init_recipe}, which has another"
        return None


# Models of timm that keep one resolution from their patches to their end.
_PLAIN = ("vit_", "deit", "mixer_", "resmlp_", "gmlp_", "gmixer_", "beit", "eva", "cait_")


# Pixels per side of the images that the paper's models were pretrained on: what a backbone's position embeddings are
# sized for where images vary.
PRETRAINING_SIZE = 224


# What `init_from` begins with where it names a recipe and no file.
FROM_RECIPE = "recipe:"


STAGED = ("token_mixer", "pool_size", "kernel_size", "window", "res_scale", "position_embedding")


# What token mixers may read, besides the place they stand in.
MIXER_OPTIONS = readable(MIXERS)
