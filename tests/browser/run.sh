#!/usr/bin/env bash
# The console in Chromium: installs what is missing (Debian or Ubuntu, as root), builds Carillon and
# runs console.mjs against it.
#
#   run.sh            the tests
#   SHOTS=dir run.sh  and screenshots of every page, wide and narrow, light and dark
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=$(cd "$root" && realpath -m "${CARGO_TARGET_DIR:-target}")
work=$target/browser
if [ -n "${SHOTS:-}" ]; then
  SHOTS=$(realpath -m "$SHOTS")
  export SHOTS
fi

chromium=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
if [ -z "$chromium" ] || ! command -v npm >/dev/null; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "These tests need Chromium, Node.js (18 or later) and npm; CHROMIUM names the browser." >&2
    exit 1
  fi
  echo "run.sh: installing chromium, nodejs, npm"
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  export DEBIAN_FRONTEND=noninteractive
  wanted=()
  [ -n "$chromium" ] || wanted+=(chromium fonts-dejavu-core)
  command -v npm >/dev/null || wanted+=(nodejs npm)
  { apt-get update && apt-get install -y --no-install-recommends "${wanted[@]}"; } >"$log" 2>&1 || {
    tail -n 15 "$log" >&2
    exit 1
  }
  chromium=$(command -v chromium)
fi

mkdir -p "$work"
cp "$here"/package.json "$here"/package-lock.json "$here"/*.mjs "$work"/
(cd "$work" && PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --no-audit --no-fund --silent)
(cd "$root" && "${CARGO:-cargo}" build --locked --bin carillon)
cd "$work"
CHROMIUM=$chromium CARILLON=$target/debug/carillon exec npm test --silent
