#!/usr/bin/env bash
# Adds what `notifyr train` needs. torch comes without its own requirements, and never as a CUDA build for nothing.
#
# TORCH_INDEX   index to take torch from (default: pip's own); PyTorch's index for CPUs has small builds
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/.*"torch==\([0-9.]*\)".*/\1/p' pyproject.toml)
from=()
[ -z "${TORCH_INDEX:-}" ] || from=(--index-url "$TORCH_INDEX")

gpu=no
if [ -e /dev/nvidia0 ] || { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; }; then gpu=yes; fi

# Asks which build pip would take before anything large is fetched.
report=$(.venv/bin/pip install -q --dry-run --ignore-installed --no-deps --report - "${from[@]}" "torch==$version" 2>/dev/null)
if [ "$gpu" = no ] && grep -qE '"(nvidia-|triton)|\+cu[0-9]' <<<"$report"; then
  echo "notifyr: pip would take a CUDA build of torch, and this machine has no GPU." >&2
  echo "Name an index with CPU builds: TORCH_INDEX=https://download.pytorch.org/whl/cpu $0" >&2
  exit 1
fi
.venv/bin/pip install -q --no-deps "${from[@]}" "torch==$version"
.venv/bin/pip install -q --require-hashes -r requirements/train.txt
.venv/bin/python -c 'import torch; print("torch", torch.__version__, "cuda" if torch.cuda.is_available() else "cpu")'
