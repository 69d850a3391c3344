"""The tables of names: every token mixer, norm and activation that a spec may ask for.

To add one, write its class in the module named by the table and add its line here. The schema, `ablate list`, the
error messages and the tests read these tables. They name classes as strings, so that `ablate list`, `table` and the
checking of a spec never load torch. What is
the user's own, from outside the package, stands beside them in registry.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Component:
    """One line of a table: the class, the fields of the model spec that it reads, and what it is."""

    target: str  # "module.Class" in this package, or "path/of/file.py:Class"
    about: str
    reads: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)  # of `reads`, where its default is its own
    window: str | None = None  # of `reads`, the field that says how far a token sees in one block
    mixes: bool = True  # False: nothing passes between tokens
    fixed_resolution: bool = False  # True: the weights fit one size of feature map only
    pools: bool = False  # True: adds or compares over a window, which MACs say nothing about
    uncounted: tuple[str, ...] = ()  # operators that multiply nothing, besides those that counting.py declares
    macs: str | None = None  # a function in the file of the class: (module, shape of an image's input) -> multiply-adds
    digest: str | None = None  # of the file of the class, where that is the user's own

    def load(self) -> Any:
        """The class itself. Loads torch."""
        if self.digest is not None:
            from metaformer_ablate.models.class_file import load_class

            return load_class(self.target, self.digest, "parts.yaml")
        module, name = self.target.split(".")
        return getattr(import_module(f"metaformer_ablate.models.{module}"), name)

    def load_macs(self) -> Any:
        """The function `macs`, or None. Loads torch."""
        if self.macs is None or self.digest is None:
            return None
        from metaformer_ablate.models.class_file import load_function

        return load_function(self.target, self.digest, self.macs)


MIXERS: dict[str, Component] = {
    "pooling": Component(
        "mixers.Pooling",
        "average pooling minus its input (PoolFormer)",
        reads=("pool_size",),
        window="pool_size",
        pools=True,
    ),
    "identity": Component("mixers.Identity", "nothing: every token keeps to itself (IdentityFormer)", mixes=False),
    "random": Component(
        "mixers.RandomMatrix", "a frozen random matrix over all tokens (RandFormer)", fixed_resolution=True
    ),
    "depthwise_conv": Component(
        "mixers.DepthwiseConv",
        "a depthwise convolution",
        reads=("kernel_size", "mixer_bias"),
        defaults={"kernel_size": 3},
        window="kernel_size",
    ),
    "separable_conv": Component(
        "mixers.SeparableConv",
        "an inverted separable convolution (ConvFormer)",
        reads=("kernel_size", "mixer_expansion", "mixer_bias", "activation"),
        defaults={"kernel_size": 7},
        window="kernel_size",
    ),
    "attention": Component(
        "mixers.Attention", "multi-head self-attention over all tokens", reads=("head_dim", "mixer_bias")
    ),
    "spatial_fc": Component("mixers.SpatialFC", "one linear layer over all tokens", fixed_resolution=True),
    "max_pooling": Component(
        "mixers.MaxPooling", "max pooling minus its input", reads=("pool_size",), window="pool_size", pools=True
    ),
    "window_attention": Component(
        "mixers.WindowAttention",
        "self-attention within windows that do not overlap (Swin, without the shift)",
        reads=("window", "head_dim", "mixer_bias"),
    ),
    "token_mlp": Component(
        "mixers.TokenMLP",
        "an MLP with a hidden layer over all tokens (MLP-Mixer)",
        reads=("token_mlp_ratio", "mixer_bias"),
        fixed_resolution=True,
    ),
    "fourier": Component("mixers.Fourier", "the real part of a Fourier transform over channels and tokens (FNet)"),
    "shift": Component("mixers.Shift", "a third of the channels moved by one token, four ways (ShiftViT)"),
}


NORMS: dict[str, Component] = {
    "mln": Component(
        "norms.ModifiedLayerNorm",
        "Modified Layer Normalization: over channels and positions, GroupNorm with one group",
        reads=("norm_eps", "norm_bias"),
    ),
    "layer_norm": Component(
        "norms.LayerNorm", "Layer Normalization: over channels at each position", reads=("norm_eps", "norm_bias")
    ),
    "batch_norm": Component(
        "norms.BatchNorm", "Batch Normalization: over the batch and positions", reads=("norm_eps", "norm_bias")
    ),
    "rms_norm": Component(
        "norms.RMSNorm", "root mean square over channels at each position, no mean, no shift", reads=("norm_eps",)
    ),
    "affine": Component(
        "norms.Affine", "a learned scale and shift per channel, no statistics (ResMLP)", reads=("norm_bias",)
    ),
    "none": Component("norms.NoNorm", "no normalization"),
}


ACTIVATIONS: dict[str, Component] = {
    "gelu": Component("activations.GELU", "GELU, the exact one"),
    "relu": Component("activations.ReLU", "ReLU"),
    "silu": Component("activations.SiLU", "SiLU, also called Swish"),
    "star_relu": Component(
        "activations.StarReLU", "learned scale * ReLU squared + learned shift (MetaFormer Baselines)"
    ),
    "squared_relu": Component("activations.SquaredReLU", "ReLU squared (Primer)"),
}


def readers(field: str, table: Mapping[str, Component]) -> list[str]:
    """The names of the parts that read a field of the model spec."""
    return [name for name, part in table.items() if field in part.reads]


def readable(table: Mapping[str, Component]) -> tuple[str, ...]:
    """The fields of the model spec that parts of a table read."""
    return tuple(dict.fromkeys(option for part in table.values() for option in part.reads))


def own_name(name: str, digest: str) -> str:
    """What a table and a resolved spec call a part of the user's own: `roll@3f2a91c04b7d`."""
    return f"{name}@{digest}"


def full_name(name: str, table: Mapping[str, Component]) -> str | None:
    """A part's name as the table has it, from that or from a name without its digest; None where there is none."""
    return name if name in table else next((key for key in table if key.startswith(f"{name}@")), None)
