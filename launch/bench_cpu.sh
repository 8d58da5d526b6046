#!/usr/bin/env bash
# Every benchmark of BENCHMARKS.md that runs on a CPU, one after the other; about half an hour on two idle cores.
#
#   ./launch/bench_cpu.sh --output=DIR [--torch_python=PYTHON] [--images=FOLDER_OR_TAR] [--rounds=11]
#
# torch_python  a Python with PyTorch (pip install torch) and onnxruntime (pip install onnx onnxscript onnxruntime); without
#               it, nothing is compared.
# images        photographs for the input benchmark; else it makes some of noise.
#
# Writes DIR/results.jsonl, DIR/tables.md and DIR/scaling.png. PYTHON and VENV choose the interpreter and
# the environment (launch/environment.sh).
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

output=''
torch_python=''
images=''
rounds=11
for argument in "$@"; do
  case $argument in
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"; exit ;;
    --output=*) output=${argument#*=} ;;
    --torch_python=*) torch_python=${argument#*=} ;;
    --images=*) images=${argument#*=} ;;
    --rounds=*) rounds=${argument#*=} ;;
    *) fail 2 "argument=$argument: not known; see --help" ;;
  esac
done
[ -n "$output" ] || fail 2 'output=: required; give --output=DIR'
output=$(absolute "$output")
images=$(absolute "$images")
mkdir -p "$output"
prepare_environment
cd "$root"
export JAX_PLATFORMS=cpu

against=()
if [ -n "$torch_python" ]; then against=(--against=torch --torch_python="$torch_python"); fi
measure() {  # WHAT CONFIG TYPE BATCH [ARGUMENTS]
  local what=$1 config=$2 dtype=$3 batch=$4
  shift 4
  echo "== $what $config $dtype batch $batch"
  "$python" -m bitnet_jax.benchmark --what="$what" --config="configs/$config" --config.model.dtype="$dtype" \
    --config.global_batch_size="$batch" --config.model.batch_norm_group=0 --json="$output/results.jsonl" "$@" >/dev/null
}
compare() { measure "$@" --rounds="$rounds" ${against[@]+"${against[@]}"}; }

networks=(cifar10_bitnet.py:4,3,4 cifar10_bitnet.py:10,2,2 cifar10_bitnet.py:4,4,3 cifar10_bitnet.py:12,4,2
  cifar10_wide_resnet.py:4,2,6)
for dtype in bfloat16 float32; do
  for batch in 64 128; do
    for network in "${networks[@]}"; do compare step "$network" "$dtype" "$batch"; done
  done
done
for network in cifar10_bitnet.py:4,6,2 cifar10_bitnet.py:4,4,3 cifar10_wide_resnet.py:4,2,6; do
  compare infer "$network" float32 1 --count=20
  compare infer "$network" float32 256
done
compare infer cifar10_bitnet.py:4,6,2 bfloat16 256
for dtype in bfloat16 float32; do
  measure loop cifar10_bitnet.py:4,3,4 "$dtype" 64 --rounds=8
  measure compile cifar10_bitnet.py:4,3,4 "$dtype" 64
done
measure memory cifar10_bitnet.py:4,3,4 float32 64
measure scaling cifar10_bitnet.py:4,3,1 float32 64 --rounds=5 --figure="$output/scaling.png"
"$python" -m bitnet_jax.benchmark --what=input ${images:+--images="$images"} --json="$output/results.jsonl" >/dev/null
"$python" -m bitnet_jax.benchmark --table="$output/results.jsonl" | tee "$output/tables.md"
