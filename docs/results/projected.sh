#!/usr/bin/env bash
# What the recipes on photographs would take on this machine: the table "What a run would take" of docs/results.md. Nothing else should
# run meanwhile.
#
#   docs/results/projected.sh IMAGEWOOF.hgd [RECIPE…]     all recipes woof-* and nette-* by default; hours
#   STEPS=20 docs/results/projected.sh …                  fewer than 200 measured steps of each
#   SETTING=data.batch=8 docs/results/projected.sh …      one key of the recipe changed
#
# Images of Imagenette would take the same time; where it is not at hand, Imagewoof's stand in for them.
set -euo pipefail
data=$(realpath "${1:?the Imagewoof dataset: data-tools convert imagewoof2-320 imagewoof2-320.hgd}")
shift
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
cargo build --release --quiet
handgrad=${CARGO_TARGET_DIR:-target}/release/handgrad
[ $# -gt 0 ] || set -- $(cd recipes && printf '%s\n' woof-*.toml nette-*.toml | sed 's/\.toml$//')

echo "| recipe | steps | training, images/s | evaluation, images/s | loss | peak, MiB | epochs | hours |"
echo "|---|---|---|---|---|---|---|---|"
for recipe in "$@"; do
    "$handgrad" estimate "$recipe" --data "$data" --steps "${STEPS:-200}" ${SETTING:+--set "$SETTING"} --json |
        python3 docs/results/projected.py "$recipe" ${SETTING:+"$SETTING"}
done
