#!/usr/bin/env bash
# Installs the servers that the tests run against, from Debian or Ubuntu. Nothing is started, nothing configured.
# More programs may be named whose package has the same name: the peers of a benchmark.
set -euo pipefail

# program -> package
declare -A needed=(
  [redis-server]=redis-server
  [rabbitmq-server]=rabbitmq-server
  [smtp-sink]=postfix
  [chromium]=chromium
  [setpriv]=util-linux
  [strace]=strace
  [caddy]=caddy
  [systemd-analyze]=systemd
)
for peer in "$@"; do needed[$peer]=$peer; done
export PATH="$PATH:/usr/sbin:/usr/local/sbin"

missing=()
for program in "${!needed[@]}"; do
  command -v "$program" >/dev/null || missing+=("${needed[$program]}")
done
command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "The tests need: ${missing[*]} (Debian's names). Install them with your system's package manager." >&2
  exit 1
fi
sudo=()
if [ "$(id -u)" -ne 0 ]; then
  if ! sudo -n true 2>/dev/null; then
    echo "The tests need: ${missing[*]}. Run: sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  sudo=(sudo -n)
fi

echo "Installing for the tests: ${missing[*]} (a minute or two)"
# Daemons are not to be started on this machine: the tests start their own, on free ports.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
  "${sudo[@]}" chmod 755 "$policy"
  trap '"${sudo[@]}" rm -f "$policy"' EXIT
fi
echo "postfix postfix/main_mailer_type select No configuration" | "${sudo[@]}" debconf-set-selections
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
