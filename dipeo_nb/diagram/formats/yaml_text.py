"""Writes YAML: positions and connections on one line, long text as blocks, never an alias."""

from __future__ import annotations

from typing import Any

import yaml

try:
    from yaml import CSafeDumper as _Dumper
except ImportError:  # PyYAML built without libyaml
    from yaml import SafeDumper as _Dumper  # type: ignore[assignment]


class Flow(dict[str, Any]):
    """A mapping that is written on one line, `{x: 1, y: 2}`."""


def dump(document: Any, *, width: int = 120) -> str:
    """YAML text of plain data, keys in the order given, lines of at most *width* characters where blanks allow."""
    return yaml.dump(document, Dumper=_BlockDumper, allow_unicode=True, sort_keys=False, width=width)


def dump_flow(value: Any) -> str:
    """A value on one line, fit for a flow collection: `{x: 1, y: 2}`, `'a, b'`, `"a\\nb"`."""
    # The list around it makes the writer mind the commas and brackets of the flow style.
    text: str = yaml.dump(
        [value], Dumper=_FlowDumper, allow_unicode=True, sort_keys=False, width=10**9, default_flow_style=True
    )
    return text.removesuffix("\n")[1:-1]


class _BlockDumper(_Dumper):  # pyright: ignore[reportGeneralTypeIssues]
    def ignore_aliases(self, data: Any) -> bool:
        return True


class _FlowDumper(_BlockDumper):
    pass


def _text(dumper: Any, value: str) -> Any:
    # Other line breaks than \n would come back as \n from a block.
    block = "\n" in value and not any(c in value for c in "\r\x85\u2028\u2029")
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if block else None)


def _quoted(dumper: Any, value: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"' if "\n" in value else None)


def _list(dumper: Any, value: list[Any]) -> Any:
    pair = len(value) == 2 and all(isinstance(item, bool) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=pair)


def _flow(dumper: Any, value: Flow) -> Any:
    return dumper.represent_mapping("tag:yaml.org,2002:map", value, flow_style=True)


_BlockDumper.add_representer(str, _text)
_BlockDumper.add_multi_representer(str, _text)  # enum members
_BlockDumper.add_representer(list, _list)
_BlockDumper.add_representer(tuple, _list)
_BlockDumper.add_representer(Flow, _flow)
_FlowDumper.add_representer(str, _quoted)
_FlowDumper.add_representer(list, _Dumper.represent_list)
