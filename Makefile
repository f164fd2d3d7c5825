# `make test` and `make demo` do all set-up on a fresh machine; a second run starts at once.
#
#   make demo     drive an unknown warehouse over ROS 2 and write report/index.html
#   make test     the test suite
#   make check    ruff and mypy
#   make audit    locked versions against known vulnerabilities and our floors
#   make lock     write requirements/*.lock anew
#   make clean    remove .venv and build outputs
#
# PYTHON=python3.12 names the interpreter, ARGS="..." goes to pytest or to the demo.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.ONESHELL:
.PHONY: demo test check audit lock clean setup

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
ARGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.incognita-installed
GL := $(VENV)/.incognita-gl
TORCH := 2.13.0
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

# A sourced ROS distribution and the ROS wheels never share an environment.
LOCKS := requirements/ci.lock $(if $(ROS_DISTRO)$(AMENT_PREFIX_PATH),,requirements/ros.lock)

# One thread per process: small matrices lose more in a thread pool than they win.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
# Set by the ROS wheels for their own children; a Python of another environment must not see it.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE
# As a script of the same environment would be run: `incognita` and its nodes find each other.
export PATH := $(abspath $(BIN)):$(PATH)

demo: $(STAMP) $(GL)
	MUJOCO_GL=$$(cat $(GL)) $(BIN)/incognita demo $(ARGS)

test: $(STAMP) $(GL)
	MUJOCO_GL=$$(cat $(GL)) $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: $(STAMP)
	$(BIN)/python scripts/audit.py $(ARGS)

setup: $(STAMP) $(GL)

# torch comes first and by a line of its own: the wheel without CUDA is the release "+cpu", which
# only PyTorch's own index (or a local folder, PIP_FIND_LINKS) has; PyPI's wheel of the same
# version would bring 3 GB of CUDA. Everything else is checked against the hashes of the lock.
$(STAMP): Makefile setup.py setup.cfg pyproject.toml $(LOCKS)
	$(PYTHON) scripts/check_machine.py python
	if [ ! -x $(BIN)/python ]; then $(PYTHON) -m venv $(VENV); fi
	$(BIN)/python scripts/check_machine.py python
	pip="$(BIN)/python -m pip --disable-pip-version-check"
	if ! $(BIN)/python -c 'from importlib.metadata import version as v; import sys; sys.exit(v("torch").split("+")[0] != "$(TORCH)")' 2>/dev/null; then
	    case $$(uname -s) in
	        Darwin) $$pip install --no-deps torch==$(TORCH) ;;
	        *) $$pip install --quiet --no-deps torch==$(TORCH)+cpu 2>/dev/null \
	            || $$pip install --no-deps --index-url $(TORCH_CPU_INDEX) torch==$(TORCH) ;;
	    esac
	fi
	for lock in $(LOCKS); do $$pip install --quiet --no-deps --require-hashes -r $$lock; done
	$$pip install --quiet --no-deps --no-build-isolation --editable .
	$$pip check
	touch $@

$(GL): $(STAMP) scripts/check_machine.py
	$(BIN)/python scripts/check_machine.py gl > $@

lock:
	scripts/lock.sh

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
