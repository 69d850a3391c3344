"""A net of the user's own class: built, and tried on two images before anything is trained."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.class_arguments import as_given, of_class
from metaformer_ablate.models.class_file import described, files_of, load_class
from metaformer_ablate.models.class_source import find_source, split_target
from metaformer_ablate.models.spec import ModelSpec
from metaformer_ablate.models.user_components import alone_as_beside

EXPECTED = "images [B, C, H, W] to logits [B, num_classes], one tensor"


def build_own(model: ModelSpec, seed: int, image: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The net of `model.class`, for images [C, H, W]; torch's generator is seeded by the caller.

    Raises RequestError where it cannot be built, or is not a net that gives logits.
    """
    if model.class_place is None:
        raise RequestError(f"{model.own_class}: nothing says where its file is; allowed: --class FILE.py:{model.whole}")
    name, _, digest = str(model.own_class).partition("@")
    found = load_class(model.class_place, digest, "model.class")
    files = files_of(find_source(split_target(model.class_place)[0], "model.class"))
    constructor, args = of_class(found), model.args or {}
    if (problem := constructor.problem(name, args)) is not None:
        raise RequestError(problem[1])
    try:
        with _seeded(seed):
            net: nn.Module = found(**as_given(constructor, args, num_classes=num_classes, in_chans=image[0]))
    except RequestError:
        raise
    except (Exception, SystemExit) as error:
        raise RequestError(f"{name} cannot be built: {described(error, files)}") from None
    _check(net, name, files, image, num_classes, "in_chans" in constructor.names)
    return net


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Python's and NumPy's generators, which a class may draw weights from, follow the seed within."""
    before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def _check(
    net: nn.Module, name: str, files: Iterable[str], image: tuple[int, int, int], num_classes: int, takes_channels: bool
) -> None:
    """Raises RequestError unless the net gives finite logits, in training too, and of an image the same ones in any
    batch."""

    def watch(module: nn.Module, given: Any, output: Any) -> None:
        how = "in training" if module.training else "in evaluation"
        if not isinstance(output, Tensor):
            what = "nothing (is there a return?)" if output is None else f"a {type(output).__name__}"
            if isinstance(output, (tuple, list)):
                what += f" of {len(output)}"
            raise RequestError(f"{name} returns {what} {how}; expected: {EXPECTED}")
        if list(output.shape) != [len(given[0]), num_classes] or not output.is_floating_point():
            found = f"a tensor {list(output.shape)} of {output.dtype}"
            raise RequestError(
                f"{name} returns {found} {how} for {len(given[0])} images and {num_classes} classes; "
                f"expected: {EXPECTED}"
            )

    hook = net.register_forward_hook(watch)
    # Batch norms measure in training; what they have measured is put back.
    before = [(buffer, buffer.clone()) for buffer in net.buffers()]
    try:
        alone_as_beside(net, image, f"{name}", files)
        net.train()
        with torch.no_grad():
            net(torch.rand(2, *image, generator=torch.Generator().manual_seed(0)))
    except RequestError as error:
        if not takes_channels and "cannot run" in str(error):
            raise RequestError(f"{error}; images have {image[0]} channels, and {name} takes no in_chans") from None
        raise
    except (Exception, SystemExit) as error:
        raise RequestError(f"{name} cannot run in training: {described(error, files)}") from None
    finally:
        hook.remove()
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
