"""A net of the user's own class: built, and tried on two images before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from metaformer_ablate.errors import ModelRefused, RequestError
from metaformer_ablate.models.class_arguments import as_given, of_class
from metaformer_ablate.models.class_file import described, files_of, load_class
from metaformer_ablate.models.class_source import find_source, split_target
from metaformer_ablate.models.own_checks import Conditions, check_own_net
from metaformer_ablate.models.spec import ModelSpec

EXPECTED = "images [B, C, H, W] to logits [B, num_classes], one tensor"


def build_own(model: ModelSpec, channels: int, num_classes: int) -> nn.Module:
    """The net of `model.class`; generators are seeded by the caller.

    Raises RequestError where it cannot be built.
    """
    found, args = _class(model), model.args or {}
    constructor = of_class(found)
    if (problem := constructor.problem(str(model.whole), args)) is not None:
        raise RequestError(problem[1])
    try:
        return found(**as_given(constructor, args, num_classes=num_classes, in_chans=channels))
    except RequestError:
        raise
    except (Exception, SystemExit) as error:
        raise RequestError(f"{model.whole} cannot be built: {described(error, _files(model))}") from None


def _class(model: ModelSpec) -> Any:
    if model.class_place is None:
        raise RequestError(f"{model.own_class}: nothing says where its file is; allowed: --class FILE.py:{model.whole}")
    return load_class(model.class_place, str(model.own_class).partition("@")[2], "model.class")


def _files(model: ModelSpec) -> list[str]:
    return files_of(find_source(split_target(str(model.class_place))[0], "model.class"))


def check_own_class(
    build: Callable[[], nn.Module],
    model: ModelSpec,
    image: tuple[int, int, int],
    num_classes: int,
    under: Conditions,
) -> None:
    """Tries a net of `model.class` on two images [C, H, W] as a run computes them.

    Raises ModelRefused unless it gives finite logits, in training too, of an image the same ones in any batch, and has
    gradients.
    """
    name = str(model.whole)

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

    def watched() -> nn.Module:
        net = build()
        net.register_forward_hook(watch)
        return net

    try:
        check_own_net(watched, name, _files(model), image, under)
    except ModelRefused as error:
        if "in_chans" not in of_class(_class(model)).names and "cannot run" in str(error):
            said = f"{error}; images have {image[0]} channels, and {name} takes no in_chans"
            raise ModelRefused(said) from None
        raise
