"""Every row of every experiment trains: three steps at full width, one block a stage, a gradient everywhere."""

from __future__ import annotations

import pytest
import torch
from conftest import REPOSITORY
from specs import build_net
from torch.nn import functional as F

from metaformer_ablate.models.comparators.pvt import PVT, PVT_SIZES
from metaformer_ablate.models.comparators.swin_mixer import SWIN_MIXER_SIZES, SwinMixer
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.training.optim import weight_decay_groups

QUICK = ("table5", "pooling_size")
# Not run by CI: each takes up to half a minute there, and a smaller one of its kind is.
LARGE = ("resmlp_b24", "gmlp_b16_224", "swin_mixer_b_d24", "resnet152")
LARGE += ("resnext101_64x4d", "randformer_m36", "randformer_m48", "poolformerv2_m48")


def rows() -> list:
    """Each resolved model once, under the recipe whose geometry and widths are the paper's."""
    seen, found = set(), []
    for path in sorted((REPOSITORY / "experiments").glob("*.yaml"), key=lambda path: path.stem not in QUICK):
        for row, spec in plan(path.stem, "imagenet").specs.items():
            if spec.model not in seen:
                seen.add(spec.model)
                mark = [] if path.stem in QUICK else [pytest.mark.slow, *([pytest.mark.fuzz] if row in LARGE else [])]
                found.append(pytest.param(spec, id=f"{path.stem}-{row}", marks=mark))
    return found


def shallow(spec: RunSpec) -> tuple[torch.nn.Module, int]:
    """The row's model with one block a stage, where its depth can be set, and an image size it takes."""
    model = spec.model
    size = 64
    if model.comparator and model.comparator in SWIN_MIXER_SIZES:
        size = 224 if "_b_" in model.comparator else 128
        return SwinMixer(**{**SWIN_MIXER_SIZES[model.comparator], "depths": (2, 2, 2, 2)}, image_size=size), size
    if model.comparator and model.comparator in PVT_SIZES:
        return PVT(**{**PVT_SIZES[model.comparator], "depths": (1, 1, 1, 1)}, image_size=size), size
    if model.timm and model.timm.startswith(("vit", "deit")):  # of the others timm fixes the depth by the name
        import timm

        return timm.create_model(model.timm, img_size=size, depth=1), size
    if model.depths:
        model = model.model_copy(update={"depths": (1,) * len(model.depths)})
    data = spec.data.model_copy(update={"image_size": size})
    return build_net(spec.model_copy(update={"model": model, "data": data})), size


@pytest.mark.parametrize("spec", rows())
def test_a_row_trains(spec):
    torch.manual_seed(0)
    net, size = shallow(spec)
    net.train()
    optimizer = torch.optim.AdamW(weight_decay_groups(net, 0.05), lr=1e-4)
    labels = torch.arange(4)
    for _ in range(3):
        loss = F.cross_entropy(net(torch.randn(4, 3, size, size)), labels)
        assert loss.isfinite()
        optimizer.zero_grad()
        loss.backward()
        for name, parameter in net.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        optimizer.step()
    # Heads of zeros keep the first gradient from the body; by the third step something arrives everywhere.
    still = [n for n, p in net.named_parameters() if p.requires_grad and not p.grad.any()]
    if spec.model.depths:
        assert not still


@pytest.mark.parametrize("recipe", ["digits", "fashion_mnist", "cifar10", "cifar100", "imagenet"])
def test_every_row_builds_under_every_recipe_or_says_why_not(recipe):
    for path in sorted((REPOSITORY / "experiments").glob("*.yaml")):
        chosen = plan(path.stem, recipe)
        assert chosen.specs.keys() | chosen.not_applicable.keys() == chosen.experiment.rows.keys()
        if path.stem == "table5":
            assert not chosen.not_applicable
            for spec in chosen.specs.values():
                build_net(spec)
        for why in chosen.not_applicable.values():
            assert "takes images of" in why or "leaves less" in why
