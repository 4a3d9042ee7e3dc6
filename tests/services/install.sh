#!/usr/bin/env bash
# Makes sure that RabbitMQ and Redis are installed: the servers only, none is started.
#
#   install.sh           installs what is missing (Debian or Ubuntu, as root); else says what to do
#   install.sh --check   only looks
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/services/common.sh
. "$here/common.sh"

absent=$(missing)
[ -n "$absent" ] || exit 0
# shellcheck disable=SC2086 # one word per package
set -- "${1:-}" $absent

ask() {
  shift
  cat >&2 <<END
The tests start RabbitMQ (3.10 or later) and Redis (7 or later) of their own; not installed: $*.
  Debian, Ubuntu:  apt-get install rabbitmq-server redis-server
  macOS:           brew install rabbitmq redis
END
  exit 1
}

if [ "$1" = --check ] || [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then ask "$@"; fi

log=$(mktemp)
policy=
cleanup() {
  rm -f "$log"
  [ -z "$policy" ] || rm -f "$policy"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

step() {
  echo "install.sh: $1"
  shift
  if ! "$@" >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    return 1
  fi
}

# Packages start their services unless this file says no; one that is there already stays.
if [ ! -e /usr/sbin/policy-rc.d ]; then
  policy=/usr/sbin/policy-rc.d
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
wanted=("$@")
unset 'wanted[0]'
step "reading the package lists" apt-get update || ask "$@"
step "installing ${wanted[*]}" apt-get install -y --no-install-recommends "${wanted[@]}" || ask "$@"
[ -z "$(missing)" ] || ask "" "$(missing)"
echo "install.sh: done"
