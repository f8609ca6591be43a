# make demo: one exam end to end, into demo-out/.
# make check: lint, types and the fast tests, while you work.   make test: lint, types and every test, as .ci/run does.
# All install into .venv first; pyproject.toml pins what is installed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# tools that look at the environment from outside; they are not installed into it
TOOLS := .venv-audit

.PHONY: venv demo check test chaos findings audit sbom lint clean

venv: $(VENV)/.installed-dev

demo: $(VENV)/.installed
	$(BIN)/glionode demo

# tests start many processes: let them share compiled modules, whatever the environment says
check test chaos: export PYTHONDONTWRITEBYTECODE =

# several workers share the tests (tests/conftest.py says how many); a single test: .venv/bin/python -m pytest FILE
check: lint
	$(BIN)/python -m pytest -q -n auto -m "not slow"

test: lint
	$(BIN)/python -m pytest -q -n auto

# the long form of the chaos suite: hundreds of kills, 2,000 faults drawn from a seed that is printed (GLIONODE_CHAOS_SEED=N
# draws them again), and thousands of wrong attributes; about an hour on two cores
chaos: $(VENV)/.installed-dev
	GLIONODE_CHAOS=full $(BIN)/python -m pytest -q -s -n 0 tests/chaos tests/processing/test_one_wrong_attribute.py

# surprising behaviour of other software, shown without our code; fails if it changes
findings:
	set -e; for finding in findings/*.sh; do echo "$$finding"; bash "$$finding"; done

# known vulnerabilities of what is installed; build/audit.txt says what was audited, by which source, or why not
audit: $(VENV)/.installed-dev $(TOOLS)/.installed
	$(TOOLS)/bin/python .ci/audit.py $(BIN)/python build/audit.txt

# bill of materials, model packs included: build/sbom.cdx.json, CycloneDX
sbom: $(VENV)/.installed-dev $(TOOLS)/.installed
	$(TOOLS)/bin/python .ci/sbom.py $(BIN)/python build/sbom.cdx.json

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check node bench tests .ci
	$(BIN)/ruff format --check node bench tests .ci
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(TOOLS) demo-out build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find node bench tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'glionode needs Python 3.11 or newer: set PYTHON, as in: make demo PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo 'Python cannot make virtual environments here: sudo apt-get install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml bench/pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -e '.[dev]' -e bench
	touch $@ $(VENV)/.installed

$(TOOLS)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --upgrade pip
	$(TOOLS)/bin/python -m pip install --group audit
	touch $@
