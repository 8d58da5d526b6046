#!/usr/bin/env bash
# Trains in several processes on this machine that work as one, as several machines would: on CPUs they exchange their
# gradients through Gloo.
#
#   ./launch/local_cluster.sh N --config=FILE --workdir=DIR [ARGUMENTS OF bitnet_jax.main]
#
# Each process has as many devices as it finds, on the CPU one unless XLA_FLAGS asks for more:
#   XLA_FLAGS=--xla_force_host_platform_device_count=2 ./launch/local_cluster.sh 2 ...
# The coordinator listens at 127.0.0.1; Gloo at the address that this machine's name stands for, which others may reach.
# SIGTERM and SIGINT go to all. The exit code is that of the process that failed by itself, 7 if one was lost, 75 if they
# were asked to stop. JAX_PLATFORMS is cpu unless it is set; PYTHON and VENV choose the interpreter and the environment
# (launch/environment.sh).
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

case ${1:-} in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"; exit ;; esac
count=${1:-}
[[ $count =~ ^[1-9][0-9]*$ ]] || fail 2 "processes=$count: not a whole number from 1; see --help"
shift
arguments=()
is_path=''  # Whether it is the value of the argument before it.
for argument in "$@"; do  # Paths are relative to where the script was started, and the processes run in the checkout.
  name=${argument%%=*}
  if [ -n "$is_path" ]; then
    argument=$(absolute "$argument")
    is_path=''
  elif [[ $name =~ ^--?(workdir|config|config\.data\.dir|config\.init_from)$ ]]; then
    if [ "$name" = "$argument" ]; then is_path=yes; else argument=$name=$(absolute "${argument#*=}"); fi
  fi
  arguments+=("$argument")
done

prepare_environment
cd "$root"
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

# In a session of their own, so that Ctrl-C reaches each process once, through the traps.
launcher=()
if command -v setsid >/dev/null; then launcher=(setsid); fi
processes=()
trap 'kill -TERM "${processes[@]}" 2>/dev/null || true' TERM
trap 'kill -INT "${processes[@]}" 2>/dev/null || true' INT
for ((process = 0; process < count; process++)); do
  ${launcher[@]+"${launcher[@]}"} "$python" -m bitnet_jax.main ${arguments[@]+"${arguments[@]}"} --coordinator_address="127.0.0.1:$port" \
    --num_processes="$count" --process_id="$process" &
  processes+=($!)
done

# The worst of the exit codes: a fault of its own before a lost process, that before a signal, success last.
result=0
rank() { case $1 in 0) echo 0 ;; 7) echo 2 ;; *) if [ "$1" -gt 128 ]; then echo 1; else echo 3; fi ;; esac; }
for process in "${processes[@]}"; do
  while true; do
    status=0
    wait "$process" || status=$?
    kill -0 "$process" 2>/dev/null || break  # A signal to this script ends the wait before its time.
  done
  if [ "$(rank "$status")" -gt "$(rank "$result")" ]; then result=$status; fi
done
exit "$result"
