#!/usr/bin/env bash
# From a fresh checkout to a trained network: makes the virtual environment, prepares the handwritten digits that come
# with scikit-learn, trains a small BitNet on them on the CPU, and draws its learning curves.
#
#   ./launch/quickstart.sh [--config.FIELD=VALUE ...]
#
# PYTHON and VENV choose the interpreter and the environment (launch/environment.sh). Everything is written under
# runs/ in the checkout. Run again, it finds the finished run and prints the same result.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

case ${1:-} in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"; exit ;; esac

prepare_environment
cd "$root"
data=runs/tensorflow_datasets
workdir=runs/quickstart

finished=$(cat "$workdir/result.json" 2>/dev/null || true)
"$python" -m bitnet_jax.prepare --dataset=digits --data_dir="$data"
"$python" -m bitnet_jax.main --config=configs/digits_bitnet.py --workdir="$workdir" --config.data.dir="$data" "$@"
if [ -n "$finished" ] && [ "$finished" = "$(cat "$workdir/result.json")" ]; then
  echo "$workdir was finished already: delete it to train again."
fi
"$python" -m bitnet_jax.analysis.curves --workdir="$workdir" --output="$workdir/curves.png"
echo "events for TensorBoard: $workdir/tensorboard"
"$python" -m bitnet_jax.analysis.result --workdir="$workdir"
