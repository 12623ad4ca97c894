"""Scripts that shells and hooks run after a yes: what was shown runs, whatever the disk has by then
(execution/shown_scripts.py, diagram/shell_words.py)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.diagram.shell_words import commands, invocations, moves
from dipeo_nb.errors import CodeError, NotGrantedError
from dipeo_nb.notebook.session import Session
from dipeo_nb.runtime import Prepared
from tests.support.untrusted_folder import MARK, base, files, light, node, output, session, write

__all__ = ["base", "session"]  # fixtures

LIB = 'say() { echo "$1"; }\n'


def hook(command: str, **config: Any) -> dict[str, Any]:
    return node("hook", hook_type="shell", command=command, config=config)


def bash(code: str, language: str = "bash") -> dict[str, Any]:
    return node("code_job", language=language, code=code)


CERTAIN: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "by a shell": (hook("sh x.sh a 'b c'"), {"x.sh": 'echo "$0 $# $2"'}, "x.sh 2 b c"),
    "by a shell with options": (hook("bash -e -o pipefail ./x.sh a"), {"x.sh": 'echo "$0 $-$1"'}, "./x.sh ehBca"),
    "by itself": (hook("./x.sh a"), {"x.sh": '#!/bin/sh -u\necho "$0 $1 $PWD"'}, "./x.sh a {base}"),
    "by itself, without a first line": (hook("./x a"), {"x": 'echo "$0 $1"'}, "./x a"),
    "by itself, by env": (hook("./x.sh"), {"x.sh": "#!/usr/bin/env bash\n[[ $0 == ./x* ]] && echo yes"}, "yes"),
    "by itself, Python": (
        hook("./t.py a"),
        {"t.py": "#!/usr/bin/env python3\nimport sys\nprint(sys.argv, __file__)"},
        "['./t.py', 'a'] {base}/./t.py",
    ),
    "absolute": (hook("sh {base}/x.sh"), {"x.sh": 'echo "$0"'}, "{base}/x.sh"),
    "arguments as a list": (hook("sh", args=["x.sh", "b c"]), {"x.sh": 'echo "$0 $1"'}, "x.sh b c"),
    "program as a list": (hook("./x.sh", args=["b c"]), {"x.sh": '#!/bin/sh\necho "$0 $1"'}, "./x.sh b c"),
    "in a folder": (hook("sh ./x.sh", cwd="sub"), {"sub/x.sh": 'echo "$0"; cat n.txt', "sub/n.txt": "1"}, "./x.sh\n1"),
    "sourced": (hook(". ./lib.sh; say 1"), {"lib.sh": LIB}, "1"),
    "sourced by bash": (bash("declare -A m=([a]=1)\nsource lib.sh\nsay ${m[a]}"), {"lib.sh": LIB}, "1"),
    "sourced by a script beside it": (
        hook("sh sub/x.sh"),
        {"sub/x.sh": '. "$(dirname "$0")/lib.sh"\nsay 1', "sub/lib.sh": LIB},
        "1",
    ),
    "sourced by bash beside it": (
        hook("bash sub/x.sh"),
        {"sub/x.sh": 'source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"\nsay 1', "sub/lib.sh": LIB},
        "1",
    ),
    "sourced by a sourced one": (
        hook("bash sub/x.sh"),
        {"sub/x.sh": '. "${0%/*}/a.sh"\nsay 1', "sub/a.sh": '. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"', "sub/lib.sh": LIB},
        "1",
    ),
    "only when it is run": (hook("bash ./x.sh"), {"x.sh": '[[ "${BASH_SOURCE[0]}" == "$0" ]] && echo main'}, "main"),
    "not when it is sourced": (bash('. ./x.sh; echo "$?"'), {"x.sh": '[[ "${BASH_SOURCE[0]}" == "$0" ]] && echo main\n:'}, "0"),
    "data beside it": (hook("sh sub/x.sh"), {"sub/x.sh": 'cat "$(dirname "$0")/n.txt"', "sub/n.txt": "1"}, "1"),
    "in a script of a job": (bash("sub/x.sh"), {"sub/x.sh": 'echo "$0"; . ./lib.sh; say 1', "sub/lib.sh": LIB}, "x.sh\n1"),
    "beside a script of a job": (bash("sub/x.sh"), {"sub/x.sh": '. "$(dirname "$0")/lib.sh"; say 1', "sub/lib.sh": LIB}, "1"),
    "run by a script": (hook("sh x.sh"), {"x.sh": "sh y.sh 1", "y.sh": 'echo "$0$1"'}, "y.sh1"),
    "in a substitution": (hook('echo "got $(sh x.sh)"'), {"x.sh": "echo 1"}, "got 1"),
    "in a text for a shell": (hook("bash -c 'sh x.sh; echo \"$0\"' name"), {"x.sh": "echo 1"}, "1\nname"),
    "in a condition": (hook("if sh x.sh; then echo 1; fi"), {"x.sh": "true"}, "1"),
    "with variables": (hook("A=1 sh x.sh"), {"x.sh": "echo $A"}, "1"),
    "standard input": (hook("echo 1 | sh x.sh"), {"x.sh": "cat"}, "1"),
    "exit status": (hook("sh x.sh || echo $?"), {"x.sh": "exit 7"}, "7"),
    "Python": (
        hook("python3 t.py a"),
        {"t.py": "import sys, helper\nprint(sys.argv[1:], helper.x, __name__)", "helper.py": "x = 1"},
        "['a'] 1 __main__",
    ),
    "Python in a folder": (
        hook("python3 -u sub/t.py"),
        {"sub/t.py": "import helper\nprint(helper.x)", "sub/helper.py": "x = 1"},
        "1",
    ),
    "module": (
        hook("python3 -m pkg.tool a"),
        {"pkg/tool.py": "import sys\nprint(sys.argv[1:], __name__)", "pkg/__init__.py": ""},
        "['a'] __main__",
    ),
    "module as a list": (
        hook("python3", args=["-m", "tool"]),
        {"tool.py": "import helper\nprint(helper.x)", "helper.py": "x = 1"},
        "1",
    ),
    "after cd": (
        hook("cd sub && sh ./x.sh a | cat"),
        {"sub/x.sh": 'echo "$0 $1"; . ./lib.sh; say "$(cat n.txt)"', "sub/lib.sh": LIB, "sub/n.txt": "1"},
        "./x.sh a\n1",
    ),
    "after cd, up": (hook("cd ../b && . ./lib.sh && say 1", cwd="a"), {"b/lib.sh": LIB, "a/n.txt": ""}, "1"),
    "after cd, Python": (
        hook("cd 'a b' && python3 -u t.py"),
        {"a b/t.py": "import helper\nprint(helper.x)", "a b/helper.py": "x = 1"},
        "1",
    ),
    "after cd, module": (
        hook("cd sub && python3 -m tool"),
        {"sub/tool.py": "import helper\nprint(helper.x)", "sub/helper.py": "x = 1"},
        "1",
    ),
    "after cd, run by a script": (hook("cd . && sh x.sh"), {"x.sh": "sh y.sh", "y.sh": "echo 1"}, "1"),
    "same name before and after cd": (hook("cd sub && sh x.sh"), {"x.sh": "echo no", "sub/x.sh": "echo 1"}, "1"),
    "one line of a job, ending in a script": (bash("cd 'a b' && python3 -u t.py"), {"a b/t.py": "print(1)"}, "1"),
    "one line of a job, a script": (bash("sh ./x.sh"), {"x.sh": "echo 1"}, "1"),
    "one line of a job, the name of a script": (bash("sub/x.sh"), {"sub/x.sh": "echo 1"}, "1"),
    "long": (hook("sh x.sh a"), {"x.sh": f"#{'x' * 120_000}\necho $1"}, "a"),
    "not UTF-8": (hook("sh x.sh"), {"x.sh": "#\udcff\necho 1"}, "1"),
}
"""Case → (node, files, what it prints). After the yes the files of code are others."""


def prepared(session: Session, base: Path, made: dict[str, Any], contents: dict[str, str]) -> Prepared:
    for name, text in contents.items():
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        path.chmod(0o755)
    text = {**made, "props": {k: v.replace("{base}", str(base)) if isinstance(v, str) else v for k, v in made["props"].items()}}
    return session.runtime.prepare(write(base, light(text)), trust=True)


@pytest.mark.parametrize("case", CERTAIN)
def test_what_was_shown_runs(session: Session, base: Path, case: str) -> None:
    """And sees `$0`, arguments, its folder and what lies beside it as always."""
    assert len(CERTAIN) >= 30
    made, contents, printed = CERTAIN[case]
    ready = prepared(session, base, made, contents)
    for name in contents:
        if not name.endswith(".txt"):
            (base / name).write_text(f"#!/bin/sh\ntouch {MARK}\n")
    assert str(output(session, ready)) == printed.replace("{base}", str(base))
    assert not (base / MARK).exists()


@pytest.mark.parametrize(
    "case", [case for case, (made, contents, _) in CERTAIN.items() if "$0" in f"{made}{contents}" or "argv" in f"{contents}"]
)
def test_a_trusted_folder_says_the_same(session: Session, base: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There, scripts are run as they are on the disk."""
    made, contents, printed = CERTAIN[case]
    session.runtime.trust.trust_folder(base)
    ready = prepared(session, base, made, contents)
    if case != "by a shell with options":  # `$-` says how a shell was started
        assert str(output(session, ready)) == printed.replace("{base}", str(base))


UNCERTAIN: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "after cd that may fail": (hook("cd sub; sh ./x.sh"), {"x.sh": "true", "sub/x.sh": "true"}),
    "after cd or otherwise": (hook("cd sub && true || sh x.sh"), {"sub/x.sh": "true", "x.sh": "true"}),
    "after cd with variables": (hook("cd sub && sh x.sh", env={"CDPATH": "other"}), {"x.sh": "true", "sub/x.sh": "true"}),
    "after two cd": (hook("cd sub && cd . && sh x.sh"), {"x.sh": "true", "sub/x.sh": "true"}),
    "folder in a variable": (bash('D="$(dirname "$0")"\n. "$D/lib.sh"'), {"lib.sh": "true"}),
    "in backticks": (hook("echo `sh x.sh`"), {"x.sh": "true"}),
    "argument of a program": (hook("echo x.sh | xargs -n1 sh"), {"x.sh": "true"}),
    "standard input": (hook("sh < x.sh"), {"x.sh": "true"}),
    "printed into a shell": (hook("cat x.sh | sh"), {"x.sh": "true"}),
    "Makefile": (hook("make -s -f all.mk || true; make -f x.mk"), {"x.mk": "all:\n\t@true\n"}),
    "runs itself": (hook("sh x.sh"), {"x.sh": '[ -n "$1" ] || sh x.sh again'}),
    "a script that a script names": (hook("cd .; sh x.sh"), {"x.sh": "sh y.sh", "y.sh": "true"}),
}
"""Case → (node, files): which file is meant shows only when it runs."""


@pytest.mark.parametrize("case", UNCERTAIN)
def test_what_may_be_meant_is_compared(session: Session, base: Path, case: str) -> None:
    made, contents = UNCERTAIN[case]
    output(session, prepared(session, base, made, contents))
    ready = prepared(session, base, made, contents)
    name = list(contents)[-1]
    (base / name).write_text(f"touch {MARK}")
    with pytest.raises(NotGrantedError, match="has changed since it was shown") as caught:
        output(session, ready)
    assert caught.value.facts["what"] == name
    assert not (base / MARK).exists()


ENVIRONMENTS: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "read by bash as it starts": (hook("bash -c true", env={"BASH_ENV": "lib.sh"}), {"lib.sh": "true"}, "lib.sh"),
    "program by PATH": (hook("tool", env={"PATH": "bin:/usr/bin:/bin"}), {"bin/tool": "#!/bin/sh\n"}, "bin/tool"),
    "program by an absolute PATH": (
        hook("tool", env={"PATH": "{base}/bin:/usr/bin:/bin"}),
        {"bin/tool": "#!/bin/sh\n"},
        "bin/tool",
    ),
    "program that is new": (hook("true; ls -d .", env={"PATH": "bin:/usr/bin:/bin"}), {"bin/tool": "#!/bin/sh\n"}, "bin/ls"),
    "module": (hook("python3 -c 'import helper'", env={"PYTHONPATH": "lib"}), {"lib/helper.py": "x = 1"}, "lib/helper.py"),
    "module that is new": (
        hook("python3 -c 'import json'", env={"PYTHONPATH": "lib"}),
        {"lib/helper.py": "x = 1"},
        "lib/json.py",
    ),
    "an option of Node": (hook("true", env={"NODE_OPTIONS": "--require ./lib.js"}), {"lib.js": "1"}, "lib.js"),
    "in another folder": (hook("bash -c true", cwd="sub", env={"BASH_ENV": "lib.sh"}), {"sub/lib.sh": "true"}, "sub/lib.sh"),
}
"""Case → (node, files, the file that is made or changed after the yes)."""


@pytest.mark.parametrize("case", ENVIRONMENTS)
def test_what_variables_name_is_compared(session: Session, base: Path, case: str) -> None:
    made, contents, name = ENVIRONMENTS[case]
    if "{base}" in str(made):
        made["props"]["config"]["env"]["PATH"] = f"{base}/bin:/usr/bin:/bin"
    output(session, prepared(session, base, made, contents))
    ready = prepared(session, base, made, contents)
    (base / name).write_text(f"#!/bin/sh\ntouch {base / MARK}")
    (base / name).chmod(0o755)
    with pytest.raises(NotGrantedError, match=r"has changed since it was shown|was not part of what was shown"):
        output(session, ready)
    assert not (base / MARK).exists()


def test_variables_of_other_names_hold_data(session: Session, base: Path) -> None:
    """Texts that happen to hold the name of a file, as answers of models may."""
    files(base, {"src/new.py": "x = 1"})
    ready = prepared(session, base, hook("echo $NOTE", env={"NOTE": "{{note}}"}), {})
    from dipeo_nb.common.loop import run_sync

    execution = session.runtime.execution(ready, variables={"note": "look at src/new.py in src"})
    run_sync(session.runtime.run(execution))
    assert execution.result() == "look at src/new.py in src"


@pytest.mark.parametrize(
    "command", ["sh out/data.txt", ". out/data.txt", "cd out && sh data.txt", "./out/data.txt", "bash -c 'sh out/data.txt'"]
)
def test_what_the_run_has_written_is_no_program(session: Session, base: Path, command: str) -> None:
    """Whatever its ending; the list has that it is written, and that it is run, but not what it would be."""
    write_it = node("template_job", "Write", template_content=f"touch {base / MARK}", output_path="out/data.txt")
    path = write(base, light(write_it, hook(command)))
    with pytest.raises((NotGrantedError, CodeError)):
        session.run(path, trust=True, view=False)
    assert not (base / MARK).exists()


def test_a_file_that_is_exchanged_all_the_time(session: Session, base: Path) -> None:
    made, contents, printed = CERTAIN["sourced by a sourced one"]
    stop = threading.Event()

    def exchange() -> None:
        while not stop.is_set():
            for name in contents:
                for text in (f"touch {MARK}; exit", contents[name]):
                    (base / "new").write_text(text)
                    (base / "new").replace(base / name)

    ready = [prepared(session, base, made, contents) for _ in range(5)]
    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        assert [str(output(session, one)) for one in ready] == [printed] * 5
    finally:
        stop.set()
        thread.join()
    assert not (base / MARK).exists()


def test_unshown_modules_of_programs_are_not_imported(session: Session, base: Path) -> None:
    ready = prepared(session, base, hook("python3 t.py || echo no"), {"t.py": "__import__('hel' + 'per')"})
    files(base, {"helper.py": f"open({MARK!r}, 'w')"})
    assert str(output(session, ready)) == "no"
    assert not (base / MARK).exists()


WORDS: dict[str, list[str]] = {
    "cat <<E\nsh x.sh\nE\nsh y.sh": ["y.sh"],
    "cat <<-'E'\n\tsh x.sh\n\tE\nsh y.sh": ["y.sh"],
    "echo 'sh x.sh' \"sh x.sh\" sh x.sh": [],
    "# sh x.sh\nf() { ./g.sh; }": ["./g.sh"],
    "case x in a) sh z.sh;; *) sh w.sh;; esac": ["z.sh", "w.sh"],
    "while sh a.sh; do ./b.sh & done": ["a.sh", "./b.sh"],
    "sh x.sh 2>&1 >out.txt <in.txt": ["x.sh"],
    "sh 'a b.sh'; sh a\\ b.sh; sh a\" \"b.sh": ["a b.sh"] * 3,
    'sh $x.sh; sh *.sh; sh ~/x.sh; sh "$x"': [],
    "timeout 5 env A=1 sh x.sh": ["x.sh"],
    "diff <(sh x.sh) <(./y.sh)": ["x.sh", "./y.sh"],
    "echo $((1 + (2))) ${x:-$(sh a.sh)}; sh x.sh": ["x.sh"],
    "sh -s x.sh; bash --norc x.sh; python3 -c x.py; python3 - x.py": ["x.sh"],
    "python3 -W ignore -X dev x.py": ["x.py"],
    "sh \\\n x.sh": ["x.sh"],
    "echo 'no end": [],
    'echo "no end $(': [],
    "echo ${no end": [],
    "((((((": [],
    "<<": [],
    "<": [],
    "a\\": [],
}


@pytest.mark.parametrize("text", WORDS)
def test_words_of_shells(text: str) -> None:
    found = [i.word.value for command in commands(text) for i in invocations(command) if i.word.value is not None]
    assert found == WORDS[text]


@pytest.mark.parametrize("text", ["cd a", "x && cd a", "(cd a; ls)", "if cd a; then ls; fi", "pushd a"])
def test_moves(text: str) -> None:
    assert moves(commands(text))
    assert not moves(commands(f"echo {text}") if "&&" not in text and "(" not in text and ";" not in text else [])


@pytest.mark.parametrize(
    "unit", ["a ", "$(", "((", "`", '"', "'", "${", "<<E ", "\\", "a=1 ", "sh -c 'x' ", "\n", ";", "#", "<(", "$((", ")", "}"]
)
def test_long_texts_end(unit: str) -> None:
    """Also deeply nested ones."""
    commands(unit * 20_000)


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Copies are gone with their nodes."""
    place = tmp_path_factory.mktemp("copies")
    monkeypatch.setattr("tempfile.tempdir", str(place))
    yield
    assert not [path for path in place.iterdir() if list(path.glob("*-*.sh")) or (path / "shown.json").exists()]
