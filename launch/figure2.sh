#!/usr/bin/env bash
# Trains the nine networks of Figure 2 one after the other and draws the gradient's norm at their first convolution.
#
#   ./launch/figure2.sh --output=DIR [--data_dir=DIR] [--epochs=200] [--dataset=cifar100] [--networks='NAME ...']
#                       [--config.FIELD=VALUE ...]
#
# dataset   cifar10 or cifar100, prepared in data_dir (python -m bitnet_jax.prepare; default: tfds's directory). For
#           another prepared set give --config.data.name and what it needs (--config.data.mean, --config.data.std, ...):
#           the rest of the recipe is that of the dataset named here.
# epochs    any number; the learning rate drops at the epochs of the paper's recipe unless --config.optim.drop_epochs
#           says otherwise.
# networks  some of the nine, the quickest first: bitnet:4,1,2 bitnet:4,2,2 bitnet:4,4,2 bitnet:4,6,2 bitnet:4,4,3
#           bitnet:4,3,4 bitnet:4,2,6 plainnet:4,2,6 wide_resnet:4,2,6
#
# Writes DIR/NAME_d_k_n, a work directory for each network, and DIR/figure2.png and .svg, anew after each network. Run
# again, it goes on where it was stopped; with more epochs it trains further. PYTHON and VENV choose the interpreter and
# the environment (launch/environment.sh).
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

epochs=200
dataset=cifar100
data_dir=''
output=''
networks='bitnet:4,1,2 bitnet:4,2,2 bitnet:4,4,2 bitnet:4,6,2 bitnet:4,4,3 bitnet:4,3,4 bitnet:4,2,6'
networks+=' plainnet:4,2,6 wide_resnet:4,2,6'
overrides=()
for argument in "$@"; do
  case $argument in
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"; exit ;;
    --epochs=*) epochs=${argument#*=} ;;
    --dataset=*) dataset=${argument#*=} ;;
    --data_dir=*) data_dir=${argument#*=} ;;
    --output=*) output=${argument#*=} ;;
    --networks=*) networks=${argument#*=} ;;
    --config.*=*) overrides+=("$argument") ;;
    *) fail 2 "argument=$argument: not known; see --help" ;;
  esac
done
case $dataset in
  cifar10 | cifar100) ;;
  *) fail 2 "dataset=$dataset: not cifar10 or cifar100; see --help for other sets" ;;
esac
[ -n "$output" ] || fail 2 'output=: required; give --output=DIR'
for network in $networks; do
  [[ $network =~ ^(bitnet|plainnet|wide_resnet):[0-9]+,[0-9]+,[0-9]+$ ]] ||
    fail 2 "networks=$network: not a network; write it like bitnet:4,6,2"
done
# Paths are relative to where the script was started, and the commands run in the checkout.
output=$(absolute "$output")
data_dir=$(absolute "$data_dir")

prepare_environment
cd "$root"
drawn=()
for network in $networks; do
  workdir=$output/${network//[:,]/_}
  echo "== $network, $epochs epochs: $workdir"
  "$python" -m bitnet_jax.main --config="configs/${dataset}_${network%%:*}.py:${network#*:}" --workdir="$workdir" \
    --config.num_epochs="$epochs" --config.data.dir="$data_dir" ${overrides[@]+"${overrides[@]}"}
  drawn+=(--workdir="$workdir")
  for suffix in png svg; do
    "$python" -m bitnet_jax.analysis.figure2 "${drawn[@]}" --output="$output/figure2.$suffix"
  done
done
