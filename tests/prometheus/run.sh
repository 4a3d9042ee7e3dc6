#!/usr/bin/env bash
# Tests the alerts, recording rules, dashboards and the runbook: see check.py.
#
#   tests/prometheus/run.sh              all checks
#   tests/prometheus/run.sh --mutants    breaks each rule on purpose; takes minutes
#   tests/prometheus/run.sh --drill …    live: a real Prometheus, real faults (drill.py)
#
# PROMTOOL and PROMETHEUS name the programs. On Debian and Ubuntu, as root, they are installed when
# they are missing (no service is started). Python's packages go below target/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

PYYAML_VERSION=6.0.2
PIKA_VERSION=1.3.2
MATPLOTLIB_VERSION=3.9.4

die() { echo "run.sh: $*" >&2; exit 1; }

promtool=${PROMTOOL:-$(command -v promtool || true)}
if [ -z "$promtool" ]; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    die "promtool is not there: install Prometheus (Debian, Ubuntu: apt-get install prometheus), or set PROMTOOL"
  fi
  policy=
  # Packages start their services unless this file says no; one that is there already stays.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    policy=/usr/sbin/policy-rc.d
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
  fi
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends prometheus; } >&2
  [ -z "$policy" ] || { rm -f "$policy"; trap - EXIT; }
  promtool=$(command -v promtool) || die "promtool is not there"
fi
export PROMTOOL=$promtool PYTHONDONTWRITEBYTECODE=1

venv() { # NAME PACKAGES
  local place=target/tools/$1
  shift
  if [ ! -e "$place/ready" ]; then
    python3 -m venv "$place" >&2
    "$place/bin/pip" install --quiet "$@" >&2
    touch "$place/ready"
  fi
  PYTHON=$place/bin/python
}

case ${1:-} in
  --drill)
    shift
    venv "drill-$PYYAML_VERSION-$PIKA_VERSION" "pyyaml==$PYYAML_VERSION" "pika==$PIKA_VERSION" "matplotlib==$MATPLOTLIB_VERSION"
    exec "$PYTHON" tests/prometheus/drill.py "$@" ;;
  *)
    venv "pyyaml-$PYYAML_VERSION" "pyyaml==$PYYAML_VERSION"
    exec "$PYTHON" tests/prometheus/check.py "$@" ;;
esac
