#!/usr/bin/env bash
# Has schemathesis look for faults, and for answers that /openapi.json does not describe: at a
# Carillon of its own, on free ports and private files, which ends with it. Nothing is sent to
# anywhere: every address is denied to it.
#
#   tests/schemathesis/run.sh embedded TOOL [its arguments]
#   tests/services/run.sh tests/schemathesis/run.sh production TOOL [its arguments]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -ge 2 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
backend=$1 tool=$2
shift 2

folder=$(mktemp -d)
server=
# shellcheck disable=SC2329 # the trap calls it
cleanup() {
  if [ -n "$server" ]; then
    kill -TERM "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
  fi
  rm -rf "$folder"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Held together until both are known, so that they differ.
read -r api ops < <(python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(one.getsockname()[1] for one in held))')
export CARILLON_HTTP__LISTEN="127.0.0.1:$api" CARILLON_OPS__LISTEN="127.0.0.1:$ops"
export CARILLON_HTTP__ADMIN_TOKEN=correct-horse-battery-staple-of-schemathesis
export CARILLON_EMBEDDED__PATH="$folder/carillon.db"
export CARILLON_EGRESS__DENY='["0.0.0.0/0", "::/0"]'
export CARILLON_SECRETS__KEYS='["k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]'
export CARILLON_TELEMETRY__LOG=text RUST_LOG=warn

target=${CARGO_TARGET_DIR:-$here/../../target}
carillon=$(cd "$target/debug" && pwd)/carillon
cd "$folder"
if [ "$backend" = production ]; then
  export CARILLON_BROKER__URL=$CARILLON_TEST_BROKER_URL CARILLON_REDIS__URL=$CARILLON_TEST_REDIS_URL
  export CARILLON_BROKER__PREFIX="schemathesis-$$" CARILLON_REDIS__PREFIX="schemathesis-$$"
  "$carillon" init
fi
"$carillon" serve > "$folder/log" 2>&1 &
server=$!

status=0
SCHEMATHESIS_HOOKS="$here/hooks.py" CARILLON_API="http://127.0.0.1:$api" \
  CARILLON_TOKEN=$CARILLON_HTTP__ADMIN_TOKEN \
  "$tool" --config-file "$here/schemathesis.toml" run "http://127.0.0.1:$api/openapi.json" \
  --wait-for-schema 60 "$@" || status=$?
if ! kill -0 "$server" 2>/dev/null; then
  echo "run.sh: carillon is gone" >&2
  status=1
fi
if [ "$status" != 0 ]; then
  echo "run.sh: the last that carillon said:" >&2
  tail -n 30 "$folder/log" >&2
fi
exit "$status"
