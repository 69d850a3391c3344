"""YAML that `yaml_reader` reads as the same values, its keys in the order given."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq


def dump(tree: Any) -> str:
    """Plain values as YAML: a mapping has a key per line, a list of sentences one for each, other lists are on one."""
    yaml = YAML(pure=True)
    yaml.default_flow_style = None
    yaml.width = 120
    stream = io.StringIO()
    yaml.dump(_styled(tree), stream)
    return stream.getvalue()


def _styled(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _styled(each) for key, each in value.items()}
    if not isinstance(value, list):
        return value
    styled = CommentedSeq(_styled(each) for each in value)
    if any(isinstance(each, str) and " " in each for each in value):
        styled.fa.set_block_style()
    elif not any(isinstance(each, (list, Mapping)) for each in value):
        styled.fa.set_flow_style()
    return styled
