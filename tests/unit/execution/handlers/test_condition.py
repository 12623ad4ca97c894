"""condition: errors of one that runs before all of its inputs are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from dipeo_nb.errors import RunError
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted

TWO_ARROWS = """
version: light
nodes:
- {label: Start, type: start}
- {label: Left, type: code_job, code: "return 'a'"}
- {label: Right, type: code_job, code: "return 'b'"}
- {label: Choose, type: condition, expression: "EXPRESSION"}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Left}
- {from: Left, to: Choose, label: left}
- {from: Left, to: Right}
- {from: Right, to: Choose, label: right}
- {from: "Choose[condtrue]", to: End}
"""


@pytest.mark.parametrize("expression", ["right.lower() == 'b'", "left + right == 'ab'"])
def test_a_name_that_has_not_come_yet_is_explained(tmp_path: Path, expression: str) -> None:
    """A condition runs for each value that reaches it. A failure because of that says so, and what to do."""
    with Session(tmp_path, llm=scripted()) as dp, pytest.raises(RunError) as caught:
        dp.run(TWO_ARROWS.replace("EXPRESSION", expression), view=False)
    hint = str(caught.value.hint)
    assert "A condition runs for each value that reaches it: 'right' had not come from 'Right' yet." in hint
    assert "one node before the condition" in hint


def test_other_errors_keep_their_hints(tmp_path: Path) -> None:
    """The name comes by no arrow: the hint is that of the expression."""
    with Session(tmp_path, llm=scripted()) as dp, pytest.raises(RunError) as caught:
        dp.run(TWO_ARROWS.replace("EXPRESSION", "rihgt.lower() == 'b'"), view=False)
    assert "runs for each value" not in str(caught.value.hint)
