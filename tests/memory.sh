#!/usr/bin/env bash
# The memory that each built-in recipe is announced to take, beside what it takes: a Markdown table.
#
#   bash tests/memory.sh [RECIPE…]     all built-in ones by default; Linux, as many GiB as the recipe needs
#
# Each recipe trains at its own batch and size on drawn images (those of cifar10-* 32 pixels, of all others but synth 320),
# while its anonymous resident memory (RssAnon) is watched: until the first checkpoint, which comes after a step, and for
# WATCH seconds (5) more; LIMIT seconds (900) at most. Then it is stopped. HANDGRAD and DATA_TOOLS name other programs than
# those of the release build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
handgrad=${HANDGRAD:-target/release/handgrad}
data_tools=${DATA_TOOLS:-target/release/data-tools}
watch=${WATCH:-5}
limit=${LIMIT:-900}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Anonymous resident memory of a process in MiB.
anonymous() {
    awk '/^RssAnon:/ { print int($2 / 1024) }' "/proc/$1/status" 2>/dev/null || true
}

# A dataset of drawn images of this size.
drawn() {
    local file=$work/synth-$1.hgd
    [ -f "$file" ] || "$data_tools" synth "$file" --train 1024 --valid 256 --size "$1" >/dev/null
    echo "$file"
}

measure() {
    local name=$1 side=320 pid most=0 now end stepped='' announced
    case $name in
    cifar10-* | synth-* | quickstart) side=32 ;;
    esac
    "$handgrad" train "$name" --data "$(drawn $side)" --out "$work/run" --checkpoint-minutes 0.001 >"$work/out" 2>"$work/err" &
    pid=$!
    end=$((SECONDS + limit))
    while kill -0 $pid 2>/dev/null && [ $SECONDS -lt $end ]; do
        [ -z "$stepped" ] && [ -f "$work/run/checkpoint.safetensors" ] && stepped=1 && end=$((SECONDS + watch))
        now=$(anonymous $pid)
        [ "${now:-0}" -gt $most ] && most=$now
        sleep 0.05
    done
    kill -TERM $pid 2>/dev/null || true
    wait $pid 2>/dev/null || true
    announced=$(grep -oE '[0-9.]+ MiB at most' "$work/out" | cut -d ' ' -f 1 || true)
    rm -rf "$work/run"
    if [ -z "$announced" ]; then
        echo "| \`$name\` | refused | $(grep -oE '[0-9.]+ [KMG]iB are (needed|free)[^)]*' "$work/err" | head -n 1) | |"
        return
    fi
    awk -v name="$name" -v announced="$announced" -v most=$most \
        'BEGIN { printf "| `%s` | %.0f | %d | %.2f |\n", name, announced, most, most / announced }'
}

echo '| recipe | announced, MiB | taken, MiB | ratio |'
echo '|---|---|---|---|'
names=("$@")
[ $# -gt 0 ] || mapfile -t names < <("$handgrad" recipes --json | grep -oE '"name": *"[^"]+"' | cut -d '"' -f 4)
for name in "${names[@]}"; do
    measure "$name"
done
