"""Importing jsonschema: without the grammar of international URLs, until a value needs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SYNTAX = """
from_module = __name__
def is_valid_syntax(term, value): return term == "iri" and value == "https://xn--e.org"
VERSION = "1"
"""
PROBE = """
import sys
from dipeo_nb.common import json_schema
json_schema.load()
assert "rfc3987_syntax" not in sys.modules
from jsonschema import Draft202012Validator as Draft
from dipeo_nb.diagram.schema_check import validator
validator({"type": "object"}, format_checker=True).validate({})
assert "rfc3987_syntax" not in sys.modules, "a schema without that format needs it"
check = validator({"format": "iri"}, format_checker=True)
print(check.is_valid("https://xn--e.org"), check.is_valid("no iri"), "rfc3987_syntax" in sys.modules)
import rfc3987_syntax
print(rfc3987_syntax.VERSION, rfc3987_syntax.from_module)
"""


def probe(folder: Path, **syntax: str) -> str:
    for name, text in syntax.items():
        (folder / f"{name}.py").write_text(text)
    code = f"import sys; sys.path.insert(0, {str(folder)!r})\n{PROBE}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_grammar_is_imported_by_the_first_value_that_needs_it(tmp_path: Path) -> None:
    """With the format `iri` it counts as ever; others that import it get the real one."""
    (tmp_path / "rfc3987.py").write_text("raise ImportError")  # another package that would take its place
    assert probe(tmp_path, rfc3987_syntax=SYNTAX) == "True False True\n1 rfc3987_syntax\n"


def test_modules_that_were_imported_before_are_left_alone(tmp_path: Path) -> None:
    """Whoever has the grammar or jsonschema already keeps it."""
    (tmp_path / "rfc3987_syntax.py").write_text(SYNTAX)
    for first in ("rfc3987_syntax", "jsonschema"):
        code = (
            f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {first}; before = sys.modules[{first!r}]\n"
            "from dipeo_nb.common import json_schema; json_schema.load(); import jsonschema\n"
            f"assert sys.modules[{first!r}] is before"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
