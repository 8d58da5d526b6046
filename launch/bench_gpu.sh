#!/usr/bin/env bash
# Training steps on a GPU against PyTorch: channels_last, autocast, torch.compile; a quarter of an hour.
#
#   ./launch/bench_gpu.sh --output=DIR [--torch_python=PYTHON] [--torch_compile=max-autotune] [--rounds=15] [--quick]
#
# torch_python   a Python with PyTorch; default: the environment's own.
# torch_compile  mode of torch.compile (max-autotune captures CUDA graphs); '' for eager.
# quick          the smallest network and batch alone, two steps a timing: to try the script out, on a CPU too.
#
# A timing has as many steps as take about half a second, so that what starts and stops it does not count. Writes
# DIR/results.jsonl and DIR/tables.md. PYTHON and VENV choose the interpreter and the environment
# (launch/environment.sh), which must have jax[cuda12] (pip install -e '.[cuda]').
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

output=''
torch_python=''
torch_compile=max-autotune
rounds=15
quick=''
for argument in "$@"; do
  case $argument in
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"; exit ;;
    --output=*) output=${argument#*=} ;;
    --torch_python=*) torch_python=${argument#*=} ;;
    --torch_compile=*) torch_compile=${argument#*=} ;;
    --rounds=*) rounds=${argument#*=} ;;
    --quick) quick=1 ;;
    *) fail 2 "argument=$argument: not known; see --help" ;;
  esac
done
[ -n "$output" ] || fail 2 'output=: required; give --output=DIR'
output=$(absolute "$output")
mkdir -p "$output"
prepare_environment
cd "$root"

measure() {  # CONFIG BATCH STEPS
  echo "== $1 batch $2"
  "$python" -m bitnet_jax.benchmark --what=step --config="configs/$1" --config.model.dtype=bfloat16 \
    --config.global_batch_size="$2" --config.model.batch_norm_group=0 --count="$3" --rounds="$rounds" --against=torch \
    --torch_python="${torch_python:-$python}" --torch_compile="$torch_compile" --json="$output/results.jsonl" >/dev/null
  "$python" -m bitnet_jax.benchmark --what=memory --config="configs/$1" --config.model.dtype=bfloat16 \
    --config.global_batch_size="$2" --config.model.batch_norm_group=0 --json="$output/results.jsonl" >/dev/null
}
if [ -n "$quick" ]; then
  measure cifar10_bitnet.py:1,2,1 8 2
else
  for network in cifar10_bitnet.py:4,3,4 cifar10_bitnet.py:10,2,2 cifar10_bitnet.py:4,4,3 cifar10_bitnet.py:12,4,2 \
    cifar10_wide_resnet.py:4,2,6; do
    measure "$network" 128 50
    measure "$network" 512 20
  done
  measure imagenet_bitnet34.py 256 5
  measure imagenet_resnet34.py 256 5
fi
"$python" -m bitnet_jax.benchmark --table="$output/results.jsonl" | tee "$output/tables.md"
