"""Parts of a net that are not trained: frozen ones, and batch norms that keep their statistics."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from metaformer_ablate.errors import RequestError, nearest
from metaformer_ablate.models.spec import ModelSpec
from metaformer_ablate.models.unread import unread_model

# All of torch's; its own name for them is private.
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

# Says of a module that it stays in evaluation mode; a copy of the module says it too.
_MARK = "kept_in_evaluation"


def apply_freezing(net: nn.Module, model: ModelSpec) -> None:
    """Does what `freeze` and `batch_norm_eval` of a model say to the net that their paths are of.

    What is frozen is not trained and stays in evaluation mode: its batch norms keep their statistics, and nothing in it
    is dropped. Whoever trains the net keeps it so (`kept_in_evaluation`). Raises RequestError for a path of nothing,
    and for `batch_norm_eval` of a net without batch norms, where the settings alone do not say that it has none.
    """
    for path in model.freeze or ():
        _freeze(net, path)
    if model.batch_norm_eval:
        norms = [module for module in net.modules() if isinstance(module, BATCH_NORMS)]
        if not norms and "batch_norm_eval" not in unread_model(model):  # else it is of a record that was made before
            raise RequestError(
                f"model.batch_norm_eval is true, but nothing reads it: {type(net).__name__} has no batch norm; allowed "
                f"for this model: false"
            )
        for module in norms:
            setattr(module, _MARK, True)


def _freeze(net: nn.Module, path: str) -> None:
    """Freezes a module or a parameter by its dotted path."""
    modules, parameters = dict(net.named_modules()), dict(net.named_parameters())
    if path in parameters:
        parameters[path].requires_grad_(False)
    elif path and path in modules:
        modules[path].requires_grad_(False)
        for module in modules[path].modules():
            setattr(module, _MARK, True)
    else:
        depth = path.count(".")
        known = [name for name in (*modules, *parameters) if name and name.count(".") <= depth]
        outermost = ", ".join(dict(net.named_children()))
        raise RequestError(
            f"model.freeze has {path!r}, which is no part of {type(net).__name__}{nearest(path, known)}; allowed: "
            f"paths of modules or parameters, which begin with: {outermost}"
        )


def kept_in_evaluation(net: nn.Module) -> list[str]:
    """The paths of the modules that stay in evaluation mode in training."""
    return [name for name, module in net.named_modules() if getattr(module, _MARK, False)]


def trained_batch_norms(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """The batch norms whose statistics follow the batches."""
    return [m for m in modules if isinstance(m, BATCH_NORMS) and not getattr(m, _MARK, False)]
