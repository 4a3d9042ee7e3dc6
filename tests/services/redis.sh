#!/usr/bin/env bash
# Private Redis servers on loopback with append-only files: without systemd or /etc, as any user.
# Everything lives in $REDIS_DIR.
#
#   redis.sh up [N]          configure and start N servers (1), wait until they answer
#   redis.sh start I...      start servers again on their data, wait until it is loaded
#   redis.sh stop I...       an orderly end                redis.sh kill I...     a crash
#   redis.sh pause I...      hangs; its sockets stay open  redis.sh resume I...
#   redis.sh cli I ARGS      redis-cli on server I         redis.sh pid I
#   redis.sh urls, tls-urls  one line each                 redis.sh status
#   redis.sh down            ends all, without ceremony
#
# REDIS_KIND: `single` (separate servers), `cluster` (N masters share all slots) or `sentinel`
# (server 1 is the master `mymaster`, server 2 the only sentinel).
# Ports, from REDIS_PORT_BASE=B, for server I: B+I, TLS B+10+I, between cluster nodes B+20+I.
# REDIS_FSYNC: appendfsync (always). REDIS_CONF: more lines for redis.conf. REDIS_TLS_DIR: holds
# ca.pem, cert.pem and key.pem, for a TLS listener beside the plain one.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/services/common.sh
. "$here/common.sh"

# What 'up' ends with when a port is taken.
PORT_TAKEN=3
DIR=${REDIS_DIR:?a directory of its own}
B=${REDIS_PORT_BASE:?64 free ports from here}
KIND=${REDIS_KIND:-single}
SERVER=$(program redis-server) || die "Redis is not installed"
CLI=$(program redis-cli) || die "redis-cli is not installed"

home() { echo "$DIR/r$1"; }
pid_of() { cat "$(home "$1")/pid" 2>/dev/null; }
# By its configuration file on the command line, or before it has one, by this script's name.
alive() { runs "$(home "$1")/pid" "$(home "$1")/redis.conf" "redis.sh"; }
servers() {
  local home
  for home in "$DIR"/r*/; do
    [ ! -d "$home" ] || basename "$home" | tr -d r
  done
}
cli() { # I ARGS
  local i=$1
  shift
  "$CLI" -e -h 127.0.0.1 -p $((B + i)) "$@"
}

configure() { # I
  local i=$1 home
  home=$(home "$i")
  mkdir -p "$home"
  {
    echo "bind 127.0.0.1"
    echo "port $((B + i))"
    echo "dir $home"
    echo "daemonize no"
    echo "logfile $home/redis.log"
    # The command line stays as it was given: 'alive' looks at it.
    echo "set-proc-title no"
    if [ "$KIND" = sentinel ] && [ "$i" = 2 ]; then
      echo "sentinel monitor mymaster 127.0.0.1 $((B + 1)) 1"
      echo "sentinel down-after-milliseconds mymaster 1000"
    else
      echo "appendonly yes"
      echo "appendfsync ${REDIS_FSYNC:-always}"
      echo 'save ""'
      echo "maxmemory 256mb"
      echo "maxmemory-policy noeviction"
    fi
    if [ "$KIND" = cluster ]; then
      echo "cluster-enabled yes"
      echo "cluster-port $((B + 20 + i))"
      echo "cluster-node-timeout 2000"
    fi
    if [ -n "${REDIS_TLS_DIR:-}" ]; then
      echo "tls-port $((B + 10 + i))"
      echo "tls-ca-cert-file $REDIS_TLS_DIR/ca.pem"
      echo "tls-cert-file $REDIS_TLS_DIR/cert.pem"
      echo "tls-key-file $REDIS_TLS_DIR/key.pem"
      echo "tls-auth-clients no"
    fi
    printf '%s\n' "${REDIS_CONF:-}"
  } >"$home/redis.conf"
}

answers() { [ "$(cli "$1" ping 2>/dev/null)" = PONG ]; }
up_or_gone() { answers "$1" || ! kill -0 "$(pid_of "$1")" 2>/dev/null; }
start() { # I...
  local i home sentinel
  for i in "$@"; do
    home=$(home "$i")
    [ -f "$home/redis.conf" ] || die "there is no server $i"
    if alive "$i"; then continue; fi
    sentinel=
    if [ "$KIND" = sentinel ] && [ "$i" = 2 ]; then sentinel=--sentinel; fi
    # shellcheck disable=SC2086 # one word or none
    in_own_session "$SERVER" "$home/redis.conf" $sentinel </dev/null >"$home/stdout.log" 2>&1 &
    echo $! >"$home/pid"
  done
  for i in "$@"; do
    if until_true 30 up_or_gone "$i" && alive "$i"; then continue; fi
    home=$(home "$i")
    if grep -qi 'already in use' "$home"/*.log; then exit "$PORT_TAKEN"; fi
    echo "server $i is not up; the end of its log:" >&2
    tail -n 20 "$home"/*.log >&2
    exit 1
  done
}
up() { # N
  local n=${1:-1} i
  if [ "$KIND" = sentinel ]; then n=2; fi
  for i in $(seq "$n"); do configure "$i"; done
  # shellcheck disable=SC2046 # one word per server
  start $(seq "$n")
  case $KIND in
    cluster) join "$n" ;;
    sentinel) until_true 10 sentinel_sees_master || die "the sentinel does not find its master" ;;
  esac
}

# Gives every master its part of the 16384 slots, and makes them known to each other.
join() { # N
  local n=$1 i
  for i in $(seq "$n"); do
    cli "$i" cluster addslotsrange $(((i - 1) * 16384 / n)) $((i * 16384 / n - 1)) >/dev/null
    cli "$i" cluster set-config-epoch "$i" >/dev/null
    if [ "$i" -gt 1 ]; then cli "$i" cluster meet 127.0.0.1 $((B + 1)) $((B + 21)) >/dev/null; fi
  done
  for i in $(seq "$n"); do
    until_true 30 joined "$i" "$n" || die "the servers do not form a cluster"
  done
}
joined() { # I N
  local info
  info=$(cli "$1" cluster info)
  case $info in *cluster_state:ok*) ;; *) return 1 ;; esac
  case $info in *cluster_slots_ok:16384*) ;; *) return 1 ;; esac
  case $info in *"cluster_known_nodes:$2"*"cluster_size:$2"*) true ;; *) false ;; esac
}
sentinel_sees_master() { case $(cli 2 sentinel ckquorum mymaster 2>/dev/null) in OK*) true ;; *) false ;; esac; }

ended() { ! alive "$1"; }
stop() { # I
  if ! alive "$1"; then return 0; fi
  kill -CONT "$(pid_of "$1")"
  kill -TERM "$(pid_of "$1")"
  until_true 10 ended "$1" || crash "$1"
}
crash() { # I
  if ! alive "$1"; then return 0; fi
  kill -KILL "$(pid_of "$1")"
  until_true 10 ended "$1"
}
pause() { alive "$1" && kill -STOP "$(pid_of "$1")"; }
resume() { alive "$1" && kill -CONT "$(pid_of "$1")"; }
each() { # WHAT I...
  local what=$1 i
  shift
  [ $# -gt 0 ] || die "which server?"
  for i in "$@"; do "$what" "$i" || die "could not $what server $i"; done
}
urls() {
  local i list=
  case $KIND in
    single) for i in $(servers); do echo "redis://127.0.0.1:$((B + i))/"; done ;;
    cluster)
      for i in $(servers); do list=$list,127.0.0.1:$((B + i)); done
      echo "redis-cluster://${list#,}" ;;
    sentinel) echo "redis-sentinel://127.0.0.1:$((B + 2))/mymaster" ;;
  esac
}

verb=${1:-}
shift || true
case $verb in
  up) up "$@" ;;
  start) start "$@" ;;
  stop | pause | resume) each "$verb" "$@" ;;
  kill) each crash "$@" ;;
  cli) cli "$@" ;;
  pid) alive "$1" && pid_of "$1" ;;
  urls) urls ;;
  tls-urls) for i in $(servers); do echo "rediss://127.0.0.1:$((B + 10 + i))/"; done ;;
  status)
    for i in $(servers); do
      if alive "$i"; then state="pid $(pid_of "$i")"; else state=down; fi
      echo "$i $state port $((B + i)) tls $((B + 10 + i))"
    done ;;
  down) for i in $(servers); do crash "$i"; done ;;
  *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
