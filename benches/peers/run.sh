#!/usr/bin/env bash
# handgrad beside PyTorch and burn on this machine: the same nets, batch and threads, by turns, as a Markdown table.
#
#   benches/peers/run.sh
#
# ROUNDS (5), SECONDS_EACH (3), THREADS (2), BATCH (256), MODELS ("simplenet convnet2 resnet2") change the work;
# PYTHON (python3) is an interpreter that has torch and safetensors; PEERS ("torch burn") leaves out what it does not
# name. A peer that is not installed is skipped, with the reason. Run it on a machine that does nothing else.
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${ROUNDS:-5} seconds=${SECONDS_EACH:-3} threads=${THREADS:-2} batch=${BATCH:-256}
models=${MODELS:-simplenet convnet2 resnet2} python=${PYTHON:-python3} peers=${PEERS:-torch burn}
target=${CARGO_TARGET_DIR:-$PWD/target}
burn_target=${BURN_TARGET_DIR:-$target/peers}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export RAYON_NUM_THREADS=$threads

cargo build --release --quiet --bin handgrad
contestants=(handgrad)
for peer in $peers; do
    case $peer in
        torch)
            if "$python" -c 'import torch, safetensors, numpy' 2>"$work/why"; then
                contestants+=(torch)
            else
                echo "PyTorch is skipped: $(tail -n 1 "$work/why") ($python; PYTHON names another one)" >&2
            fi
            ;;
        burn)
            if CARGO_TARGET_DIR=$burn_target cargo build --release --quiet --locked \
                --manifest-path benches/peers/burn/Cargo.toml 2>"$work/why"; then
                contestants+=(burn)
            else
                echo "burn is skipped: $(grep -m 1 '^error' "$work/why" || tail -n 1 "$work/why")" >&2
            fi
            ;;
        *)
            echo "unknown peer $peer: torch or burn" >&2
            exit 2
            ;;
    esac
done

# measure CONTESTANT MODEL: one JSON object.
measure() {
    case $1 in
        handgrad)
            "$target/release/handgrad" bench "cifar10-$2" --batch "$batch" --size 32 --threads "$threads" \
                --seconds "$seconds" --json
            ;;
        torch) "$python" benches/peers/torch_bench.py "$2" --batch "$batch" --seconds "$seconds" --threads "$threads" ;;
        burn) "$burn_target/release/burn-bench" "$2" "$batch" "$seconds" ;;
    esac
}

# Every contestant in every round, so that whatever else the machine does meets all alike.
for round in $(seq "$rounds"); do
    for model in $models; do
        for contestant in "${contestants[@]}"; do
            echo "round $round of $rounds: $model, $contestant" >&2
            measure "$contestant" "$model" | tr -d '\n' >"$work/$model.$contestant.$round"
        done
    done
done

# values MODEL CONTESTANT KEY: the value of each round, a line each.
values() {
    local round
    for round in $(seq "$rounds"); do
        sed -n "s/.*\"$3\": *\([0-9.eE+-]*\).*/\1/p" "$work/$1.$2.$round"
        echo
    done | grep -v '^$'
}

# spread DIGITS: median (lowest–highest) of the lines.
spread() {
    sort -g | awk -v digits="$1" '
        { value[NR] = $1 }
        END {
            if (NR == 0) { print "–"; exit }
            middle = NR % 2 ? value[(NR + 1) / 2] : (value[NR / 2] + value[NR / 2 + 1]) / 2
            printf "%.*f (%.*f–%.*f)\n", digits, middle, digits, value[1], digits, value[NR]
        }'
}

# ways MODEL KEY: which way to run was PyTorch's best, the most frequent over the rounds.
ways() {
    cat "$work/$1".torch.* | grep -o "\"$2\": *\"[^\"]*\"" | sed 's/.*: *"\(.*\)"/\1/' | sort | uniq -c | sort -rn |
        sed -n '1s/^ *[0-9]* //p'
}

has() { [[ " ${contestants[*]} " == *" $1 "* ]]; }

name=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo 2>/dev/null | head -n 1)
echo
echo "${name:-unknown CPU}, $threads threads, batch $batch; median of $rounds rounds (lowest–highest)."
echo "Ratios above 1 mean that handgrad is faster; each round's own ratio, then their median."
echo
header='| model | measure | handgrad |' rule='|---|---|---|'
if has torch; then
    version=$(sed -n 's/.*"version": *"\([^"]*\)".*/\1/p' "$work/${models%% *}.torch.1")
    header+=" PyTorch $version, f32 | handgrad / it | PyTorch's best | which is | handgrad / it |"
    rule+='---|---|---|---|---|'
fi
if has burn; then
    version=$(sed -n 's/^burn = .*version = "=\([^"]*\)".*/\1/p' benches/peers/burn/Cargo.toml)
    header+=" burn-flex $version | handgrad / it |" rule+='---|---|'
fi
echo "$header"
echo "$rule"

for model in $models; do
    for measure in 'train_images_per_second|training, images/s|0' 'infer_images_per_second|inference, images/s|0' \
        'latency_ms|one image, ms|3'; do
        IFS='|' read -r key label digits <<<"$measure"
        values "$model" handgrad "$key" >"$work/ours"
        row="| $model | $label | $(spread "$digits" <"$work/ours") |"
        # beside PEER KEY: the peer's value, and as ratio handgrad's advantage in each round.
        beside() {
            values "$model" "$1" "$2" >"$work/theirs"
            row+=" $(spread "$digits" <"$work/theirs") |"
            ratio=$(paste "$work/ours" "$work/theirs" |
                awk -v key="$key" '{ print key == "latency_ms" ? $2 / $1 : $1 / $2 }' | spread 2)
        }
        if has torch; then
            beside torch "f32_$key"
            row+=" $ratio |"
            beside torch "$key"
            row+=" $(ways "$model" "${key%%_*}_way") | $ratio |"
        fi
        if has burn; then
            beside burn "$key"
            row+=" $ratio |"
        fi
        echo "$row"
    done
done
