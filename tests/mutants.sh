#!/usr/bin/env bash
# Breaks every op on purpose, one expression at a time (tests/mutants.list), and fails unless a test notices each.
#
#   tests/mutants.sh [PATTERN]    only the mutants whose name matches the extended regular expression
#
# All mutants are compiled at once: in a copy of the tree, target/mutants/src, each listed expression becomes
# `if crate::mutant(N) { broken } else { code }`, and HANDGRAD_MUTANT=N picks one at run time.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$PWD/target/mutants
src=$work/src
rm -rf "$src" "$work/results"
mkdir -p "$src" "$work/results"

git ls-files -z --cached --others --exclude-standard | tar --null --ignore-failed-read -cf - -T - 2>/dev/null | tar -xmf - -C "$src"
perl tests/mutants.pl tests/mutants.list "$src" "${1:-}" >"$work/jobs"
# Whole models take long and say little about which op is wrong.
cat >"$src/tests/library/main.rs" <<'MODULES'
mod conformance;
#[allow(dead_code)]
mod golden;
mod known_answers;
#[allow(dead_code)]
#[path = "../pytorch/mod.rs"]
mod pytorch;
MODULES

# Crates that a build of the tests without debug information has compiled need not be compiled again.
compiled=${CARGO_TARGET_DIR:-target}/debug
if [ ! -d "$work/build" ] && [ -d "$compiled/.fingerprint" ]; then
    mkdir -p "$work/build/debug"
    cp -al "$compiled/.fingerprint" "$compiled/build" "$compiled/deps" "$work/build/debug" || rm -rf "$work/build"
fi

echo "compiling $(wc -l <"$work/jobs") mutants"
binary=$(
    CARGO_TARGET_DIR=$work/build CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=none \
        cargo test --quiet --manifest-path "$src/Cargo.toml" --package handgrad --no-default-features \
        --features conformance,image,train --test library --no-run --message-format=json |
        sed -n 's/.*"name":"library".*"executable":"\([^"]*\)".*/\1/p'
)
[ -x "$binary" ] || { echo "the mutants do not compile" >&2; exit 1; }

# run INDEX OP LEVEL FILTER...: the op's cases and all known answers; the exit status of the tests.
run() {
    HANDGRAD_MUTANT=$1 HANDGRAD_CASES=$2 HANDGRAD_SIMD=$3 timeout --kill-after=5 120 "$binary" --test-threads=1 "${@:4}"
}

for level in '' $(awk '{ print $4 }' "$work/jobs" | sort -u | grep -v '^-$' || true); do
    log=$work/results/unbroken$level
    if run 0 '' "$level" conformance known_answers >"$log" 2>&1; then
        echo "unbroken${level:+ at $level}: every test passes"
    elif grep -q 'this machine lacks' "$log"; then
        echo "skipped: mutants at $level, which this machine lacks"
        awk -v level="$level" '$4 != level' "$work/jobs" >"$work/jobs.rest" && mv "$work/jobs.rest" "$work/jobs"
    else
        cat "$log"
        echo "the tests fail without a mutant" >&2
        exit 1
    fi
done

# one INDEX NAME OP LEVEL BACKEND PASS: writes the mutant's row of the table.
one() {
    local status=0 tests=(conformance known_answers) level=${4#-} log=$work/results/$1.log start=${EPOCHREALTIME/./} by
    if [[ $5 == cpu* ]]; then tests=(conformance::cpu known_answers); fi
    run "$1" "$3(" "$level" "${tests[@]}" >"$log" 2>&1 || status=$?
    case $status in
        0) by='SURVIVES' ;;
        101) by=$(sed -n 's/^test \(.*\) \.\.\. FAILED.*/\1/p' "$log" | paste -sd ' ') ;;
        124 | 137) by='(hangs)' ;;
        1[3-9][0-9]) by="(signal $((status - 128)))" ;;
        *) by="ERROR: exit status $status" ;;
    esac
    printf '%s %s %s %s %s %s %s\n' "$1" "$2" "$3" "$5" "$6" $(((${EPOCHREALTIME/./} - start) / 1000)) "$by" >"$work/results/$1.row"
}
export -f run one
export work binary
xargs -P "$(nproc)" -L 1 bash -c 'one "$@"' one <"$work/jobs"

cat "$work"/results/*.row | sort -n |
    awk '{ by = $7; for (i = 8; i <= NF; i++) by = by " " $i
           printf "%3d  %-42s %-20s %-12s %-8s %5.1f s  %s\n", $1, $2, $3, $4, $5, $6 / 1000, by }'
total=$(wc -l <"$work/jobs")
bad=$(cat "$work"/results/*.row | grep -cE ' (SURVIVES|ERROR: .*)$' || true)
echo "$total mutants, $((total - bad)) noticed, $bad not"
[ "$bad" -eq 0 ]
