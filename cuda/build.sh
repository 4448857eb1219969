#!/usr/bin/env bash
# Compiles every kernel to PTX, assembles it for every GPU generation, and makes a table of what it takes there.
#
#   cuda/build.sh             writes what is committed: the PTX, and the table, docs/cuda-occupancy.md
#   cuda/build.sh --check     writes nothing; fails where a committed file is not what the compiler gives, byte for byte
#   cuda/build.sh --install   installs the compiler and does nothing else
#
# cuda/NAME.cu becomes cuda/ptx/NAME.ptx; the tests' kernels become a file beside them. A source that says
# `// arch: compute_80` among its first lines is compiled for that, others for compute_75. Needs python3 and g++. The compiler
# comes from the wheels that requirements.txt pins, into target/cuda-venv (or the folder that HANDGRAD_CUDA_VENV names).
set -euo pipefail
cd "$(dirname "$0")/.."

check=no
case "${1:-}" in
    --check) check=yes ;;
    "" | --install) ;;
    *) echo "usage: cuda/build.sh [--check | --install]" >&2; exit 2 ;;
esac

venv=${HANDGRAD_CUDA_VENV:-target/cuda-venv}
if ! [ -e "$venv/installed" ] || ! cmp -s cuda/requirements.txt "$venv/installed"; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r cuda/requirements.txt
    cp cuda/requirements.txt "$venv/installed"
fi
if [ "${1:-}" = --install ]; then
    exit
fi
bin=$(echo "$venv"/lib/python3*/site-packages/nvidia/cu13/bin)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The oldest ISA that a driver for CUDA 11.0 and later may know, and that has what the text uses.
versions="7.0 7.1 7.2 7.3 7.4 7.5 7.6 7.7 7.8 8.0 8.1 8.2 8.3 8.4 8.5 8.6 8.7 8.8 9.0"

different=0
# keep NEW OLD WHAT: where they differ, replaces the committed file, or complains.
keep() {
    if cmp -s "$1" "$2"; then
        :
    elif [ $check = yes ]; then
        echo "$2 is not what $3 makes of it: run cuda/build.sh and commit it" >&2
        different=1
    else
        mkdir -p "$(dirname "$2")"
        cp "$1" "$2"
        echo "wrote $2"
    fi
}

compile() { # source, PTX
    local arch raw="$work/raw.ptx" new="$work/new.ptx"
    arch=$(head -5 "$1" | sed -n 's|^// arch: \(compute_[0-9]*\).*|\1|p')
    arch=${arch:-compute_75}
    "$bin/nvcc" -ptx -arch="$arch" "$1" -o "$raw"
    for version in $versions; do
        sed "s/^\.version .*/.version $version/" "$raw" > "$new"
        if "$bin/ptxas" -arch="${arch/compute/sm}" "$new" -o "$work/out.cubin" 2> "$work/why"; then
            break
        elif [ "$version" = 9.0 ]; then
            cat "$work/why" >&2
            exit 1
        fi
    done
    keep "$new" "$2" "the compiler"
    python3 cuda/assemble.py "$bin/ptxas" "${arch#compute_}" "$new" "$1" > "$work/rows"
}

shopt -s nullglob
table=$work/table.md
cat > "$table" <<END
# What the kernels take of a GPU

Of each kernel the threads of a block and the bytes of static shared memory, and for each generation of GPUs the registers of
a thread, as ptxas of CUDA 13.0 gives them out, and the part of a multiprocessor's threads that can be resident. Drivers
bring their own ptxas, which may give out others. No kernel spills. \`cuda/build.sh\` writes this page,
\`cuda/build.sh --check\` compares it.
END
for source in cuda/*.cu; do
    name=$(basename "$source" .cu)
    compile "$source" "cuda/ptx/$name.ptx"
    cat "$work/rows" >> "$table"
done
keep "$table" docs/cuda-occupancy.md "the compiler"
for source in cuda/driver-double/tests/kernels/*.cu; do
    compile "$source" "${source%.cu}.ptx"
done
exit $different
