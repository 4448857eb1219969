#!/usr/bin/env python3
"""The CUDA backend on this machine's GPU, step by step, and what came of it as a Markdown page.

    benches/gpu/run.sh                                  everything
    benches/gpu/run.sh --steps doctor,conformance       whether it computes what it should
    benches/gpu/run.sh --steps rates --nets resnet2 --rounds 3 --seconds 1

    doctor         what the machine has
    conformance    the tests of the CUDA backend, on the GPU in the place of the driver double
    recipes        `handgrad bench RECIPE --backend cuda --json` of built-in recipes, and the first step beside the CPU's
    rates          the nets of benches/peers on handgrad and on PyTorch, by turns, with the same weights and images

Run it on a machine that does nothing else. It ends with 1 where a test failed or two sides did not do the same work.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "peers"))
from compare import MIB, agreement, note, output, ratios, spread  # noqa: E402

STEPS = ("doctor", "conformance", "recipes", "rates")
NETS = ("convnet2", "resnet2", "xresnet18", "xresnet50", "xse_resnext18")
RECIPES = ("cifar10-simplenet", "cifar10-resnet2", "cifar10-fast", "woof-xresnet50", "woof-xse_resnext18-deep",
           "woof-xse_resnext18-twist-published", "woof-convtwist-80")
# The report of launches is the driver double's alone.
SKIPPED_TESTS = ("kernels_page",)
WARM_UP = 20
# How far the first step of a device may be from that of the CPU, relatively: a ReLU near 0 goes either way.
FAR = {"loss_difference": 1e-3, "gradient_difference": 5e-2}


class Failures(list):
    """What went wrong, for the end."""

    def add(self, text):
        note(text)
        self.append(text)


def table(head, rows):
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


# ---------------------------------------------------------------- the steps


def doctor(args, failures):
    found = output([str(args.program), "doctor", "--json"], {})
    devices = found["cuda"]["devices"] if found else []
    if not devices:
        failures.add(f"no GPU: {found['cuda'].get('missing') if found else 'doctor failed'}")
        return
    yield "## The machine\n"
    yield f"- handgrad {found['version']}; driver: {found['cuda']['driver']}"
    for device in devices:
        capability = ".".join(map(str, device["capability"]))
        yield (f"- cuda:{device['index']}: {device['name']}, compute capability {capability}, {device['memory'] / MIB:.0f} MiB,"
               f" {device['multiprocessors']} multiprocessors")
    if shutil.which("nvidia-smi"):
        query = "--query-gpu=driver_version,clocks.max.sm,clocks.max.mem,power.limit"
        result = subprocess.run(["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True)
        yield from (f"- driver, clocks, power: {line}" for line in result.stdout.splitlines())


def conformance(args, failures):
    yield "\n## Conformance\n"
    runs = [("cuda-tests", [*args.tests, *(f"--skip={name}" for name in SKIPPED_TESTS)]), ("library-tests", ["conv2d::cuda"])]
    environment = os.environ | {"HANDGRAD_TEST_ON_GPU": "1", "HANDGRAD_TEST_PROGRAM": str(args.program)}
    for name, arguments in runs:
        program, log = args.program.with_name(name), args.out / f"{name}.txt"
        with log.open("w") as file:
            command = [str(program), *arguments, "--test-threads", str(args.test_threads)]
            code = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT).returncode
        text = log.read_text(errors="replace")
        # Each test has run its body in a process of its own, whose summary says "1 passed" in between.
        summary = (re.findall(r"^test result: (.*?);(?: \d+ ignored.*)?$", text, re.MULTILINE) or ["no result"])[-1]
        passed = code == 0 and not re.search(r" 0 passed", summary)
        yield f"- `{name} {' '.join(arguments)}`: {summary}{'' if passed else ' **FAILED**'}"
        if not passed:
            failures.add(f"{name}: {summary}; see {log}")


def recipes(args, failures):
    head = ["recipe", "batch, px", "training, images/s", "inference, images/s", "one image, ms", "memory, MiB", "loss",
            "gradients"]
    rows = []
    for recipe in args.recipes:
        note(f"recipe {recipe}")
        size = ["--size", str(args.size)] if args.size else []
        batch = ["--batch", str(args.batch)] if args.batch else []
        common = [*batch, *size, "--seconds", str(args.seconds), "--json"]
        alone = output([str(args.program), "bench", recipe, "--backend", args.backend, *common], {})
        # The CPU takes seconds for what is compared here, so that its batch is a small one.
        small = ["--batch", "4", *size, "--seconds", "0.01", "--json"]
        both = [str(args.program), "bench", recipe, "--compare", f"cpu,{args.backend}", *small]
        compared = output(both, {})
        if not alone or not compared:
            failures.add(f"{recipe}: bench failed")
            continue
        beside = compared[1]
        far = [f"{key} {beside[key]:.0e}" for key, most in FAR.items() if not beside[key] <= most]
        if far:
            failures.add(f"{recipe}: beside the CPU: {', '.join(far)}")
        rows.append([recipe, f"{alone['batch']}, {alone['size']}", f"{alone['train_images_per_second']:.0f}",
                     f"{alone['infer_images_per_second']:.0f}", f"{alone['latency_ms']:.3f}",
                     f"{alone['peak_bytes'] / MIB:.0f}",
                     *(f"{beside[key]:.0e}{' **FAR**' if far else ''}" for key in FAR)])
    yield "\n## Recipes\n"
    yield "Each with its own optimizer. Loss and gradients: how far the first step is from the CPU's, relatively.\n"
    yield from table(head, rows)


class Net:
    """A net with its settings and what each round gave."""

    def __init__(self, name, args):
        self.name, self.file = name, HERE.parent / "peers" / "nets" / f"{name}.toml"
        recipe = tomllib.loads(self.file.read_text())
        self.batch = args.batch or recipe["data"]["batch"]
        self.size = args.size or recipe["data"]["size"]
        self.lr = recipe["phase"][0]["lr"]
        self.ours, self.theirs, self.skipped = [], [], {}
        self.exported = None

    def handgrad(self, args, *options, seconds=None):
        command = [args.program, "bench", self.file, "--backend", args.backend, "--batch", self.batch, "--size", self.size]
        command += ["--seconds", seconds or args.seconds, "--json", *options]
        return output(list(map(str, command)), {})

    def round_of_ours(self, args):
        if result := self.handgrad(args, "--warm-up", args.warm_up, "--lr", self.lr):
            self.ours.append(result)

    def round_of_theirs(self, args):
        command = [sys.executable, HERE / "torch_gpu.py", self.file, self.exported, "--batch", self.batch, "--lr", self.lr]
        command += ["--steps", args.warm_up, "--seconds", args.seconds, "--ways", ",".join(args.ways), "--device", args.torch]
        if result := output(list(map(str, command)), {}):
            self.theirs.append(result)
            self.skipped |= {way: value["skipped"] for way, value in result["ways"].items() if "skipped" in value}

    def of(self, way, key):
        """A way's value in each round; none where a round has none."""
        values = [result["ways"][way].get(key) for result in self.theirs]
        return [] if None in values else values

    def row(self, args, label, digits, key, their_key, more_is_better, convert):
        ours = [result[key] / (MIB if key == "peak_bytes" else 1) for result in self.ours]
        cells = [self.name, label, spread(ours, digits)]
        for way in args.ways if args.torch else []:
            values = [convert(value) for value in self.of(way, their_key)]
            cells += [spread(values, digits), f"**{ratios(ours, values, more_is_better)}**"]
        return cells

    def rows(self, args, failures):
        rate, digits = (lambda seconds: self.batch / seconds), 0 if self.size < 64 else 1
        yield self.row(args, f"training, images/s, batch {self.batch}, {self.size} px", digits, "train_images_per_second",
                       "train", True, rate)
        yield self.row(args, "inference, images/s", digits, "infer_images_per_second", "infer", True, rate)
        yield self.row(args, "one image, ms", 3, "latency_ms", "latency", False, lambda seconds: 1e3 * seconds)
        yield self.row(args, "memory of training, MiB", 0, "peak_bytes", "bytes", False, lambda value: value / MIB)
        label = f"loss after {args.warm_up} steps (at first {self.ours[0]['first_loss']:.4f})"
        cells = [self.name, label, f"{self.ours[0]['loss']:.5f}"]
        for way in args.ways if args.torch else []:
            losses = self.of(way, "loss")
            if not losses:
                cells += ["–", "–"]
                continue
            # TF32 rounds operands as bf16 does, but for three bits.
            agrees = agreement(self.ours[0]["loss"], losses[0], "f32" if way == "f32" else "bf16")
            cells += [f"{losses[0]:.5f}", agrees]
            if "NOT THE SAME" in agrees:
                failures.add(f"{self.name}: PyTorch's {way} ends at a loss of {losses[0]}, handgrad at {self.ours[0]['loss']}")
        yield cells


def rates(args, failures):
    nets = [Net(name, args) for name in args.nets]
    with tempfile.TemporaryDirectory(prefix="gpu-") as work:
        for net in nets:
            net.exported = Path(work) / f"{net.name}.safetensors"
            if not net.handgrad(args, "--export", net.exported, seconds=0.01):
                failures.add(f"{net.name}: bench failed")
                return
        for number in range(args.rounds):
            for net in nets:
                note(f"round {number + 1} of {args.rounds}: {net.name}")
                turns = [net.round_of_ours] + ([net.round_of_theirs] if args.torch else [])
                # Whoever comes second finds a warmer device: by turns.
                for turn in turns if number % 2 == 0 else turns[::-1]:
                    turn(args)
    yield "\n## Beside PyTorch\n"
    if args.torch and (versions := [net.theirs[0] for net in nets if net.theirs]):
        yield f"PyTorch {versions[0]['version']} on {versions[0]['device']}, cuDNN {versions[0]['cudnn']}, channels_last."
    yield f"{args.rounds} rounds of {args.seconds:g} s a measurement: medians (lowest–highest). handgrad computes in f32."
    yield "Ratios above 1 mean that handgrad is ahead; each round's own ratio, then their median.\n"
    ways = [cell for way in args.ways for cell in (f"PyTorch {way}", "handgrad / it")] if args.torch else []
    rows = []
    for net in nets:
        if len(net.ours) < args.rounds or args.torch and len(net.theirs) < args.rounds:
            failures.add(f"{net.name}: {len(net.ours)} rounds of handgrad, {len(net.theirs)} of PyTorch")
        else:
            rows += net.rows(args, failures)
    yield from table(["net", "measure", "handgrad", *ways], rows)
    skipped = [f"{net.name}, {way}: {why}" for net in nets for way, why in net.skipped.items()]
    if skipped:
        yield f"\nLeft out: {'; '.join(skipped)}."


# ---------------------------------------------------------------- the page


def has_torch(device):
    check = "import torch, sys; sys.exit(0 if sys.argv[1] == 'cpu' or torch.cuda.is_available() else 'PyTorch finds no GPU')"
    result = subprocess.run([sys.executable, "-c", check, device], capture_output=True, text=True)
    if result.returncode:
        note(f"PyTorch is skipped: {(result.stderr.splitlines() or ['?'])[-1]} ({sys.executable}; PYTHON names another one)")
    return result.returncode == 0


def arguments():
    words = lambda text: [word for word in text.split(",") if word]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=words, default=list(STEPS), help=f"by default all: {','.join(STEPS)}")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="folder of the page and the logs (%(default)s)")
    parser.add_argument("--bin", type=Path, default=ROOT / "bin", help="folder of the programs; bundle.sh packs it")
    parser.add_argument("--backend", default="cuda", help="handgrad's (%(default)s): cuda:N is another GPU")
    parser.add_argument("--torch", default="cuda", help="PyTorch's device (%(default)s); none leaves PyTorch out")
    parser.add_argument("--ways", type=words, default=["f32", "tf32", "bf16"], help="PyTorch's: f32,tf32,bf16")
    parser.add_argument("--nets", type=words, default=list(NETS), help=f"of benches/peers/nets: {','.join(NETS)}")
    parser.add_argument("--recipes", type=words, default=list(RECIPES), help=f"built-in ones: {','.join(RECIPES)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--warm-up", type=int, default=WARM_UP, help="training steps before the timed ones")
    parser.add_argument("--batch", type=int, help="images per batch, instead of the net's own")
    parser.add_argument("--size", type=int, help="height and width, instead of the net's own")
    parser.add_argument("--tests", type=words, default=[], help="only the tests of these names")
    parser.add_argument("--test-threads", type=int, default=4)
    args = parser.parse_args()
    if unknown := set(args.steps) - set(STEPS):
        parser.error(f"no such steps: {', '.join(sorted(unknown))}")
    args.program = args.bin.resolve() / "handgrad"
    if not args.program.exists():
        parser.error(f"{args.program} is missing: benches/gpu/bundle.sh packs it, and this script beside it")
    if args.torch == "none" or "rates" in args.steps and not has_torch(args.torch):
        args.torch = None
    return args


def main():
    args, failures = arguments(), Failures()
    args.out.mkdir(parents=True, exist_ok=True)
    page = args.out / "gpu.md"
    with page.open("w") as file:
        print("# handgrad on a GPU\n", file=file)
        for step in STEPS:
            if step not in args.steps:
                continue
            note(f"-- {step}")
            for line in globals()[step](args, failures):
                print(line, file=file, flush=True)
            if failures and step == "doctor":
                break
        if failures:
            print("\n## Failures\n", *(f"- {failure}" for failure in failures), sep="\n", file=file)
    print(page.read_text())
    note(f"the page: {page}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
