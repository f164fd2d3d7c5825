#!/usr/bin/env bash
# Fill the virtual environment: `setup.sh PYTHON VENV LOCK...`. Run by the Makefile.
#
# torch comes first and by a line of its own: the build without CUDA is the release "+cpu", which
# PyTorch's index (or a local folder of wheels, PIP_FIND_LINKS) has and PyPI has not. PyPI's wheel
# of the same version would bring 3 GB of CUDA. All else is checked against the hashes of the lock.
set -euo pipefail
cd "$(dirname "$0")/.."

torch=2.13.0
torch_index=${TORCH_CPU_INDEX:-https://download.pytorch.org/whl/cpu}
python=$1 venv=$2
shift 2

"$python" scripts/check_machine.py python
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" scripts/check_machine.py python
pip() { "$venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }

torch_installed() {
    "$venv/bin/python" -c "import importlib.metadata as m; print(m.version('torch'))" 2>/dev/null
}
case "$(torch_installed || true)" in
    "$torch" | "$torch+cpu") ;;
    *)
        if [ "$(uname -s)" = Darwin ]; then
            pip install --no-deps "torch==$torch"
        elif ! pip install --no-deps "torch==$torch+cpu" 2>/dev/null; then
            pip install --no-deps --index-url "$torch_index" "torch==$torch"
        fi
        ;;
esac
for lock in "$@"; do
    pip install --no-deps --require-hashes -r "$lock"
done
pip install --no-deps --no-build-isolation --editable .
pip check
