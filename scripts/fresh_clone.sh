#!/usr/bin/env bash
# Does what the README says, as a newcomer would: a clone in an empty home, `make run`, the sample mails, a second start;
# with `test` also `make test`. Prints each step with its seconds, and writes them into README.md with `--write`.
#
#   scripts/fresh_clone.sh [test] [--write]
#
# NOTIFYR_WHEELS=FOLDER lends the clone a kept llama.cpp wheel, so that it does not compile.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
place=$(mktemp -d)
export HOME=$place/home CI=true
unset XDG_CACHE_HOME DISPLAY WAYLAND_DISPLAY
for name in $(compgen -e NOTIFYR_ | grep -v '^NOTIFYR_WHEELS$' || true); do unset "$name"; done
mkdir -p "$HOME/.cache/notifyr/wheels"
how="with llama.cpp compiled"
if [ -n "${NOTIFYR_WHEELS:-}" ]; then
  cp "$NOTIFYR_WHEELS"/llama_cpp_python-*.whl "$HOME/.cache/notifyr/wheels/"
  how="with a kept llama.cpp wheel"
fi
unset NOTIFYR_WHEELS
run=
demo=
finish() {
  [ -z "$demo" ] || kill "$demo" 2>/dev/null || true
  [ -z "$run" ] || stop
  rm -rf "$place"
}
trap finish EXIT

rows=()
step() { # what, seconds
  printf '%-62s %6.1f s\n' "$1" "$2"
  rows+=("| $1 | $(printf '%.1f' "$2") s |")
}
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { print b - a }'; }
await() { # file, pattern, seconds
  local end=$((SECONDS + $3))
  until grep -qE "$2" "$1" 2>/dev/null; do
    if [ $SECONDS -gt $end ] || ! kill -0 "$run" 2>/dev/null; then
      echo "no '$2' within $3 s:" >&2
      tail -n 40 "$1" >&2
      exit 1
    fi
    sleep 0.1
  done
}
start() { # log
  began=$(now)
  # stdin is closed: a question would fail
  (cd "$place/notifyr" && exec make run ARGS=--no-browser) >"$1" 2>&1 </dev/null &
  run=$!
}
stop() { # make is the parent; the program is asked, as Ctrl-C in a terminal would ask it
  pkill -TERM -P "$run" -f 'notifyr run' 2>/dev/null || pkill -TERM -P "$run" 2>/dev/null || true
  wait "$run" || true
  run=
}

# Other work on the machine makes every step longer: a table that does not say so would be read as ours.
busy=$(awk -v cores="$(nproc)" '$1 > cores / 2 { printf " that had other work (load average %s at the start)", $1 }' /proc/loadavg)
git clone -q "$root" "$place/notifyr"
# Ports of its own, in case an installation runs here already.
export NOTIFYR_PORT=18300 NOTIFYR_SMTP_PORT=12525
start "$place/first.log"
await "$place/first.log" 'Stop: ' 1500
step "clone to the sign-in link, $how" "$(since "$began")"
sed -n 's/^\(\[ *[0-9]* s\]\)/    \1/p' "$place/first.log"

url=$(grep -oE 'http://127\.0\.0\.1:[0-9]+' "$place/first.log" | head -n 1)
began=$(now)
(cd "$place/notifyr" && exec .venv/bin/notifyr demo >"$place/demo.log" 2>&1 </dev/null) &
demo=$!
until (cd "$place/notifyr" && .venv/bin/python scripts/reviewable.py); do
  [ "$(since "$began" | cut -d. -f1)" -lt 300 ] || { echo "no suggestion within 300 s" >&2; exit 1; }
  sleep 0.2
done
step "the sample mails, to the first suggestion that can be reviewed" "$(since "$began")"
wait "$demo" || { cat "$place/demo.log" >&2; exit 1; }
demo=
step "the sample mails, to the last suggestion" "$(since "$began")"
stop

start "$place/second.log"
await "$place/second.log" 'Stop: ' 60
curl -fs -o /dev/null "$url/link"
step "second start to the first page" "$(since "$began")"
stop

if [ "${1:-}" = test ]; then
  began=$(now)
  (cd "$place/notifyr" && make test </dev/null)
  step "make test, with what it installs" "$(since "$began")"
fi

if [[ " $* " == *" --write "* ]]; then
  {
    printf '%s\n' "Measured by \`scripts/fresh_clone.sh\` on $(nproc) cores$busy:" "" "| step | time |" "|---|---|" "${rows[@]}"
  } >"$place/table"
  sed -i -e '/<!-- timings:/,/<!-- end of timings -->/{//!d}' -e "/<!-- timings:/r $place/table" "$root/README.md"
fi
