#!/usr/bin/env bash
# -> .bench-venv with Graft (editable) and every peer of requirements-peers.txt. Run it again at will.
set -euo pipefail
cd "$(dirname "$0")/.."

[ -x .bench-venv/bin/python ] || "${PYTHON:-python3}" -m venv .bench-venv
install() { .bench-venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"; }

# torch alone first, so that no resolver picks another build; then everything under the same pins.
install torch==2.13.0
install --requirement benchmarks/requirements-peers.txt --constraint benchmarks/constraints-peers.txt
install --editable . --constraint benchmarks/constraints-peers.txt
.bench-venv/bin/python -m pip check --disable-pip-version-check
