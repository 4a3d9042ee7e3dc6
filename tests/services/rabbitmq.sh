#!/usr/bin/env bash
# Private RabbitMQ nodes on loopback: without systemd, /etc, /var or the machine's epmd, as any
# user. Everything lives in $RMQ_DIR.
#
#   rabbitmq.sh up [N]          configure and start N nodes (1), wait until they are one cluster
#   rabbitmq.sh start I...      start nodes again on their data, wait until they take part
#   rabbitmq.sh stop I...       an orderly end                rabbitmq.sh kill I...    a crash
#   rabbitmq.sh pause I...      hangs; its sockets stay open  rabbitmq.sh resume I...
#   rabbitmq.sh ctl I ARGS      rabbitmqctl on node I         rabbitmq.sh leader QUEUE
#   rabbitmq.sh online QUEUE    how many members of a quorum queue take part
#   rabbitmq.sh pid I           rabbitmq.sh urls, tls-urls    one line each, of all nodes
#   rabbitmq.sh status          rabbitmq.sh down              ends all, without ceremony; epmd too
#
# Ports, from RMQ_PORT_BASE=B, for node I: epmd B, AMQP B+I, between nodes B+10+I, management
# B+20+I, TLS B+30+I, Prometheus B+40+I, rabbitmqctl B+50..B+63.
# RMQ_PLUGINS: comma separated (none). RMQ_CONF: more lines for rabbitmq.conf. RMQ_TLS_DIR: holds
# ca.pem, cert.pem and key.pem, for a TLS listener. RMQ_WAIT: seconds for a boot (90).
#
# A pause longer than net_ticktime (60 s, so that a busy machine is none) is a partition. RabbitMQ
# 3.10 was then seen to stay out after resume: stop and start the node.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/services/common.sh
. "$here/common.sh"

# What 'up' ends with when a port is taken.
PORT_TAKEN=3
DIR=${RMQ_DIR:?a directory of its own}
B=${RMQ_PORT_BASE:?64 free ports from here}
PLUGINS=${RMQ_PLUGINS:-}
WAIT=${RMQ_WAIT:-90}
BIN=$(rabbitmq_bin) || die "RabbitMQ is not installed"

home() { echo "$DIR/n$1"; }
name() { echo "rabbit$1-$B@localhost"; }
pid_of() { cat "$(home "$1")/pid" 2>/dev/null; }
# By a mark on its command line, or before it has one, by this script's name.
alive() { runs "$(home "$1")/pid" "-carillon_test $(home "$1") " "rabbitmq.sh"; }
epmd_alive() { runs "$DIR/epmd.pid" "-port $B "; }
nodes() {
  local home
  for home in "$DIR"/n*/; do
    [ ! -d "$home" ] || basename "$home" | tr -d n
  done
}
# The first node that can be asked.
awake() {
  local i
  for i in $(nodes); do
    if alive "$i" && [ ! -e "$(home "$i")/paused" ]; then echo "$i"; return 0; fi
  done
  die "no node is up"
}

# The environment of nodes and tools. HOME holds the cookie; the file of settings is an empty
# one, so that the machine's is not read.
environment() {
  export HOME=$DIR RABBITMQ_CONF_ENV_FILE=$DIR/empty.conf LANG=C.UTF-8
  export ERL_EPMD_PORT=$B ERL_EPMD_ADDRESS=127.0.0.1
  export RABBITMQ_CTL_DIST_PORT_MIN=$((B + 50)) RABBITMQ_CTL_DIST_PORT_MAX=$((B + 63))
}

prepare() {
  mkdir -p "$DIR"
  : >"$DIR/empty.conf"
  if [ ! -s "$DIR/.erlang.cookie" ]; then
    (umask 077 && od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$DIR/.erlang.cookie")
    chmod 400 "$DIR/.erlang.cookie"
  fi
  if ! epmd_alive; then
    # In the foreground, so that its pid is known. Its port also reserves those that follow.
    in_own_session "$(program epmd)" -port "$B" -address 127.0.0.1 </dev/null >"$DIR/epmd.log" 2>&1 &
    echo $! >"$DIR/epmd.pid"
    until_true 5 epmd_settled || die "epmd does not answer"
    epmd_alive || exit "$PORT_TAKEN"
  fi
}
# It listens, or it has ended because the port is taken.
epmd_settled() { epmd_alive && listens "$B" || ! kill -0 "$(cat "$DIR/epmd.pid")" 2>/dev/null; }

has_plugin() { case ",$PLUGINS," in *",rabbitmq_$1,"*) true ;; *) false ;; esac; }

configure() { # I N
  local i=$1 n=$2 k home
  home=$(home "$i")
  mkdir -p "$home/data" "$home/log"
  {
    echo "listeners.tcp.1 = 127.0.0.1:$((B + i))"
    if [ -n "${RMQ_TLS_DIR:-}" ]; then
      echo "listeners.ssl.1 = 127.0.0.1:$((B + 30 + i))"
      echo "ssl_options.cacertfile = $RMQ_TLS_DIR/ca.pem"
      echo "ssl_options.certfile = $RMQ_TLS_DIR/cert.pem"
      echo "ssl_options.keyfile = $RMQ_TLS_DIR/key.pem"
      echo "ssl_options.verify = verify_none"
      echo "ssl_options.fail_if_no_peer_cert = false"
    fi
    if has_plugin management; then
      echo "management.tcp.ip = 127.0.0.1"
      echo "management.tcp.port = $((B + 20 + i))"
    fi
    if has_plugin prometheus; then
      echo "prometheus.tcp.ip = 127.0.0.1"
      echo "prometheus.tcp.port = $((B + 40 + i))"
    fi
    if [ "$n" -gt 1 ]; then
      echo "cluster_formation.peer_discovery_backend = classic_config"
      for k in $(seq "$n"); do echo "cluster_formation.classic_config.nodes.$k = $(name "$k")"; done
      echo "cluster_partition_handling = pause_minority"
      echo "net_ticktime = 60"
    fi
    echo "vm_memory_high_watermark.absolute = 4GB"
    echo "disk_free_limit.absolute = 50MB"
    echo "raft.wal_max_size_bytes = 33554432"
    echo "log.file.level = info"
    echo "log.console = false"
    printf '%s\n' "${RMQ_CONF:-}"
  } >"$home/rabbitmq.conf"
  echo "[$PLUGINS]." >"$home/enabled_plugins"
}

launch() { # I
  local i=$1 home
  home=$(home "$i")
  [ -f "$home/rabbitmq.conf" ] || die "there is no node $i"
  if alive "$i"; then return 0; fi
  prepare
  rm -f "$home/paused"
  (
    environment
    RABBITMQ_NODENAME=$(name "$i")
    export RABBITMQ_NODENAME RABBITMQ_NODE_PORT=$((B + i)) RABBITMQ_NODE_IP_ADDRESS=127.0.0.1
    export RABBITMQ_DIST_PORT=$((B + 10 + i))
    export RABBITMQ_CONFIG_FILE=$home/rabbitmq.conf RABBITMQ_ADVANCED_CONFIG_FILE=$home/advanced.config
    export RABBITMQ_ENABLED_PLUGINS_FILE=$home/enabled_plugins
    export RABBITMQ_MNESIA_BASE=$home/data RABBITMQ_MNESIA_DIR=$home/data/db
    export RABBITMQ_LOG_BASE=$home/log RABBITMQ_LOGS=$home/log/node.log
    export RABBITMQ_FEATURE_FLAGS_FILE=$home/feature_flags RABBITMQ_PID_FILE=$home/data/pid
    export RABBITMQ_GENERATED_CONFIG_DIR=$home/generated RABBITMQ_SCHEMA_DIR=$home/schema
    # Loopback between nodes too. Threads that wait must not spin: there are many of them.
    export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none ${RMQ_ERL_ARGS:-}"
    # The Erlang machine takes memory for as many files as it may open, in containers millions.
    ulimit -n 20000 2>/dev/null || true
    # Straight into the Erlang machine: no shell between its pid and us.
    export RUNNING_UNDER_SYSTEMD=true
    unset NOTIFY_SOCKET
    cd "$home"
    in_own_session "$BIN/rabbitmq-server" -carillon_test "$home" </dev/null >"$home/log/stdout.log" 2>&1
  ) &
  echo $! >"$home/pid"
}

# The listener opens last, when a node has joined its cluster.
up_or_gone() { listens "$((B + $1))" || ! kill -0 "$(pid_of "$1")" 2>/dev/null; }
wait_for() { # I
  if until_true "$WAIT" up_or_gone "$1" && alive "$1"; then return 0; fi
  if grep -qiE 'eaddrinuse|already.in.use|already_used' "$(home "$1")"/log/*; then exit "$PORT_TAKEN"; fi
  {
    echo "node $1 is not up; the first errors and the end of its log:"
    grep -hE '\[error\]|ERROR' "$(home "$1")"/log/* | head -n 20
    tail -n 20 "$(home "$1")"/log/*
  } >&2
  exit 1
}
start() { # I...
  local i
  for i in "$@"; do launch "$i"; done
  for i in "$@"; do wait_for "$i"; done
}
up() { # N
  local n=${1:-1} i
  prepare
  for i in $(seq "$n"); do configure "$i" "$n"; done
  # The first alone: two that are empty could each found a cluster.
  start 1
  [ "$n" -gt 1 ] || return 0
  # shellcheck disable=SC2046 # one word per node
  start $(seq 2 "$n")
  ctl 1 await_online_nodes "$n" --timeout 60 >&2 || die "the nodes do not form a cluster"
}

ctl() { # I ARGS
  local i=$1
  shift
  (environment && "$BIN/rabbitmqctl" --quiet --node "$(name "$i")" "$@")
}
# The number of the node that leads a quorum queue.
leader() {
  local found
  found=$(ctl "$(awake)" list_queues name leader --no-table-headers |
    awk -F '\t' -v queue="$1" '$1 == queue { sub(/^rabbit/, "", $2); sub(/-.*/, "", $2); print $2 }')
  [ -n "$found" ] || die "queue $1 has no leader"
  echo "$found"
}

online() {
  ctl "$(awake)" list_queues name online --no-table-headers |
    awk -F '\t' -v queue="$1" '$1 == queue { print gsub(/@/, "", $2) }'
}

ended() { ! alive "$1"; }
stop() { # I
  if ! alive "$1"; then return 0; fi
  kill -CONT "$(pid_of "$1")"
  kill -TERM "$(pid_of "$1")"
  until_true 30 ended "$1" || crash "$1"
}
# The whole group: the Erlang machine has small programs beside it.
crash() { # I
  if ! alive "$1"; then return 0; fi
  kill -KILL -- "-$(pid_of "$1")" 2>/dev/null || kill -KILL "$(pid_of "$1")" 2>/dev/null || true
  until_true 10 ended "$1"
}
pause() { alive "$1" && kill -STOP "$(pid_of "$1")" && touch "$(home "$1")/paused"; }
resume() { alive "$1" && rm -f "$(home "$1")/paused" && kill -CONT "$(pid_of "$1")"; }
down() {
  local i
  for i in $(nodes); do crash "$i"; done
  if epmd_alive; then kill -KILL "$(cat "$DIR/epmd.pid")"; fi
  rm -f "$DIR/epmd.pid"
}
each() { # WHAT I...
  local what=$1 i
  shift
  [ $# -gt 0 ] || die "which node?"
  for i in "$@"; do "$what" "$i" || die "could not $what node $i"; done
}

verb=${1:-}
shift || true
case $verb in
  up) up "$@" ;;
  start) start "$@" ;;
  stop | pause | resume) each "$verb" "$@" ;;
  kill) each crash "$@" ;;
  ctl) ctl "$@" ;;
  online) online "${1:?which queue}" ;;
  leader) leader "${1:?which queue}" ;;
  pid) alive "$1" && pid_of "$1" ;;
  urls) for i in $(nodes); do echo "amqp://guest:guest@127.0.0.1:$((B + i))/%2f"; done ;;
  tls-urls) for i in $(nodes); do echo "amqps://guest:guest@127.0.0.1:$((B + 30 + i))/%2f"; done ;;
  status)
    for i in $(nodes); do
      if alive "$i"; then state="pid $(pid_of "$i")"; else state=down; fi
      echo "$(name "$i") $state amqp $((B + i)) management $((B + 20 + i)) tls $((B + 30 + i))"
    done ;;
  down) down ;;
  *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
