#!/usr/bin/env bash
# Runs a command that tests, with one RabbitMQ and one Redis for all of it:
#
#   tests/services/run.sh cargo test --locked
#
# CARILLON_TEST_BROKER_URL and CARILLON_TEST_REDIS_URL name them to the tests. What the caller has
# set is used as it is; the rest is started here, and ended with the command, however it ends.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -gt 0 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }

if [ -n "${CARILLON_TEST_BROKER_URL:-}" ] && [ -n "${CARILLON_TEST_REDIS_URL:-}" ]; then exec "$@"; fi

if ! "$here/install.sh"; then
  if ! docker info >/dev/null 2>&1; then exit 1; fi
  echo "run.sh: Docker is here: the tests run in it"
  # The sources are shared, what is built is kept in volumes. install.sh works in there.
  exec docker run --rm --init -v "$PWD":/src -w /src -v carillon-target:/target -e CARGO_TARGET_DIR=/target \
    -v carillon-registry:/usr/local/cargo/registry rust:1.95-bookworm make test
fi

pipes=$(mktemp -d)
guards=()
# shellcheck disable=SC2329 # the traps call it
cleanup() {
  # A guard ends when its input closes, or in the middle of a boot, when it is told to.
  exec 8>&- 9>&-
  if [ ${#guards[@]} != 0 ]; then
    kill -TERM "${guards[@]}" 2>/dev/null || true
    wait "${guards[@]}" 2>/dev/null || true
  fi
  rm -rf "$pipes"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Through named pipes: descriptor 8 or 9, which only this script holds, keeps the guard up.
guard() { # NAME
  mkfifo "$pipes/$1.in" "$pipes/$1.out"
  "$here/guard.sh" "$1" <"$pipes/$1.in" >"$pipes/$1.out" 8>&- 9>&- &
  guards+=($!)
}
url_of() { # NAME, out of what its guard says
  local word url
  read -r word url <"$pipes/$1.out" || word=failed
  if [ "$word" != ready ]; then
    echo "run.sh: $1: $word ${url:-}" >&2
    return 1
  fi
  echo "$url"
}

echo "run.sh: starting RabbitMQ and Redis"
if [ -z "${CARILLON_TEST_BROKER_URL:-}" ]; then
  guard rabbitmq
  exec 8>"$pipes/rabbitmq.in"
fi
if [ -z "${CARILLON_TEST_REDIS_URL:-}" ]; then
  REDIS_FSYNC=everysec guard redis
  exec 9>"$pipes/redis.in"
  CARILLON_TEST_REDIS_URL=$(url_of redis)
fi
if [ -z "${CARILLON_TEST_BROKER_URL:-}" ]; then CARILLON_TEST_BROKER_URL=$(url_of rabbitmq); fi
export CARILLON_TEST_BROKER_URL CARILLON_TEST_REDIS_URL
# Opened, they need no names any more.
rm -rf "$pipes"
echo "run.sh: $CARILLON_TEST_BROKER_URL $CARILLON_TEST_REDIS_URL"

status=0
"$@" 8>&- 9>&- || status=$?
exit "$status"
