#!/usr/bin/env bash
# Pins every dependency with hashes, from pyproject.toml. The files name no registry and no path of this machine.
# models.txt, base.txt and llama.txt are written by hand: packages that are installed without what they ask for.
set -euo pipefail
cd "$(dirname "$0")/.."
compile() { # output, then arguments of pip-compile
  local output=$1
  shift
  echo "requirements/$output"
  CUSTOM_COMPILE_COMMAND="make lock" .venv/bin/pip-compile -q --generate-hashes --strip-extras \
    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options --no-header \
    --output-file "requirements/$output" "$@"
}
compile runtime.txt --allow-unsafe pyproject.toml requirements/build.in requirements/older.in
compile dev.txt --allow-unsafe --extra dev -c requirements/runtime.txt pyproject.toml requirements/build.in requirements/older.in
compile pip.txt --allow-unsafe -c requirements/dev.txt requirements/pip.in
compile compile.txt -c requirements/dev.txt requirements/compile.in
# torch has one build for each kind of machine under one version: scripts/install_train.sh chooses it.
compile train.txt --unsafe-package torch --extra train -c requirements/dev.txt pyproject.toml
if grep -vE '^ *#' requirements/*.txt | grep -nE 'https?://|file:|/opt/|-index-url|--find-links'; then
  echo "a lock file names a registry or a path" >&2
  exit 1
fi
