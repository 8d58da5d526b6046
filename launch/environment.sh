# shellcheck shell=bash
# Sourced by the scripts beside it and by .ci/run: finds Python, makes the virtual environment, installs.
#
#   prepare_environment [EXTRA]    EXTRA: a name from setup.cfg's [options.extras_require], or nothing
#   absolute PATH                  prints it as seen from another directory
#
# Sets:  root (the checkout), VENV (the environment) and python (its interpreter), all absolute.
# Reads: LOCK, a file of requirements with hashes to install first, if it is given and made for this Python;
#        PYTHON, the interpreter to build with, else the first that fits; VENV, else .venv in the checkout.
# Exits: 1 pip failed, 2 no fit Python, 6 the disk is full or not writable; one line on stderr each.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
needed_mb=2500  # wheels unpacked (1.1 GB) and, where its directory shares the disk, pip's cache of them

fail() {  # EXIT_CODE MESSAGE
  printf 'bitnet_jax: error: %s\n' "$2" >&2
  exit "$1"
}

absolute() {  # PATH: as given where the script was started; a URL is left for the commands to refuse
  # shellcheck disable=SC2088  # No shell has expanded it, as in --output=~/x.
  case $1 in
    '' | /* | *://*) printf '%s\n' "$1" ;;
    '~' | '~/'*) printf '%s\n' "$HOME${1#'~'}" ;;
    *) printf '%s\n' "$PWD/$1" ;;
  esac
}

version_of() {  # COMMAND: prints its version; fails where it does not start or is older than 3.11
  "$1" -I -c 'import sys; print(*sys.version_info[:3], sep="."); sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {  # prints a Python that is new enough and can make environments
  local candidate found='' candidates=(python3 python3.11 python3.12 python3.13 python3.14)
  if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
  for candidate in "${candidates[@]}"; do
    # A version manager's stand-ins are on the path, but fail to start: run each one.
    version_of "$candidate" >/dev/null || continue
    found=$candidate
    if "$candidate" -I -c 'import venv, ensurepip' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  if [ -n "$found" ]; then
    fail 2 "PYTHON=$found: its venv module is missing; install it (Debian, Ubuntu: apt install python3-venv) or set PYTHON to another one"
  fi
  fail 2 "PYTHON=${PYTHON:-python3}: not found, or older than 3.11; install Python 3.11 or later, or set PYTHON to its path"
}

# The environment is made by these scripts, so theirs to delete, if this file is in it; a finished install
# leaves `installed`, so that one without it was cut short.
ours() { [ -e "$VENV/made_by_launch" ]; }

key() {  # prints what an install depends on: the requirements, the interpreter, the place
  printf '%s|%s|%s\n' "$(cat "$root/setup.cfg" "$root/pyproject.toml" ${LOCK:+"$LOCK"} | cksum)" "$(version_of "$python")" "$root"
}

installed() {  # EXTRA: is it installed, from this setup.cfg, by this Python?
  local key extras
  { read -r key && read -r extras; } <"$VENV/installed" || return
  [ "$key" = "$(key)" ] && [[ " base $extras " == *" ${1:-base} "* ]]
} 2>/dev/null

check_space() {
  local free_kb
  free_kb=$(df -Pk "$VENV" | awk 'END { print $4 }') || return 0
  [[ $free_kb =~ ^[0-9]+$ ]] || return 0
  if [ $((free_kb / 1024)) -lt $needed_mb ]; then
    fail 6 "VENV=$VENV: its disk has $((free_kb / 1024)) MB free and the install needs $needed_mb; free some, or set VENV to a directory elsewhere"
  fi
}

make_environment() {  # makes VENV afresh where there is none, or where what is there cannot be trusted
  local base='' version=''
  if [ -n "${PYTHON:-}" ]; then base=$(find_python) || exit; fi
  if [ -e "$VENV/pyvenv.cfg" ] && { [ -e "$VENV/installed" ] || ! ours; }; then
    version=$(version_of "$python") || version='broken'
    if [ "$version" = "$(version_of "${base:-$python}")" ]; then return; fi
    ours || fail 2 "VENV=$VENV: its Python ($version) is not one to use here; set VENV to another directory"
    echo "The Python of $VENV ($version) is not the one asked for: making it again."
  elif ours; then
    echo "The install in $VENV was cut short: starting it again."
  elif [ -n "$(ls -A "$VENV" 2>/dev/null)" ]; then
    fail 6 "VENV=$VENV: neither empty nor a virtual environment; set VENV to another directory"
  fi
  base=$(find_python) || exit
  if ours; then rm -rf "$VENV"; fi
  mkdir -p "$VENV" 2>/dev/null || fail 6 "VENV=$VENV: cannot be made; set VENV to a directory that can"
  check_space
  { : >"$VENV/made_by_launch"; } 2>/dev/null || fail 6 "VENV=$VENV: cannot be written; set VENV elsewhere"
  "$base" -m venv "$VENV" >"$VENV/install.log" 2>&1 ||
    fail 1 "VENV=$VENV: $base -m venv failed; see $VENV/install.log"
}

explain_pip() {  # REQUIREMENT: ends the script with the cause in one line
  local log=$VENV/install.log cause
  if grep -qE 'No space left on device|Disk quota exceeded' "$log"; then
    fail 6 "VENV=$VENV: the disk became full; free $needed_mb MB there and in pip's cache, then run this again"
  fi
  if grep -qE 'Failed to establish a new connection|Temporary failure in name resolution|Network is unreachable|ConnectTimeoutError|ProxyError' "$log"; then
    cause='the package index cannot be reached'
  else
    cause=$(sed -n 's/^ *ERROR: //p' "$log" | tail -n 1 | cut -c 1-200)
  fi
  fail 1 "pip install $1: ${cause:-failed}; details in $log"
}

install_locked() {  # exactly the files whose hashes are known; where they cannot be had, any that satisfy setup.cfg
  if [ -z "${LOCK:-}" ] || [[ $(version_of "$python") != $(basename "$LOCK" .txt | sed 's/.*-//').* ]]; then return; fi
  if "$python" -m pip install --no-input --progress-bar off --disable-pip-version-check --require-hashes -r "$LOCK" \
      >"$VENV/locked.log" 2>&1; then
    echo "Installed $LOCK by hash."
  else
    echo "$LOCK could not be installed as it is (log: $VENV/locked.log): taking what the index has."
  fi
}

install() {  # EXTRA
  local extras='' requirement=.
  if [ -e "$VENV/installed" ]; then extras=$(sed -n 2p "$VENV/installed"); fi
  if [ -n "${1:-}" ] && [[ " $extras " != *" $1 "* ]]; then extras="${extras:+$extras }$1"; fi
  if [ -n "$extras" ]; then requirement=".[${extras// /,}]"; fi
  echo "Installing $requirement into $VENV (one to three minutes; log: $VENV/install.log)."
  if [ -e "$VENV/installed" ]; then mv "$VENV/installed" "$VENV/installed_before"; fi
  install_locked
  if ! (cd "$root" && "$python" -m pip install --no-input --progress-bar off --disable-pip-version-check \
      -e "$requirement") >"$VENV/install.log" 2>&1; then
    # Pip gave up in good order, nearly always before it touched anything: keep what worked before.
    if [ -e "$VENV/installed_before" ]; then mv "$VENV/installed_before" "$VENV/installed"; fi
    explain_pip "-e $requirement"
  fi
  printf '%s\n%s\n' "$(key)" "$extras" >"$VENV/installed.part"
  mv "$VENV/installed.part" "$VENV/installed"
}

prepare_environment() {  # [EXTRA]
  VENV=${VENV:-$root/.venv}
  case $VENV in /*) ;; *) VENV=$PWD/$VENV ;; esac
  python=$VENV/bin/python
  # One install at a time: the checkout's directory is the lock, held until the descriptor is closed.
  exec 9<"$root"
  if command -v flock >/dev/null && ! flock -n 9; then
    echo 'Waiting for another install into this checkout.'
    flock 9
  fi
  if [ -n "${PYTHON:-}" ] || ! installed "${1:-}"; then
    make_environment
    installed "${1:-}" || install "${1:-}"
  fi
  exec 9<&-
}
