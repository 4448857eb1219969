"""Assembles one PTX file for each GPU generation and prints a table of what each kernel takes (docs/cuda-occupancy.md). Fails
where registers spill.

usage: assemble.py PTXAS OLDEST FILE SOURCE
"""

import os
import re
import subprocess
import sys
import tempfile

# Generation: threads, blocks and bytes of shared memory of a multiprocessor; 65536 registers in all of them.
GENERATIONS = {
    75: (1024, 16, 64 << 10),
    80: (2048, 32, 164 << 10),
    86: (1536, 16, 100 << 10),
    89: (1536, 24, 100 << 10),
    90: (2048, 32, 228 << 10),
    100: (2048, 32, 228 << 10),
    120: (1536, 24, 100 << 10),
}


def occupancy(generation, threads, registers, shared):
    """Part of a multiprocessor's threads that can be resident, as the occupancy calculator has it."""
    most, blocks, memory = GENERATIONS[generation]
    warps = -(-threads // 32)
    # Registers are given to warps in units of 256, shared memory to blocks in units of 128 (256 on Turing) and 1 KiB over.
    per_warp = -(-registers * 32 // 256) * 256
    by_registers = 65536 // per_warp // warps if registers else blocks
    unit = 256 if generation == 75 else 128
    reserved = 0 if generation == 75 else 1024
    by_shared = memory // (-(-shared // unit) * unit + reserved) if shared + reserved else blocks
    resident = min(blocks, most // (warps * 32), by_registers, by_shared)
    return resident * warps * 32 / most


def threads_of(text):
    """Threads of a block by kernel, as `.maxntid` or `.reqntid` says; 256 where nothing is said."""
    found = {}
    for name, rest in re.findall(r"\.entry\s+(\w+)\s*\((?:[^{]*?)\)([^{]*)\{", text, re.S):
        bounds = re.search(r"\.(?:maxntid|reqntid)\s+([\d, ]+)", rest)
        count = 1
        for n in (bounds.group(1) if bounds else "256").split(","):
            count *= int(n)
        found[name] = count
    return found


def main():
    ptxas, oldest, path, source = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
    threads = threads_of(open(path).read())
    generations = [g for g in GENERATIONS if g >= oldest]
    rows, spilled = {}, []
    for generation in generations:
        with tempfile.TemporaryDirectory() as folder:
            out = os.path.join(folder, "out.cubin")
            run = subprocess.run([ptxas, "-v", f"-arch=sm_{generation}", path, "-o", out], capture_output=True, text=True)
        if run.returncode:
            sys.exit(f"{source}: sm_{generation}: {run.stderr}")
        for part in re.split(r"Compiling entry function ", run.stderr)[1:]:
            name = part.split("'")[1]
            number = lambda pattern: int((re.search(pattern, part) or [0, "0"])[1])
            registers, shared = number(r"Used (\d+) registers"), number(r"(\d+) bytes smem")
            spills = number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads")
            if spills:
                spilled.append(f"{source}: {name} spills {spills} bytes on sm_{generation}")
            part_of = occupancy(generation, threads.get(name, 256), registers, shared)
            rows.setdefault(name, {})[generation] = (registers, shared, part_of)
    print(f"\n## {os.path.splitext(os.path.basename(source))[0]}\n")
    print("| kernel | threads | shared | " + " | ".join(f"sm_{g}" for g in generations) + " |")
    print("|---|---|---|" + "---|" * len(generations))
    for name, row in sorted(rows.items()):
        cells = " | ".join(f"{r}, {100 * o:.0f} %" for r, _, o in (row[g] for g in generations))
        shared = max(s for _, s, _ in row.values())
        print(f"| `{name}` | {threads.get(name, 256)} | {shared} | {cells} |")
    if spilled:
        sys.exit("\n".join(spilled))


main()
