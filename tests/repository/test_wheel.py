"""The wheel, as a stranger gets it: built here, installed into an empty environment, put to work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.cli import HELLO

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.wheel, pytest.mark.slow]


def call(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "DIPEO_", "VIRTUAL_ENV"))}
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, cwd=cwd, env=clean, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    out = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, cwd=ROOT)
    (found,) = out.glob("*.whl")
    return found


def test_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    """Scripts, styles, fonts, diagrams and licences ship: the wheel has what dipeo_nb/ has, and nothing else."""
    source = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "dipeo_nb").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    shipped = {name for name in names if ".dist-info/" not in name}
    assert shipped == source
    suffixes = {Path(name).suffix for name in shipped}
    assert {".py", ".yaml", ".js", ".css"} <= suffixes
    assert suffixes & {".otf", ".ttf"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_wheel_runs_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """Installed with its bare dependencies, the command runs, draws and checks a diagram, and the package imports."""
    home = tmp_path / "env"
    venv.create(home, with_pip=True)
    python, command = home / "bin/python", home / "bin/dipeo-nb"
    call(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    (work / "hello.light.yaml").write_text(HELLO)

    ran = json.loads(
        call(command, "run", "hello.light.yaml", "--model", "echo", "--input", "name=Bo", "--json", cwd=work).stdout
    )
    assert ran["status"] == "completed"
    assert "Bo" in ran["outputs"]["End"]
    assert json.loads(call(command, "demo", "--model", "echo", "--json", cwd=work).stdout)["node_runs"]["Grump"] == 2
    call(command, "render", "hello.light.yaml", "-o", "hello.png", cwd=work)
    assert (work / "hello.png").read_bytes().startswith(b"\x89PNG")
    place = call(python, "-c", "import dipeo_nb; print(dipeo_nb.__file__)", cwd=work).stdout
    assert place.startswith(str(home))
