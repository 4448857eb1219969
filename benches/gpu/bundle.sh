#!/usr/bin/env bash
# Packs what run.sh needs on a machine with a GPU and without a toolchain: the program, the tests, both stripped, the scripts.
#
#   benches/gpu/bundle.sh [OUT.tar.gz]     target/handgrad-gpu.tar.gz by default
#   PROFILE=dev benches/gpu/bundle.sh      the profile of tests instead of release: to try the scripts out
#
# The tests have their fixtures inside. A machine whose glibc is older than this one's may not run them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=${1:-target/handgrad-gpu.tar.gz}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bundle=$work/handgrad-gpu
mkdir -p "$bundle/bin" "$bundle/benches/gpu" "$bundle/benches/peers"

cargo test --locked --profile "${PROFILE:-release}" --features cuda --lib --test cuda --no-run --message-format json >"$work/built"
# executable NAME TEST: the path of the program NAME; of that with its tests where TEST is true.
executable() {
    python3 - "$work/built" "$1" "$2" <<'END'
import json, sys
path, name, test = sys.argv[1], sys.argv[2], sys.argv[3] == "true"
built = [json.loads(line) for line in open(path) if line.startswith("{")]
found = [m["executable"] for m in built if m.get("executable") and m["target"]["name"] == name and m["profile"]["test"] == test]
print(found[-1] if found else sys.exit(f"{name} was not built"))
END
}
cp "$(executable handgrad false)" "$bundle/bin/handgrad"
cp "$(executable cuda true)" "$bundle/bin/cuda-tests"
cp "$(executable handgrad true)" "$bundle/bin/library-tests"
strip "$bundle"/bin/*
cp benches/gpu/{run.sh,measure.py,torch_gpu.py} "$bundle/benches/gpu/"
cp -r benches/peers/compare.py benches/peers/nets "$bundle/benches/peers/"
mkdir -p "$(dirname "$out")"
tar -C "$work" -czf "$out" handgrad-gpu
echo "$out: $(du -h "$out" | cut -f 1). There: tar xf $(basename "$out") && handgrad-gpu/benches/gpu/run.sh"
