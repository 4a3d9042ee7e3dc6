# Shared by the scripts of this directory: where the servers are, and what a process is doing.
# shellcheck shell=bash

die() { echo "${0##*/}: $*" >&2; exit 1; }

# Succeeds when the directory holds RabbitMQ's own scripts. Packages also put wrappers into
# /usr/sbin that change the user and want /var; those have no rabbitmq-env beside them.
holds_rabbitmq() { [ -x "$1/rabbitmq-server" ] && [ -x "$1/rabbitmqctl" ] && [ -f "$1/rabbitmq-env" ]; }

# The directory of RabbitMQ's own scripts, or nothing.
rabbitmq_bin() {
  local place
  place=$(command -v rabbitmq-server 2>/dev/null || true)
  for place in "${RMQ_BIN:-}" "${place%/*}" /usr/lib/rabbitmq/bin /usr/lib/rabbitmq/lib/*/sbin \
    /opt/rabbitmq/sbin /opt/homebrew/opt/rabbitmq/sbin /opt/homebrew/sbin \
    /usr/local/opt/rabbitmq/sbin /usr/local/sbin; do
    if [ -n "$place" ] && holds_rabbitmq "$place"; then echo "$place"; return 0; fi
  done
  return 1
}

# Where a program is: on the PATH or where packages put it; or nothing.
program() {
  local place
  if command -v "$1" 2>/dev/null; then return 0; fi
  for place in /usr/bin /usr/sbin /usr/local/bin /usr/local/sbin /opt/homebrew/bin /opt/homebrew/sbin \
    /usr/lib/erlang/bin /usr/lib/erlang/erts-*/bin /opt/erlang/lib/erlang/bin; do
    if [ -x "$place/$1" ]; then echo "$place/$1"; return 0; fi
  done
  return 1
}

# What is not there, in the packages' words.
missing() {
  if ! rabbitmq_bin >/dev/null || ! program epmd >/dev/null; then echo rabbitmq-server; fi
  if ! program redis-server >/dev/null || ! program redis-cli >/dev/null; then echo redis-server; fi
}

# The command line of a process; of a zombie, or of none, nothing.
command_of() {
  if [ -d /proc/self ]; then
    { tr '\0' ' ' <"/proc/$1/cmdline"; } 2>/dev/null || true
  else
    ps -o command= -p "$1" 2>/dev/null || true
  fi
}

# runs FILE MARK...: the process whose pid is in FILE still is the one with a MARK in its command
# line (pids are used again).
runs() {
  local pid command mark
  pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] || return 1
  shift
  command=$(command_of "$pid")
  if [ -z "$command" ] && kill -0 "$pid" 2>/dev/null; then
    # A zombie; or looked at while it became another program.
    sleep 0.05
    command=$(command_of "$pid")
  fi
  for mark in "$@"; do
    case "$command" in *"$mark"*) return 0 ;; esac
  done
  return 1
}

# Runs a program in a session of its own, under the same pid: a Ctrl-C is not for it, and what it
# starts can be ended with it. (Job control would do the same, but stops without a terminal.)
in_own_session() {
  if command -v setsid >/dev/null; then
    exec setsid "$@"
  else
    exec perl -MPOSIX -e 'POSIX::setsid(); exec @ARGV' "$@"
  fi
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# until_true SECONDS CONDITION...: fails when the condition does not come true in time.
until_true() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.1
  done
}
