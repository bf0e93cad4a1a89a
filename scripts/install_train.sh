#!/usr/bin/env bash
# Adds what `notifyr train` and its tests need: torch, transformers, onnx, scikit-learn and the base network (1.2 GB installed, a
# third of it to fetch). torch comes without its own requirements, and never as a CUDA build for nothing.
#
# TORCH_INDEX   index to take torch from (default: pip's own, or PyTorch's for CPUs where that has CUDA builds for no GPU)
set -euo pipefail
cd "$(dirname "$0")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
if [ ! -x .venv/bin/pip ]; then
  echo "notifyr: there is no .venv yet: make setup, then this script again" >&2
  exit 1
fi
install() { .venv/bin/pip install -q --no-compile "$@" 2> >(grep -v '^WARNING: Location' >&2); }
version=$(sed -n '/^gpu = /,/^]/s/.*"torch==\([0-9.]*\)".*/\1/p' pyproject.toml)
from=()
[ -z "${TORCH_INDEX:-}" ] || from=(--index-url "$TORCH_INDEX")

gpu=no
if [ -e /dev/nvidia0 ] || { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; }; then gpu=yes; fi

# Asks which build pip would take before anything large is fetched.
report=$(.venv/bin/pip install -q --dry-run --ignore-installed --no-deps --report - "${from[@]}" "torch==$version" 2>/dev/null)
if [ "$gpu" = no ] && grep -qE '"(nvidia-|triton)|\+cu[0-9]' <<<"$report"; then
  cpu=https://download.pytorch.org/whl/cpu
  if [ -n "${TORCH_INDEX:-}" ] || ! .venv/bin/python scripts/reachable.py "$cpu/" 10; then
    echo "notifyr: pip would take a CUDA build of torch, and this machine has no GPU." >&2
    echo "Name an index with CPU builds: TORCH_INDEX=$cpu $0" >&2
    exit 1
  fi
  from=(--index-url "$cpu")
fi
install --no-deps "${from[@]}" "torch==$version" # no hash: each kind of machine has a build of its own
install --require-hashes -r requirements/train.txt
install --require-hashes --no-deps -r requirements/base.txt
scripts/bytecode.sh
.venv/bin/python -c 'import torch; print("torch", torch.__version__, "cuda" if torch.cuda.is_available() else "cpu")'
