#!/usr/bin/env bash
# Breaks the CUDA kernels on purpose, one piece at a time (tests/cuda-mutants.list), and fails unless a test notices each.
#
#   tests/cuda-mutants.sh [PATTERN]    only the mutants whose name matches the extended regular expression
#
# The module concerned is compiled anew, and the program takes it from a folder (HANDGRAD_PTX): Rust is compiled once. Needs
# nvcc, which cuda/build.sh installs, in target/cuda-venv or the folder that HANDGRAD_CUDA_VENV names.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${HANDGRAD_CUDA_VENV:-target/cuda-venv}
nvcc=$(echo "$venv"/lib/python3*/site-packages/nvidia/cu13/bin/nvcc)
[ -x "$nvcc" ] || { echo "no nvcc in $venv: run cuda/build.sh" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/results"

perl tests/cuda-mutants.pl tests/cuda-mutants.list cuda "$work" "${1:-}" >"$work/jobs"

programs=$(cargo test --quiet --workspace --lib --test cuda --no-run --message-format=json)
program() { # kind, name
    sed -n 's/.*"kind":\["'"$1"'"\].*"name":"'"$2"'".*"executable":"\([^"]*\)".*/\1/p' <<<"$programs"
}
backend=$(program test cuda) library=$(program lib handgrad)
[ -x "$backend" ] && [ -x "$library" ] || { echo "the tests do not compile" >&2; exit 1; }

# run TEST FOLDER: the tests that TEST names, on the modules in the folder; the exit status of the tests.
run() {
    local program=$backend tests=(ops::every_op_agrees_with_the_reference) op="$1("
    case $1 in
        Pixels) tests=(pixels::images_are_moved_and_mirrored_at_any_size) ;;
        Optimizers) tests=(optim::every_optimizer_steps_as_on_the_cpu) ;;
        Tiles:*) program=$library tests=("ops::conv2d::cuda::tests::every_kernel_of_the_${1#Tiles:}") ;;
    esac
    # A kernel without an end is stopped after so many instructions of a warp.
    HANDGRAD_PTX=$2 HANDGRAD_CASES=$op HANDGRAD_FAIL_FAST=1 DRIVER_DOUBLE_BUDGET=20000000 DRIVER_DOUBLE_THREADS=1 \
        timeout --kill-after=5 300 "$program" --test-threads=1 "${tests[@]}"
}

# check TEST: its tests pass without a mutant.
check() {
    run "$1" "$PWD/cuda/ptx" >"$work/results/$1.unbroken" 2>&1 && return
    cat "$work/results/$1.unbroken"
    return 255 # xargs starts no more
}

# reason MODULE LOG: by what tests notice: the first fault of the driver double, or other numbers.
reason() {
    local fault
    if grep -q "$1\.ptx" "$2"; then
        echo 'ERROR: it is not loaded'
    else
        fault=$(sed -nE 's/^driver double: [a-z0-9_]+, block .*thread [^)]*\): (.*); PTX line.*/\1/p' "$2" | head -n 1)
        echo "${fault:-another result}"
    fi
}

# one INDEX NAME TEST MODULE: writes the mutant's row of the table.
one() {
    local ptx=$work/$1/ptx log=$work/results/$1.log start=${EPOCHREALTIME/./} status=0 by
    mkdir "$ptx"
    cp cuda/ptx/*.ptx "$ptx"
    local version arch
    version=$(sed -n 's/^\.version //p' "cuda/ptx/$4.ptx") arch=$(sed -n 's/^\.target sm_/compute_/p' "cuda/ptx/$4.ptx")
    if ! "$nvcc" -ptx -arch="$arch" "$work/$1/$4.cu" -o "$work/$1/new.ptx" >"$log" 2>&1; then
        by='ERROR: it does not compile'
    elif sed -i "s/^\.version .*/.version $version/" "$work/$1/new.ptx" && cmp -s "$work/$1/new.ptx" "$ptx/$4.ptx"; then
        by='ERROR: the compiler makes the same of it'
    else
        mv "$work/$1/new.ptx" "$ptx/$4.ptx"
        run "$3" "$ptx" >"$log" 2>&1 || status=$?
        case $status in
            0) by='SURVIVES' ;;
            101) by=$(reason "$4" "$log") ;;
            124 | 137) by='(hangs)' ;;
            *) by="ERROR: exit status $status" ;;
        esac
    fi
    printf '%s %s %s %s %s %s\n' "$1" "$2" "$3" "$4" $(((${EPOCHREALTIME/./} - start) / 1000)) "$by" >"$work/results/$1.row"
}
export -f run check reason one
export work nvcc backend library

awk '{ print $3 }' "$work/jobs" | sort -u | xargs -P "$(nproc)" -I{} bash -c 'check {}' ||
    { echo "the tests fail without a mutant" >&2; exit 1; }
echo "unbroken: every test passes"

xargs -P "$(nproc)" -L 1 bash -c 'one "$@"' one <"$work/jobs"

cat "$work"/results/*.row | sort -n |
    awk '{ by = $6; for (i = 7; i <= NF; i++) by = by " " $i
           printf "%3d  %-40s %-20s %-14s %5.1f s  %s\n", $1, $2, $3, $4, $5 / 1000, by }'
total=$(wc -l <"$work/jobs")
bad=$(cat "$work"/results/*.row | grep -cE ' (SURVIVES|ERROR: .*)$' || true)
echo "$total mutants, $((total - bad)) noticed, $bad not"
[ "$bad" -eq 0 ]
