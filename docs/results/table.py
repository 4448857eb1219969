#!/usr/bin/env python3
"""Prints the tables of docs/results.md from run folders.

usage: docs/results/table.py FOLDER      FOLDER/RECIPE/seed-N/metrics.jsonl, as reproduce.sh leaves them
"""

import json
import statistics
import sys
from pathlib import Path

# (recipe, [(phase, last epoch of the phase, published accuracy)])
CIFAR10 = [
    ("cifar10-simplenet", [("2 epochs, lr 1e-2", 2, 0.4499), ("2 more, cosine", 4, 0.4755)]),
    ("cifar10-convnet", [("2 epochs, lr 1e-1", 2, 0.4700), ("4 more, cosine", 6, 0.5893)]),
    ("cifar10-convnet2", [("2 epochs, lr 1e-1", 2, 0.4511), ("2 more, cosine", 4, 0.5757)]),
    ("cifar10-convbnnet", [("2 epochs, lr 3e-2", 2, 0.5938), ("4 more, lr 1e-1, cosine", 6, 0.7077)]),
    ("cifar10-convbnnet2", [("2 epochs, lr 1e-2", 2, 0.5697)]),
    ("cifar10-resnet", [("2 epochs, lr 1e-2", 2, 0.5107)]),
    ("cifar10-resnet2", [("2 epochs, lr 1e-2", 2, 0.4362)]),
    ("cifar10-resnet-7ep", [("7 more, lr 1e-2, cycles of 1, 2, 4", 9, None)]),
]
IMAGEWOOF = [
    ("woof-xse_resnext18", [("5 epochs", 5, 0.6080)]),
    ("woof-xse_resnext18-deep", [("5 epochs", 5, 0.6970)]),
    ("woof-xse_resnext18-deep-defaults", [("5 epochs, lr 1e-2, momentum .9", 5, 0.6970)]),
]
# Recipes that end with a mean over views of each image, and its published accuracy.
VIEWS = [("cifar10-fast", 0.9401)]
SYNTH = [("synth-linear", "at most 40 %"), ("synth-simplenet", "45 to 65 %"), ("quickstart", "at least 85 %")]


def runs(folder):
    """The epochs of each seed's run."""
    paths = sorted(folder.glob("seed-*/metrics.jsonl"), key=lambda p: int(p.parent.name.split("-")[1]))
    return [[json.loads(line) for line in path.read_text().splitlines()] for path in paths]


def accuracy(values):
    spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f}{spread}"


def published(root, experiments):
    """A row for each phase of the runs that got so far."""
    if not any(runs(root / recipe) for recipe, _ in experiments):
        return
    print("| recipe | phase | published | ours, mean ± deviation | seeds | difference / deviation | seconds per epoch |")
    print("|---|---|---|---|---|---|---|")
    for recipe, phases in experiments:
        histories = runs(root / recipe)
        for phase, epoch, figure in phases:
            done = [history for history in histories if len(history) >= epoch]
            if not done:
                continue
            values = [history[epoch - 1]["accuracy"] for history in done]
            seconds = statistics.median(m["seconds"] for history in done for m in history)
            given = "never run" if figure is None else f"{100 * figure:.2f}"
            apart = ""
            if figure is not None and len(values) > 1:
                apart = f"{(statistics.mean(values) - figure) / statistics.stdev(values):+.1f}"
            row = [f"`{recipe}`", phase, given, accuracy(values), len(values), apart, f"{seconds:.1f}"]
            print("| " + " | ".join(str(cell) for cell in row) + " |")
    print()


def views(root):
    """A row for each recipe that ends with views, of its finished runs: result.json has what they gave."""
    rows = []
    for recipe, figure in VIEWS:
        results = [json.loads(path.read_text()) for path in sorted((root / recipe).glob("seed-*/result.json"))]
        if results:
            last, seen = ([r[key] for r in results] for key in ("last", "tta_accuracy"))
            minutes = statistics.median(r["seconds"] for r in results) / 60
            plain = accuracy([metrics["accuracy"] for metrics in last])
            rows.append([f"`{recipe}`", f"{100 * figure:.2f}", plain, accuracy(seen), len(results), f"{minutes:.1f}"])
    if rows:
        print("| recipe | published | ours, one view | ours, all views | seeds | minutes, evaluation of each epoch included |")
        print("|---|---|---|---|---|---|")
        for row in rows:
            print("| " + " | ".join(str(cell) for cell in row) + " |")
        print()


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    root = Path(sys.argv[1])
    published(root, CIFAR10)
    views(root)
    published(root, IMAGEWOOF)
    print("| recipe | aim | ours, mean ± deviation | seeds | seconds of the run |\n|---|---|---|---|---|")
    for recipe, aim in SYNTH:
        done = runs(root / recipe)
        if done:
            values = [history[-1]["accuracy"] for history in done]
            seconds = statistics.median(sum(m["seconds"] for m in history) for history in done)
            print(f"| `{recipe}` | {aim} | {accuracy(values)} | {len(values)} | {seconds:.0f} |")


main()
