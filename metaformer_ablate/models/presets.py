"""Sizes and named models: what a name stands for in a spec. Holds no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Size:
    """Depths and widths, and what table 6 of the paper trains that size with."""

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    drop_path: float = 0.1
    layer_scale: float = 1e-5


# Table 1, with the stochastic depth and LayerScale of table 6. The number is the sum of the depths. The t sizes are
# ours: the same 4 stages, narrower, for images of 16 to 64 pixels.
SIZES: dict[str, Size] = {
    "s12": Size((2, 2, 6, 2), (64, 128, 320, 512)),
    "s24": Size((4, 4, 12, 4), (64, 128, 320, 512)),
    "s36": Size((6, 6, 18, 6), (64, 128, 320, 512), drop_path=0.2, layer_scale=1e-6),
    "m36": Size((6, 6, 18, 6), (96, 192, 384, 768), drop_path=0.3, layer_scale=1e-6),
    "m48": Size((8, 8, 24, 8), (96, 192, 384, 768), drop_path=0.4, layer_scale=1e-6),
    "t5": Size((1, 1, 2, 1), (16, 32, 64, 128), drop_path=0.0, layer_scale=0.1),
    "t12": Size((2, 2, 6, 2), (32, 64, 160, 256), drop_path=0.0, layer_scale=0.1),
}


_PAPER_SIZES = ("s12", "s24", "s36", "m36", "m48")


# What all models of MetaFormer Baselines for Vision share (section 3): no biases, StarReLU, ResScale in the last two
# stages, no LayerScale, a norm after the stem and before each down-sampling, the head's norm after pooling.
_BASELINES: dict[str, Any] = {
    "norm_eps": 1e-6,
    "norm_bias": False,
    "mixer_bias": False,
    "mlp_bias": False,
    "activation": "star_relu",
    "layer_scale": None,
    "res_scale": [None, None, 1.0, 1.0],
    "stem.norm": "layer_norm",
    "downsample.norm": "layer_norm",
    "head_norm": "after_pool",
    "conv_init": "trunc_normal",
}


_CONV, _ATTENTION = "separable_conv", "attention"


_FAMILIES: dict[str, dict[str, Any]] = {
    "identityformer": {"token_mixer": "identity", "norm": "mln"},
    "randformer": {"token_mixer": ["identity", "identity", "random", "random"], "norm": "mln"},
    "poolformerv2": {"token_mixer": "pooling", "pool_size": 3, "norm": "mln"},
    "convformer": {"token_mixer": _CONV, "norm": "layer_norm", "head": "mlp"},
    "caformer": {"token_mixer": [_CONV, _CONV, _ATTENTION, _ATTENTION], "norm": "layer_norm", "head": "mlp"},
}


# Table 2 there, with the stochastic depth and head dropout of the authors' scripts (ConvFormer, CAFormer).
_CONV_SIZES: dict[str, tuple[list[int], list[int], float, float, float]] = {
    "s18": ([3, 3, 9, 3], [64, 128, 320, 512], 0.2, 0.15, 0.0),
    "s36": ([3, 12, 18, 3], [64, 128, 320, 512], 0.3, 0.3, 0.4),
    "m36": ([3, 12, 18, 3], [96, 192, 384, 576], 0.4, 0.4, 0.4),
    "b36": ([3, 12, 18, 3], [128, 256, 512, 768], 0.6, 0.6, 0.5),
}


# The paper's hybrid rows (table 5) as the authors' code names them; P pooling, A attention, F spatial FC.
_HYBRIDS: dict[str, dict[str, Any]] = {
    "metaformer_id_s12": {"token_mixer": "identity"},
    "metaformer_pppa_s12": {
        "token_mixer": ["pooling", "pooling", "pooling", "attention"],
        "norm": "layer_norm",
        "position_embedding": [False, False, False, True],
    },
    "metaformer_ppaa_s12": {
        "token_mixer": ["pooling", "pooling", "attention", "attention"],
        "norm": "layer_norm",
        "position_embedding": [False, False, True, False],
    },
    "metaformer_pppf_s12": {"token_mixer": ["pooling", "pooling", "pooling", "spatial_fc"]},
    "metaformer_ppff_s12": {"token_mixer": ["pooling", "pooling", "spatial_fc", "spatial_fc"]},
}


@dataclass(frozen=True)
class Comparator:
    """A model of table 2 that timm does not have by name. models/comparators.py builds it.

    It takes images of `base` pixels times an integer, or times a power of two where its windows have to divide maps.
    """

    about: str
    base: int
    powers: bool = False

    def takes(self, size: int) -> bool:
        times, rest = divmod(size, self.base)
        return rest == 0 and times > 0 and (not self.powers or times & (times - 1) == 0)


COMPARATORS: dict[str, Comparator] = {
    **{f"pvt_{size}": Comparator("PVT v1 (arXiv 2102.12122)", 32) for size in ("tiny", "small", "medium", "large")},
    "swin_mixer_t_d24": Comparator("Swin-Mixer (arXiv 2103.14030), windows of 8", 128, powers=True),
    "swin_mixer_t_d6": Comparator("Swin-Mixer, windows of 8, narrow heads", 128, powers=True),
    "swin_mixer_b_d24": Comparator("Swin-Mixer, windows of 7", 224),
    "resmlp_b24": Comparator("ResMLP-B24 with patches of 16, as the paper has it; timm's name has patches of 8", 16),
}


def _named() -> dict[str, dict[str, Any]]:
    models: dict[str, dict[str, Any]] = {}
    for size in _PAPER_SIZES:
        models[f"poolformer_{size}"] = {"size": size, "token_mixer": "pooling", "pool_size": 3, "norm": "mln"}
    models |= {name: {"size": "s12", "norm": "mln", **values} for name, values in _HYBRIDS.items()}
    for family in ("identityformer", "randformer", "poolformerv2"):
        models |= {f"{family}_{size}": {"size": size, **_BASELINES, **_FAMILIES[family]} for size in _PAPER_SIZES}
    models["randformer_m48"]["drop_path"] = 0.3  # the authors' script; the other families have 0.4
    for family in ("convformer", "caformer"):
        for size, (depths, dims, conv_rate, attention_rate, dropout) in _CONV_SIZES.items():
            rates = {"drop_path": conv_rate if family == "convformer" else attention_rate}
            rates["head_dropout"] = 0.0 if family == "convformer" else dropout
            shape = {"depths": depths, "dims": dims}
            models[f"{family}_{size}"] = {**shape, **_BASELINES, **_FAMILIES[family], **rates}
    models |= {name: {"comparator": name} for name in COMPARATORS}
    return models


# A named model is a set of values of the model spec: field names under `model.`, and `size`.
NAMED: dict[str, dict[str, Any]] = _named()
