#!/usr/bin/env bash
# Installs the lock and this package into .venv, as `make env` does: requirements/install.sh PYTHON TORCH_INDEX
# pip's configured index is asked for torch's CPU build first, then TORCH_INDEX, which is asked for nothing else.
set -euo pipefail
python=.venv/bin/python torch=requirements/torch-cpu.txt torch_index=$2

# --no-deps: the lock leaves out what some packages ask for and what would break others; -qq: errors alone
pip() { "$python" -m pip -qq --disable-pip-version-check install --no-deps "$@"; }

fail() {
    echo "error: $1" >&2
    exit 2
}

echo "installing pinned packages into .venv: about 5 minutes"
"$python" -m pip --version >/dev/null 2>&1 || "$1" -m venv .venv
if ! pip -r "$torch" >/dev/null 2>&1; then
    echo "pip's index gives no CPU build of torch: asking $torch_index"
    if ! said=$(pip --index-url "$torch_index" -r "$torch" 2>&1); then
        grep -q "No matching distribution" <<<"$said" || echo "$said" >&2
        fail "no CPU build of torch ($torch): pip's index and $torch_index have none, or can't be reached;\
 name an index that has it: make env TORCH_INDEX=URL"
    fi
fi
pip -r requirements/cpu.txt
pip --no-build-isolation -e .
said=$("$python" -c "import torch" 2>&1) || fail "torch is installed but can't be imported: ${said##*$'\n'};\
 install the library that this names, or, if it is one of NVIDIA's, remove .venv and name an index with\
 torch's CPU build: PIP_INDEX_URL=URL make env"
