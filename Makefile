# The commands of this workspace. Each sets up what it needs by itself, in the virtual environment .venv: a machine
# needs Python 3.11 or newer, make, and a package index that pip can reach.
#
#   make test ARGS="-k lease"       passes ARGS to pytest
#   make PYTHON=python3.13 test     makes .venv with that Python

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NODE_READY := $(VENV)/node/.ready
PROJECTS := $(wildcard pyproject.toml plugins/*/pyproject.toml)
PLUGINS := $(patsubst %/,%,$(dir $(wildcard plugins/*/pyproject.toml)))
PACKAGES := emp_core $(notdir $(wildcard plugins/*/emp_*))
SUITES := tests $(wildcard plugins/*/tests)

# Neither an environment that happens to be active nor a path of the user's may lend its packages to ours.
unexport VIRTUAL_ENV CONDA_PREFIX PYTHONHOME PYTHONPATH

# uv trusts the certificates that the machine trusts, as pip does where a company has its own.
export UV_SYSTEM_CERTS ?= 1

.PHONY: help demo test chaos check bench clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo     run one job the whole way: queue, worker, progress bar, result on disk'
	@echo 'make test     run every test'
	@echo 'make chaos    break workers, Redis, links and clocks under 20,000 jobs, and judge what became of them'
	@echo 'make check    lint, formatting, types, and which room may import which'
	@echo 'make bench    measure this queue and its peers side by side (minutes); ARGS="--quick" for a look'
	@echo 'make clean    remove the virtual environment and everything that was built'

demo: $(READY)
	@$(BIN)/emp demo

# Two processes for each core: most tests wait for other processes. More than eight only cost more Redis servers.
test: $(READY) $(NODE_READY)
	@workers=$$(( $$(getconf _NPROCESSORS_ONLN) * 2 )); [ $$workers -le 8 ] || workers=8; \
	$(BIN)/python -m pytest -n $$workers --dist worksteal $(ARGS)

# In a short form this is part of `make test`. FAULTS="silent sentinel" picks some.
chaos: $(READY)
	@$(BIN)/python -m tests.chaos $(FAULTS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy $(addprefix -p ,$(PACKAGES))
	@for suite in $(SUITES); do echo "$(BIN)/mypy $$suite"; $(BIN)/mypy "$$suite" || exit 1; done
	cd templates/plugin && $(CURDIR)/$(BIN)/mypy
	$(BIN)/pyright

bench: $(READY)
	@$(BIN)/python -m bench $(ARGS)

clean:
	rm -rf bench/.venvs bench/node/node_modules bench/out
	rm -rf $(VENV) dist build site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv installs in seconds what takes pip half a minute, but it does not read pip's configuration. Where that names an
# index of its own or forbids any, and where uv fails, pip installs the same files, checked against the same hashes.
UV_KNOWS_THE_INDEX = [ -n "$$UV_INDEX_URL$$UV_DEFAULT_INDEX$$UV_INDEX$$UV_FIND_LINKS" ] || \
	! $(BIN)/python -m pip config list | grep -Eq '[.](index-url|no-index)='
INSTALL_UV = sed -n '/^uv==/,/[^\]$$/p' requirements.lock | $(BIN)/python -m pip install -qq --require-hashes -r /dev/stdin
INSTALL_WITH_UV = $(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
INSTALL_WITH_PIP = $(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock

$(READY): requirements.lock $(PROJECTS) | $(BIN)/python
	@echo 'Installing the locked packages into $(VENV) ...'
	@{ { $(UV_KNOWS_THE_INDEX); } && $(INSTALL_UV) && $(INSTALL_WITH_UV); } || \
	  { echo 'Installing with pip instead of uv ...'; $(INSTALL_WITH_PIP); }
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation $(addprefix -e ,. $(PLUGINS))
	@touch $@

# What tests use from npm. Without it they are skipped, and say what to install.
$(NODE_READY): tests/node/package-lock.json | $(BIN)/python
	@if ! command -v npm >/dev/null; then \
	  echo 'npm was not found: tests that need Azurite are skipped. Install Node.js and npm to run them.'; exit 0; \
	fi; \
	echo 'Installing what tests use from npm into $(@D) ...'; \
	mkdir -p $(@D) && cp tests/node/package.json tests/node/package-lock.json $(@D) && \
	npm install --prefix $(@D) --no-save --ignore-scripts --no-audit --no-fund --loglevel=error && touch $@ || \
	echo 'npm could not install Azurite: tests that need it are skipped.'

$(BIN)/python:
	@set -e; \
	for name in $(PYTHON) python3 python3.13 python3.12 python3.11 python; do \
	  if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$name; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo 'emp-core needs Python 3.11 or newer, and none was found as python3, python3.13, python3.12 or python3.11.' >&2; \
	  echo 'Install one (https://www.python.org/downloads), or name it: make PYTHON=/path/to/python3.' >&2; \
	  exit 2; \
	fi; \
	echo "Making $(VENV) with $$($$python --version) ..."; \
	if $$python -m venv --clear $(VENV) >/dev/null 2>&1; then exit 0; fi; \
	if $$python -m venv --clear --without-pip $(VENV) && \
	  $$python -m pip --python $(BIN)/python install --quiet pip; then exit 0; fi; \
	rm -rf $(VENV); \
	echo "$$python cannot make a virtual environment with pip in it." >&2; \
	echo 'On Debian and Ubuntu: apt install python3-venv. Or name another Python: make PYTHON=/path/to/python3.' >&2; \
	exit 2
