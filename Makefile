# make demo    run a relay between an application and a next hop that is down, and show every step
# make test    every test, also those with real servers, then lint, types, import contracts and docs
# make soak    kill a working relay 500 times, relays that share a queue 30 times, and the other crash tests (about half an hour)
# make lint    ruff, mypy --strict, import-linter
# make docs    the documentation, with warnings as errors, and its doctests
# make man     write the manual pages from the reference, to man/
# make bench   measure this package and others on the same work: bench/results/ (takes long; see bench/README.md)
# make relays  the same for relays
# make clean   remove everything that the other targets made
#
# Each target sets up .venv as it needs. PYTHON selects the interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test unit soak lint docs man bench clean peers

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

# A stamp older than setup.cfg means that the dependencies may have changed.
$(VENV)/.made: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "make: $(PYTHON) is not a CPython 3.10 or later; install python3, or use: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "make: $(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@rm -rf $(VENV)
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@# A plain editable install hides twisted/plugins from twistd; the compat mode shows it.
	@$(PIP) install --config-settings editable_mode=compat --editable .
	@touch $@

$(VENV)/.made-dev: $(VENV)/.made
	@echo "adding the test, lint and documentation tools to $(VENV)"
	@$(PIP) install --config-settings editable_mode=compat --editable '.[dev]'
	@touch $@

demo: $(VENV)/.made
	@$(BIN)/twisted-sendmail demo

peers:
	@PYTHON=$(PYTHON) tests/install-peers

# Each worker, and each process that a test starts, would compile every module.
unit: export PYTHONDONTWRITEBYTECODE =
unit: $(VENV)/.made-dev peers
	@# More workers than processors, because many tests wait; whole files for each, so that the servers of a file
	@# are started once. The files with few tests take the longest, so they must not be the last.
	$(BIN)/pytest -n $$(($$(nproc) * 3 / 2)) --dist loadfile --no-loadscope-reorder

test: unit lint docs

soak: $(VENV)/.made-dev
	TWISTED_SENDMAIL_KILL_ROUNDS=500 TWISTED_SENDMAIL_CLUSTER_ROUNDS=30 TWISTED_SENDMAIL_EACH_END=1 \
	TWISTED_SENDMAIL_THROUGH=20000 $(BIN)/pytest -o faulthandler_timeout=3600 tests/durability

lint: $(VENV)/.made-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.made-dev
	$(BIN)/sphinx-build -n -W --keep-going -q -b html docs docs/_build/html
	$(BIN)/sphinx-build -n -W --keep-going -q -b doctest docs docs/_build/doctest

man: $(VENV)/.made-dev
	$(BIN)/sphinx-build -n -W --keep-going -q -b man -d docs/_build/man docs man

bench:
	@$(MAKE) --no-print-directory -C bench bench

relays:
	@$(MAKE) --no-print-directory -C bench relays

clean:
	@$(MAKE) --no-print-directory -C bench clean
	rm -rf $(VENV) .venv-peers .tox build dist docs/_build docs/reference/modules *.egg-info .mypy_cache .pytest_cache .ruff_cache \
	  .import_linter_cache .hypothesis .coverage
