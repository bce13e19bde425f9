# `make` alone lists the targets. Each sets itself up: a virtual environment of the project's own,
# made from PYTHON with pip alone, and brought up to date whenever pyproject.toml changes.
#
#   make test ARGS="-k resume -x"        hands arguments on (test, soak, bench)
#   make test PYTHON=python3.13 VENV=build/venv-3.13

PYTHON ?= python3
VENV ?= .venv
# Test processes at once: one more than cores, for they wait for disks, servers and processes too.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
ARGS ?=
# Where the tests' files lie: in memory if there is room. The disks that fail them are simulated.
ram := $(shell df -k --output=avail /dev/shm 2>/dev/null | awk 'NR == 2 && $$1 > 4000000 { print "/dev/shm" }')
# Hundreds of the tests' processes would compile the package anew where this is set.
export PYTHONDONTWRITEBYTECODE :=

python := $(VENV)/bin/python
pip := $(python) -m pip --disable-pip-version-check -qq
run_stamp := $(VENV)/.installed-run
test_stamp := $(VENV)/.installed-test
dev_stamp := $(VENV)/.installed-dev
soak_stamp := $(VENV)/.installed-soak
demo_folder := build/demo
demo := $(python) examples/stdlib_report.py --out $(demo_folder)
kill_after ?= 300
# What can come out otherwise on another Python: what flows and tasks are made of, values, threads,
# loops, processes, the command. SQL, disks and servers are the same: one database shows the rest.
short := -m 'not soak and not slow' -k 'not postgres' --backend file \
    tests/cli tests/conformance tests/db tests/engine tests/testing tests/values \
    tests/faults/test_foreign_code.py tests/faults/test_shutdown.py $(wildcard tests/test_*.py)

.DEFAULT_GOAL := help
.PHONY: help demo test short lint format types bench bench-big bench-peers soak docs build clean

help:
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

demo: $(run_stamp) ## a report on the standard library: killed half way, then resumed
	@rm -rf $(demo_folder) && mkdir -p $(demo_folder)
	@echo '== First run: kills itself with SIGKILL after $(kill_after) files'
	@$(demo) --kill-after $(kill_after); status=$$?; \
	    test $$status -eq 137 || { echo "expected a killed process, got exit status $$status"; exit 1; }
	@echo '== Second run: resumes the same run'
	@$(demo) --resume

test: $(dev_stamp) ## every test but the soaks, on a file, in memory and on a real Postgres
	@$(if $(ram),TMPDIR=$(ram)) $(python) -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

short: $(test_stamp) ## the tests that can come out otherwise on another Python
	@$(if $(ram),TMPDIR=$(ram)) $(python) -m pytest -q -n $(WORKERS) --dist worksteal $(short) $(ARGS)

soak: $(dev_stamp) $(soak_stamp) ## the tests that take minutes: stress, kill -9, power cuts
	@$(python) -m pytest -m soak -o faulthandler_timeout=0 $(ARGS)

docs: $(dev_stamp) ## run every example in README, docs/ and examples/
	@$(python) -m pytest -n $(WORKERS) tests/docs $(ARGS)

lint: $(dev_stamp) ## ruff, its formatting, and the import contracts of the layers
	@$(python) -m ruff check
	@$(python) -m ruff format --check
	@$(VENV)/bin/lint-imports --no-logo --cache-dir build/import-linter

format: $(dev_stamp) ## rewrite the code in ruff's format and apply its safe fixes
	@$(python) -m ruff check --fix-only
	@$(python) -m ruff format

types: $(dev_stamp) ## mypy and pyright, both strict
	@$(python) -m mypy
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(python) -m pyright --pythonpath $(python)

bench: $(dev_stamp) ## ours, the raw driver's floor in the same run, and the ratio
	@$(python) -m benchmarks.run $(ARGS)

bench-big: $(dev_stamp) ## the rows on a file with a million flow runs, beside an empty one
	@$(python) -m benchmarks.big $(ARGS)

bench-peers: $(dev_stamp) ## the same jobs done by others, each in a virtual environment of its own
	@$(python) -m benchmarks.peers $(ARGS)

build: $(dev_stamp) ## the sdist and the wheel, into dist/
	@$(python) -m build --no-isolation --outdir dist

clean: ## remove what these targets made
	rm -rf $(VENV) build dist .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(python):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)

$(run_stamp): pyproject.toml | $(python)
	@echo 'Installing what the package needs into $(VENV) ...'
	@$(pip) install -e .
	@touch $@

$(test_stamp): pyproject.toml | $(python)
	@echo 'Installing the package and what its tests import into $(VENV) ...'
	@$(pip) install -e '.[test]'
	@touch $@ $(run_stamp)

$(dev_stamp): pyproject.toml | $(python)
	@echo 'Installing the package, its tests and its tools into $(VENV) ...'
	@$(pip) install -e '.[dev]'
	@touch $@ $(run_stamp) $(test_stamp)

$(soak_stamp): pyproject.toml | $(dev_stamp)
	@echo 'Installing what the long tests need into $(VENV) ...'
	@$(pip) install -e '.[soak]'
	@touch $@
