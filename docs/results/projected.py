#!/usr/bin/env python3
"""A row of docs/results/projected.sh's table, from what `handgrad estimate RECIPE --json` prints.

usage: handgrad estimate RECIPE --json | docs/results/projected.py RECIPE [SETTING]
"""

import json
import sys

recipe, setting = f"`{sys.argv[1]}`", "".join(f" `{setting}`" for setting in sys.argv[2:])
e = json.load(sys.stdin)
print(
    f"| {recipe}{setting} | {e['steps']} | {e['images_per_second']:.1f} | {e['evaluated_per_second']:.1f} "
    f"| {e['first_loss']:.3f} → {e['last_loss']:.3f} | {e['peak_bytes'] / 2**20:.0f} | {e['epochs']} | {e['hours']:.1f} |"
)
