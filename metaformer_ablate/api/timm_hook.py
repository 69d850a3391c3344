"""Has timm's `create_model` know this package's models, whichever of the two is imported first. Loads neither."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_REGISTRY = "timm.models"


class RegisterWithTimm(MetaPathFinder):
    """Waits for the import of timm's registry, and registers the models once it has ended. timm has no plugins."""

    @classmethod
    def install(cls, finders: list[Any]) -> None:
        """Registers at once where timm is there already; else puts itself first among the finders of imports."""
        if _REGISTRY in sys.modules:
            _register()
        elif not any(isinstance(finder, cls) for finder in finders):
            finders.insert(0, cls())

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _REGISTRY:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def and_register(module: ModuleType) -> None:
                execute(module)
                _register()

            spec.loader.exec_module = and_register  # type: ignore[method-assign]
        return spec


def _register() -> None:
    from metaformer_ablate.api.timm_models import register_models

    register_models()
