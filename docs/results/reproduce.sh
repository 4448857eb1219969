#!/usr/bin/env bash
# Runs every experiment of docs/results.md and prints its tables.
#
#   docs/results/reproduce.sh CIFAR10.hgd [OUT] [SEEDS]      OUT: runs/results   SEEDS: "0 1 2"
#   IMAGEWOOF=FILE.hgd docs/results/reproduce.sh …           those on Imagewoof (imagewoof2-320) as well: hours
#
# A run that has finished is not repeated; one that was stopped goes on from its checkpoint.
set -euo pipefail
data=$(realpath "${1:?the CIFAR-10 dataset: data-tools convert cifar-10-binary.tar.gz cifar10.hgd}")
imagewoof=${IMAGEWOOF:+$(realpath "$IMAGEWOOF")}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=${2:-runs/results}
seeds=${3:-0 1 2}
cargo build --release --quiet
handgrad=${CARGO_TARGET_DIR:-target}/release/handgrad

# run RECIPE SEED [FLAG…]; RECIPE-defaults is RECIPE in a folder of its own
run() {
    local recipe=${1%-defaults} seed=$2 folder=$out/$1/seed-$2
    shift 2
    if [ -e "$folder/result.json" ]; then
        return
    elif [ -e "$folder/recipe.toml" ]; then
        "$handgrad" train --out "$folder" --resume
    else
        "$handgrad" train "$recipe" --seed "$seed" --out "$folder" "$@"
    fi
}

for seed in $seeds; do
    for recipe in synth-linear synth-simplenet quickstart; do
        run "$recipe" "$seed"
    done
    for net in simplenet convnet convnet2 convbnnet convbnnet2 resnet; do
        run "cifar10-$net" "$seed" --data "$data"
    done
done
run cifar10-resnet2 "${seeds%% *}" --data "$data"
run cifar10-resnet-7ep "${seeds%% *}" --data "$data"
run cifar10-fast "${seeds%% *}" --data "$data"
if [ -n "$imagewoof" ]; then
    run woof-xse_resnext18 1 --data "$imagewoof"
    run woof-xse_resnext18-deep 1 --data "$imagewoof"
    # The same by the defaults of the published script, which its row may have been made with.
    for seed in 1 0; do
        run woof-xse_resnext18-deep-defaults $seed --data "$imagewoof" --set phase.0.lr=1e-2 --set optimizer.momentum=0.9
    done
fi

python3 docs/results/table.py "$out"
