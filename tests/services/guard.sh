#!/usr/bin/env bash
# Brings servers up for one test, and ends them when the test ends, however it ends.
#
#   guard.sh rabbitmq [N] | redis [N] | redis-cluster [N] | redis-sentinel
#
# Prints `ready URL...` on one line when they are up, or `failed WHY`. Then it takes commands from
# standard input, one a line (`stop 1`, `start 1`, `kill 1`, `pause 1`, `resume 1`, `ctl 1 ...`: see
# rabbitmq.sh and redis.sh; `dir` says where the servers live). Each is answered by the lines of its
# output, which begin with `| `, and a last line: `ok`, or `failed WHY`. Words are separated by
# blanks, or, in a line that holds one, each is ended by the character 0x1f.
#
# When standard input closes, also because whoever held it was killed, everything that was started
# is ended and the directory removed. An interrupt is for the test, not for the guard; a SIGTERM
# cuts a boot short.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/services/common.sh
. "$here/common.sh"

# Nobody listens any more: then there is nothing more to do either.
say() { echo "$*" 2>/dev/null || exit 1; }
failed() { say "failed $(tr -s '\n\t ' ' ' <<<"$*")"; }

if ! sentence=$("$here/install.sh" --check 2>&1); then
  failed "$sentence"
  exit 1
fi
case ${1:-} in
  rabbitmq) script=rabbitmq.sh ;;
  redis | redis-cluster | redis-sentinel)
    script=redis.sh
    kind=${1#redis}
    kind=${kind#-}
    export REDIS_KIND=${kind:-single} ;;
  *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

DIR=$(mktemp -d "${TMPDIR:-/tmp}/carillon-test.XXXXXX") || exit 1
DIR=$(cd "$DIR" && pwd -P)
export RMQ_DIR=$DIR/servers REDIS_DIR=$DIR/servers
booting=
cleanup() {
  [ -z "$booting" ] || { kill -TERM "$booting" && wait "$booting"; } 2>/dev/null
  [ ! -d "$DIR/servers" ] || "$here/$script" down
  # What a server still had open is written a moment later.
  until_true 5 rm -rf "$DIR"
}
trap cleanup EXIT
trap '' INT HUP PIPE
# Only noted: an exit in the middle of tidying up would leave things behind.
told_to_end=
trap 'told_to_end=1' TERM

# Blocks of 64 ports below those that the system gives to outgoing connections: while a server is
# down, nobody else gets its port. Guards that live at one time have different pids.
BLOCKS=340
choose_ports() { # ATTEMPT
  local block=$((($$ + $1 * 127) % BLOCKS)) port
  base=$((10000 + block * 64))
  for port in 0 1 2 3 11 12 13 21 22 23 31 32 33; do
    if listens $((base + port)); then return 1; fi
  done
  export RMQ_PORT_BASE=$base REDIS_PORT_BASE=$base
}
# Waits for what takes long, unless nobody wants it any more.
watch_over() { # PID
  local status
  booting=$1
  while kill -0 "$booting" 2>/dev/null; do
    if [ -n "$told_to_end" ] || ! kill -0 "$PPID" 2>/dev/null; then exit 1; fi
    sleep 0.1
  done
  wait "$booting"
  status=$?
  booting=
  return "$status"
}
up() { # N
  local attempt status
  for attempt in 0 1 2 3 4 5 6 7 8 9; do
    choose_ports "$attempt" || continue
    "$here/$script" up "${1:-1}" </dev/null >&2 &
    watch_over $!
    status=$?
    # 3: somebody else was quicker to take a port.
    [ "$status" = 3 ] || return "$status"
    "$here/$script" down
    rm -rf "$DIR/servers"
  done
  return 1
}
carry_out() { # WORDS
  local status
  case ${1:-} in
    dir) say "| $DIR" && say ok && return ;;
    start | stop | kill | pause | resume | ctl | cli | leader | online | pid | urls | tls-urls | status) ;;
    *) failed "there is no command \`${1:-}\`" && return ;;
  esac
  "$here/$script" "$@" </dev/null >"$DIR/out" 2>"$DIR/err"
  status=$?
  sed 's/^/| /' "$DIR/out" 2>/dev/null
  if [ "$status" = 0 ]; then
    say ok
  else
    # Of a server that does not start there is more to say than fits a line.
    [ "$1" != start ] || cat "$DIR/err" >&2
    failed "$(tail -n 5 "$DIR/err")"
  fi
}

if ! up "${2:-1}"; then
  failed "the servers did not come up; standard error says more"
  exit 1
fi
say "ready $("$here/$script" urls | tr '\n' ' ' | sed 's/ $//')"
while IFS= read -r line; do
  case $line in
    *$'\x1f'*) IFS=$'\x1f' read -r -a words <<<"$line" ;;
    *) read -r -a words <<<"$line" ;;
  esac
  [ -z "$line" ] || carry_out "${words[@]}"
done
