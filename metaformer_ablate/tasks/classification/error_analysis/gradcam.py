"""Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391): which positions of a feature map speak for a class.

The map of a layer, each channel weighted by the mean gradient of the class's logit over the positions, summed over
the channels, negative values set to 0. Needs only the layer's output [B, C, H, W], so any token mixer will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from metaformer_ablate.errors import NotAvailable, RequestError, unknown
from metaformer_ablate.tasks.classification.trained import TrainedRun

FINE = 4  # positions per side, below which a map is too coarse to point at anything


def maps_of(run: TrainedRun, images: Tensor) -> dict[str, tuple[int, int]]:
    """{name of a stage: height and width of its output}, for stages whose output is a map [B, C, H, W].

    The stages are those of a MetaFormer, or of a comparator that has such (timm's convolutional networks, PVT's first
    three); of a net that names none every module is asked. Tokens [B, N, C] and maps [B, H, W, C] are none.
    """
    net = run.net
    stages: Any = getattr(net, "stages", None)
    if isinstance(stages, (nn.Sequential, nn.ModuleList)):
        names = [f"stages.{i}" for i in range(len(stages))]
    else:
        information: Any = getattr(net, "feature_info", None)
        modules = [name for name, _ in net.named_modules() if name]
        names = modules if information is None else [i["module"] for i in information if i["module"] in modules]
    found: dict[str, tuple[int, int]] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3] > 1:
                found[name] = (output.shape[2], output.shape[3])

        return hook

    handles = [net.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        run.logits(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    return {name: found[name] for name in names if name in found}


def choose_layer(maps: dict[str, tuple[int, int]], wanted: str | None) -> str:
    """The named layer, else the last one of at least 4 x 4 positions, else the finest there is.

    The last stage is the usual choice, but on small images it has 2 x 2 positions or one. Raises RequestError for a
    name that is none of them, NotAvailable where no layer has a map.
    """
    if not maps:
        raise NotAvailable("no stage of this model gives a map [B, C, H, W] of more than one position")
    if wanted is not None:
        if wanted not in maps:
            raise RequestError(f"--layer: {unknown('layer', wanted, maps)}")
        return wanted
    fine = [name for name, size in maps.items() if min(size) >= FINE]
    return fine[-1] if fine else max(maps, key=lambda name: maps[name])


def gradcam(run: TrainedRun, layer: str, images: Tensor, targets: Sequence[int]) -> Tensor:
    """Grad-CAM [N, h, w] of a layer, at least 0, in units of the logit; one target class per image, in fp32."""
    try:
        from captum.attr import LayerGradCam
    except ImportError:
        raise NotAvailable("Grad-CAM needs captum: pip install 'metaformer-ablate[errors]'") from None
    torch.set_num_threads(run.spec.train.threads)
    net = run.net
    shown = run.augment.normalise(images.to(run.device))
    found = LayerGradCam(net, net.get_submodule(layer)).attribute(
        shown, target=torch.tensor(list(targets), device=run.device), relu_attributions=True
    )
    return found.detach().float().cpu()[:, 0]
