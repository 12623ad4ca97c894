"""A diagram whose only work is another one."""

from __future__ import annotations


def parent_of(child: str) -> str:
    """A diagram with the one of this file as its node Sub."""
    return f"""\
version: light
nodes:
  - {{label: S, type: start}}
  - {{label: Sub, type: sub_diagram, props: {{diagram_name: {child}}}}}
  - {{label: E, type: endpoint}}
connections:
  - {{from: S, to: Sub}}
  - {{from: Sub, to: E}}
"""
