#!/usr/bin/env bash
# Compiles what .venv has to bytecode, on every core: pip does it on one, and takes longer for that than for installing.
# What is compiled already is kept; packages' own tests are left out, and so is what is no Python of this version.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python -W ignore -m compileall -qq -j 0 -x '/tests?/' .venv/lib || true
