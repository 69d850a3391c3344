"""Components of the user's own, tried on random images as a run would compute them, before anything is trained."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from metaformer_ablate.errors import ModelRefused, RequestError
from metaformer_ablate.models.class_file import described, shown_path
from metaformer_ablate.models.components import Component
from metaformer_ablate.models.memory_format import laid_out, torch_format
from metaformer_ablate.models.user_components import class_files, short_names


@dataclass(frozen=True)
class Conditions:
    """How a net is computed: memory format, precision, device."""

    memory_format: str
    bf16: bool
    device: torch.device

    def others(self) -> Iterator[tuple[str, Conditions]]:
        """Settings that ask less of a component, as words of the command line, and what they come to."""
        plain = replace(self, memory_format="contiguous")
        contiguous, fp32 = "train.memory_format=contiguous", "train.precision=fp32"
        if self.memory_format != "contiguous":
            yield contiguous, plain
        if self.bf16:
            yield fp32, replace(self, bf16=False)
            if self.memory_format != "contiguous":
                yield f"{contiguous} {fp32}", replace(plain, bf16=False)


def check_own_parts(
    build: Callable[[], nn.Module], parts: dict[str, Component], image: tuple[int, int, int], under: Conditions
) -> None:
    """Builds a net that holds one's own parts, by name, and passes two random images [C, H, W] there and back.

    Raises ModelRefused unless each part keeps the shape of its input, numbers stay finite, and in eval mode an image
    gives the same logits alone as beside another: else rows would be compared by what a batch holds. Where other
    settings of the training would do, it says which.
    """

    def watched() -> nn.Module:
        net = build()
        _watch_shapes(net, parts)
        return net

    check_own_net(watched, f"the model with {short_names(parts)}", class_files(parts), image, under)


def check_own_net(
    build: Callable[[], nn.Module], of: str, files: Iterable[str], image: tuple[int, int, int], under: Conditions
) -> None:
    """`check_own_parts` of any net of code in `files`, called `of`: all but the shapes within it."""
    try:
        _try(build(), of, files, image, under)
    except RequestError as error:
        for words, other in under.others():
            try:
                _try(build(), of, files, image, other)
            except RequestError:
                continue
            raise ModelRefused(f"{error}; allowed: {words}") from None
        raise ModelRefused(str(error)) from None


def _try(net: nn.Module, of: str, files: Iterable[str], image: tuple[int, int, int], under: Conditions) -> None:
    """Raises RequestError where it fails. The net is not to be used afterwards."""
    net = laid_out(net, under.memory_format).to(under.device).eval()
    images = torch.rand(2, *image, generator=torch.Generator().manual_seed(0)).to(under.device)
    images = images.to(memory_format=torch_format(under.memory_format))

    def logits(images: Tensor) -> Tensor:
        with torch.autocast(under.device.type, torch.bfloat16, under.bf16):
            return _one_tensor(net(images)).float()

    try:
        with torch.no_grad():
            both, alone = logits(images), logits(images[:1])
    except RequestError:
        raise
    except (Exception, SystemExit) as error:
        raise RequestError(f"{of} cannot run: {described(error, files)}") from None
    if not torch.isfinite(both).all():
        raise RequestError(f"{of} gives logits that are not finite")
    near = (2e-2, 2e-2) if under.bf16 else (1e-3, 1e-4)
    if not torch.allclose(both[:1], alone, rtol=near[0], atol=near[1] * float(both.abs().max())):
        raise RequestError(f"{of} gives an image other logits alone than beside another, in eval mode")
    net.train()
    _try_backward(lambda: logits(images).sum(), of, files)


def _watch_shapes(net: nn.Module, parts: dict[str, Component]) -> None:
    names = {part.load(): name.partition("@")[0] for name, part in parts.items()}

    def keep(module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        name, here = names[type(module)], list(inputs[0].shape)
        if not isinstance(output, Tensor):
            found = "nothing (is there a return?)" if output is None else f"a {type(output).__name__}"
            raise RequestError(f"{name}: maps {here} to {found}; allowed: a tensor of the same shape")
        if here != list(output.shape):
            raise RequestError(f"{name}: maps {here} to {list(output.shape)}; allowed: the same shape")

    for module in net.modules():
        if type(module) in names:
            module.register_forward_hook(keep)


def _one_tensor(output: Any) -> Tensor:
    """[B, n]: the logits, or the maps of a backbone side by side."""
    return output if isinstance(output, Tensor) else torch.cat([level.flatten(1) for level in output], dim=1)


def _try_backward(loss: Callable[[], Tensor], of: str, files: Iterable[str]) -> None:
    """Raises RequestError where gradients cannot be computed, with the line whose operator it is."""
    try:
        loss().backward()
        return
    except RequestError:
        raise
    except (Exception, SystemExit) as error:
        found = error
    place = ""
    if isinstance(found, RuntimeError):  # torch's own, which knows no line; it keeps them where it is told to
        with warnings.catch_warnings(record=True) as told, torch.autograd.detect_anomaly(check_nan=False):
            warnings.simplefilter("always")
            try:
                loss().backward()
            except RuntimeError:
                lines = re.findall(r'File "([^"]+)", line (\d+)', "\n".join(str(each.message) for each in told))
                own = [f" ({shown_path(file)}, line {line})" for file, line in lines if file in set(files)]
                place = own[-1] if own else ""
    text = described(found, files).partition(" Hint: ")[0]  # torch's, to find the line
    raise RequestError(
        f"{of} cannot be trained: in its backward pass {text}{'' if text.endswith(')') else place}"
    ) from None
