"""Only weights of convolutions are put into channels_last."""

from __future__ import annotations

import torch
from torch import nn

from metaformer_ablate.data.spec import DataSpec
from metaformer_ablate.models.memory_format import laid_out
from metaformer_ablate.tasks.classification.data.augment import Augment


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 6, 3)
        self.up = nn.ConvTranspose2d(6, 4, 2)
        self.complex_weight = nn.Parameter(torch.randn(8, 5, 4, 2))
        self.register_buffer("table", torch.rand(2, 3, 4, 5))


def test_other_weights_of_four_dimensions_keep_their_layout() -> None:
    net = Net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert laid_out(net, "channels_last") is net
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    for weight in (net.convolution.weight, net.up.weight):
        assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    assert net.complex_weight.is_contiguous() and net.get_buffer("table").is_contiguous()
    assert torch.view_as_complex(net.complex_weight).shape == (8, 5, 4)
    assert laid_out(Net(), "contiguous").convolution.weight.is_contiguous()


def test_grey_images_are_contiguous_where_that_is_asked_for() -> None:
    """A batch of one channel may lie both ways at once; its strides say which a convolution takes it for."""
    spec = DataSpec(name="digits", image_size=8)
    images = torch.zeros(3, 8, 8, 1, dtype=torch.uint8).permute(0, 3, 1, 2)
    normal = Augment(spec, 10, (0.5,), (0.5,), "contiguous").normalise(images)
    assert normal.stride() == (64, 64, 8, 1)
    assert nn.Conv2d(1, 4, 3)(normal).is_contiguous()
    assert not nn.Conv2d(1, 4, 3)(images.float()).is_contiguous()
