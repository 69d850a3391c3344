"""Ablations of MetaFormer (Yu et al., CVPR 2022): which part of the model matters?

    import metaformer_ablate as ma

    net = ma.create_model("poolformer_s12", token_mixer="attention", num_classes=10)
    study = ma.load_experiment("pooling_size", "digits", overrides={"train.epochs": 2})
    study.run(seeds=3)
    study.table()
    study.plot("rows")

The import takes milliseconds and loads no torch: each name is loaded when it is first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from metaformer_ablate.api.timm_hook import RegisterWithTimm
from metaformer_ablate.version import __version__ as __version__

if TYPE_CHECKING:  # what editors and type checkers see; `__getattr__` gives the same
    from metaformer_ablate.analysis.figures.look import Look
    from metaformer_ablate.api.experiment import Experiment, load_experiment
    from metaformer_ablate.api.lightning import RecipeData, lightning
    from metaformer_ablate.api.models import Cost, count, create_model
    from metaformer_ablate.api.results import load_results
    from metaformer_ablate.api.table import ResultTable
    from metaformer_ablate.errors import RequestError
    from metaformer_ablate.models.mixers import Site


__all__ = [
    "Cost",
    "Experiment",
    "Look",
    "RecipeData",
    "RequestError",
    "ResultTable",
    "Site",
    "count",
    "create_model",
    "lightning",
    "load_experiment",
    "load_results",
]

_HOMES = {
    "Cost": "api.models",
    "Experiment": "api.experiment",
    "Look": "analysis.figures.look",
    "RecipeData": "api.lightning",
    "RequestError": "errors",
    "ResultTable": "api.table",
    "Site": "models.mixers",
    "count": "api.models",
    "create_model": "api.models",
    "lightning": "api.lightning",
    "load_experiment": "api.experiment",
    "load_results": "api.results",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


RegisterWithTimm.install(sys.meta_path)
