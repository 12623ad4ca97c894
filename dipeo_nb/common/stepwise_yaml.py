"""YAML as text, by work in a thread that can be cancelled: a hundred thousand values take ten seconds."""

from __future__ import annotations

from typing import Any

import yaml

from dipeo_nb.common import cancellable


class _Dumper(yaml.SafeDumper):
    def represent_data(self, data: Any) -> yaml.Node:
        cancellable.check()
        return super().represent_data(data)

    def serialize_node(self, node: Any, parent: Any, index: Any) -> None:
        cancellable.check()
        super().serialize_node(node, parent, index)


def dumps(value: Any) -> str:
    """A value as `yaml.safe_dump` writes it: mappings in their order, letters of all languages as they are."""
    return yaml.dump(value, Dumper=_Dumper, allow_unicode=True, sort_keys=False)
