#!/usr/bin/env bash
# Runs the whole test suite in the project's virtual environment, which is made on the first run.
#
#   ./launch/test.sh [ARGUMENTS OF PYTEST]     for example: ./launch/test.sh tests/models -k bitnet
#   ./launch/test.sh --faults [ARGUMENTS]      the long fault tests instead (tests/faults/README.md): 100 kills, 10,000
#                                              fuzzed command lines and the rest, about an hour
#
# PYTHON and VENV choose the interpreter and the environment (launch/environment.sh). The last line is pytest's own
# summary; the exit code is pytest's.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

case ${1:-} in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"; exit ;; esac

if [ "${1:-}" = --faults ]; then
  shift
  export KILLS=${KILLS:-100} FUZZ_CASES=${FUZZ_CASES:-10000}
  set -- -s tests/faults tests/training/kill_test.py tests/fuzz_test.py "$@"
fi
prepare_environment test
output=$(mktemp)
trap 'rm -f "$output"' EXIT

cd "$root"
status=0
"$python" -m pytest "$@" 2>&1 | tee "$output" || status=${PIPESTATUS[0]}

# Libraries may print after pytest, while the interpreter ends.
closing=$(grep -E '^(=+ )?([0-9]+ [a-z]+|no tests ran).* in [0-9.]+s' "$output" | tail -n 1 || true)
if [ -n "$closing" ] && [ "$(tail -n 1 "$output")" != "$closing" ]; then printf '%s\n' "$closing"; fi
exit "$status"
