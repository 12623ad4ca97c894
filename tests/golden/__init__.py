"""Goldens: what runs, checks, drawings and helps give today, as text. A change of behaviour shows as a difference of these files.

    make golden                                  write them anew, then read `git diff tests/golden`
    python -m tests.golden FOLDER --out FILE     the same for the diagrams of any folder, e.g. before and after a change

| file | holds |
|---|---|
| shapes.txt | event logs of the graphs of `tests.integration.test_graph_shapes`; each also resumed from the middle |
| runs.txt | event logs of the diagrams of the repository: demo, guide, tutorials, `diagrams/`; some resumed and forked |
| findings.txt | what `validate --json` prints for each diagram of `bad/` |
| drawings.txt | SVG drawings of all of them |
| help.txt | `--help` of every command |
| runs-v*.db | run databases of earlier schemas (`tests/integration/test_golden_runs.py`) |

Runs are deterministic: their clock is the virtual time of their event loop, ids are numbers, models are `echo`. What differs from
machine to machine is replaced: the base directory, signatures.
"""
