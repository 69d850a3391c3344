"""PVT and Swin-Mixer against the tables of their papers and against numbers that their authors' code gave."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from golden import fill, image
from specs import build_net, spec_of
from torch import nn

from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.comparators import pvt, swin_mixer
from metaformer_ablate.models.comparators.pvt import PVT, PVT_SIZES
from metaformer_ablate.models.comparators.swin_mixer import SWIN_MIXER_SIZES, SwinMixer

BUILDERS: dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]] = {
    **{name: (PVT, arguments) for name, arguments in PVT_SIZES.items()},
    **{name: (SwinMixer, arguments) for name, arguments in SWIN_MIXER_SIZES.items()},
}
TRAINED_AT = {name: 256 if name.startswith("swin_mixer_t") else 224 for name in BUILDERS}

# Parameters in M and MACs in G as printed: PVT by its authors, Swin-Mixer in the Swin paper. The MetaFormer
# paper prints the same in whole millions, and 25 for PVT-Small: 24.486 rounded to 24.5, and that once more.
PRINTED = {
    "pvt_tiny": ("13.2", "1.9"),
    "pvt_small": ("24.5", "3.8"),
    "pvt_medium": ("44.2", "6.7"),
    "pvt_large": ("61.4", "9.8"),
    "swin_mixer_t_d24": ("20", "4.0"),
    "swin_mixer_t_d6": ("23", "4.0"),
    "swin_mixer_b_d24": ("61", "10.4"),
}

# The first four logits of the authors' code (whai362/PVT at 57e2dfa, microsoft/Swin-Transformer at f82860b;
# in float64, within 2e-6 of its float32) with the weights of `fill`, renamed into their model, for `image`.
AUTHORS_LOGITS: dict[tuple[str, int], tuple[float, float, float, float]] = {
    ("pvt_tiny", 64): (-0.490106925, 0.270165381, -0.275671040, -0.322016601),
    ("pvt_tiny", 224): (-0.377078139, -0.090359481, -0.063024630, 0.043805813),
    ("pvt_small", 224): (-0.095989292, -0.130313105, 0.004240339, 0.385601510),
    ("pvt_medium", 224): (0.059918162, -0.171644193, -0.161836765, 0.503187769),
    ("pvt_large", 224): (0.278047896, -0.442651337, -0.269650700, 0.092286480),
    ("swin_mixer_t_d24", 64): (0.102984481, -0.030291496, -0.122585182, -0.124343594),
    ("swin_mixer_t_d24", 256): (-0.004726204, -0.014391136, 0.068175277, 0.009106496),
    ("swin_mixer_t_d6", 64): (0.087552467, 0.178908497, 0.218969147, -0.173117263),
    ("swin_mixer_t_d6", 256): (0.011666082, -0.061908838, 0.024572940, -0.044945011),
    ("swin_mixer_b_d24", 224): (-0.076540352, -0.038951279, 0.109036840, 0.071689630),
}


def build(name: str, image_size: int | None = None, **changes: Any) -> nn.Module:
    builder, arguments = BUILDERS[name]
    return builder(**{**arguments, **changes}, image_size=image_size or TRAINED_AT[name])


def reduced(name: str, **changes: Any) -> nn.Module:
    """Two blocks a stage, 64 x 64 images, 5 classes.

    The maps are 16, 8, 4 and 2 wide: PVT's attention has several keys everywhere (with one, no gradient
    reaches the queries), and Swin-Mixer shifts its windows of 4 in two stages and takes the whole map in two.
    """
    window = {"window": 4} if name in SWIN_MIXER_SIZES else {}
    return build(name, 64, depths=(2, 2, 2, 2), num_classes=5, **window, **changes)


def macs(name: str) -> float:
    """MACs of one image, without those of the norms: with them Swin-Mixer-T would round to 4.1."""

    def attention(inputs: list[Any], outputs: list[Any]) -> float:
        batch, heads, queries, dim = inputs[0].type().sizes()
        return 2 * batch * heads * queries * inputs[1].type().sizes()[2] * dim

    size = TRAINED_AT[name]
    analysis = FlopCountAnalysis(build(name).eval(), torch.zeros(1, 3, size, size))
    analysis.set_op_handle("aten::scaled_dot_product_attention", attention)
    analysis.set_op_handle("aten::layer_norm", lambda inputs, outputs: 0)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return analysis.total()


def as_printed(value: float, printed: str) -> str:
    return f"{value:.{len(printed.partition('.')[2])}f}"


@pytest.mark.parametrize("name", BUILDERS)
def test_parameters_are_those_of_the_paper(name: str) -> None:
    millions = sum(parameter.numel() for parameter in build(name).parameters()) / 1e6
    assert as_printed(millions, PRINTED[name][0]) == PRINTED[name][0]


@pytest.mark.parametrize("name", BUILDERS)
def test_macs_are_those_of_the_paper(name: str) -> None:
    assert as_printed(macs(name) / 1e9, PRINTED[name][1]) == PRINTED[name][1]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param(name, size, marks=[pytest.mark.slow] if name == "swin_mixer_b_d24" else [])
        for name, size in AUTHORS_LOGITS
    ],
)
def test_logits_are_those_of_the_authors_code(name: str, size: int) -> None:
    model = build(name, size).eval()
    fill(model)
    expected = torch.tensor([AUTHORS_LOGITS[name, size]], dtype=torch.float64)
    with torch.no_grad():
        single = model(image(size))
        double = model.double()(image(size).double())
    torch.testing.assert_close(single[:, :4].double(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(double[:, :4], expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["pvt_tiny", "swin_mixer_t_d24"])
def test_weights_start_as_the_authors_do(name: str) -> None:
    """Linear layers and embeddings normal with 0.02, convolutions at PyTorch's default, norms 1, biases 0."""
    for parameter_name, parameter in build(name, 64).named_parameters():
        if parameter.ndim == 4:
            bound = 1 / math.sqrt(parameter[0].numel())
            assert parameter.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1), parameter_name
        elif parameter.ndim > 1:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.15), parameter_name
        elif "norm" in parameter_name and parameter_name.endswith("weight"):
            assert parameter.eq(1).all(), parameter_name
        elif not parameter_name.endswith(("embedding.bias", "projection.bias", "reduction.bias")):
            assert parameter.eq(0).all(), parameter_name


@pytest.mark.parametrize("name", ["pvt_tiny", "swin_mixer_t_d24", "swin_mixer_t_d6"])
def test_gradient_reaches_every_parameter(name: str) -> None:
    model = reduced(name, drop_path=0.0)
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", ["pvt_tiny", "swin_mixer_t_d24", "swin_mixer_t_d6"])
def test_a_sample_alone_gives_what_it_gives_in_a_batch(name: str) -> None:
    model = reduced(name, drop_path=0.5).eval()
    fill(model)
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        batch = model(images)
        alone = torch.cat([model(sample[None]) for sample in images])
    assert batch.shape == (3, 5)
    torch.testing.assert_close(alone, batch, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "module"), [("pvt_tiny", pvt), ("swin_mixer_t_d24", swin_mixer)])
def test_stochastic_depth_grows_linearly(name: str, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []

    class Recorder(nn.Identity):
        def __init__(self, rate: float) -> None:
            super().__init__()
            rates.append(rate)

    monkeypatch.setattr(module, "StochasticDepth", Recorder)
    reduced(name, drop_path=0.7)
    assert rates == pytest.approx([0.1 * block for block in range(8)])


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("pvt_tiny", 100, "image_size must be a multiple of 32, .*, not 100$"),
        ("pvt_tiny", -32, "image_size must be a multiple of 32, .*, not -32$"),
        ("swin_mixer_t_d24", 224, r"multiple of 32 .* windows of 8 x 8 .*nearest is 128 or 256\), not 224$"),
        ("swin_mixer_b_d24", 100, r"multiple of 32 .* windows of 7 x 7 .*nearest is 224\), not 100$"),
    ],
)
def test_an_image_size_that_does_not_fit_is_named(name: str, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, size)


@pytest.mark.parametrize("name", ["pvt_tiny", "swin_mixer_t_d24"])
def test_images_of_another_size_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"images must be 64 x 64, .*, not 32 x 64$"):
        reduced(name)(torch.zeros(1, 3, 32, 64))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("pvt_tiny", {"depths": (2, 2, 2)}, "must hold one number per stage each, not 3, 4, 4, 4, 4, 4"),
        ("pvt_tiny", {"num_heads": (1, 2, 3, 8)}, "multiples of num_heads, and 320 is not one of 3"),
        ("pvt_tiny", {"sr_ratios": (8, 4, 2, 2)}, "sr_ratios must end with 1, .*, not with 2"),
        ("swin_mixer_t_d24", {"depths": (2, 2, 6)}, "one number per stage each, not 3 and 4"),
        ("swin_mixer_t_d24", {"num_heads": (4, 8, 16, 31)}, "multiples of num_heads, and 768 is not"),
        ("swin_mixer_t_d24", {"window": 0}, "window must be at least 1, not 0"),
    ],
)
def test_contradictory_stages_are_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, **changes)


def test_a_model_of_timm_without_stochastic_depth_is_built_where_none_is_asked_for() -> None:
    words = ("model.timm=densenet121", "data.image_size=32")
    assert type(build_net(spec_of(words=words))).__name__ == "DenseNet"
    with pytest.raises(
        RequestError, match=r"drop_path is 0\.1, but timm's densenet121 has no stochastic depth; allowed: 0"
    ):
        build_net(spec_of(words=(*words, "model.drop_path=0.1")))


def test_a_set_of_weights_is_no_model() -> None:
    """timm's name with a tag builds the model without it: the row would be the plain one under another label."""
    with pytest.raises(
        RequestError, match=r"'resnet18.a1_in1k' .a string.; allowed: resnet18; a1_in1k is one of its sets of w"
    ):
        spec_of(words=("model.timm=resnet18.a1_in1k",))
