#!/usr/bin/env python3
"""handgrad beside PyTorch and burn on this machine: the same nets, weights, images and threads, by turns.

    benches/peers/run.sh                                         everything: hours on a small machine
    benches/peers/run.sh --nets resnet2,xresnet18 --rounds 3 --seconds 1
    benches/peers/run.sh --threads 1                             on one thread
    benches/peers/run.sh --simd avx2                             no contestant has AVX-512 or AMX

Run it on a machine that does nothing else. README.md beside this file says what is measured, and how.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NETS = [path.stem for path in sorted(HERE.glob("nets/*.toml"), key=lambda path: path.stat().st_size)]
AVX2 = {
    "handgrad": {"HANDGRAD_SIMD": "avx2"},
    "torch": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "burn": {},
}
# What burn/src/models.rs has.
BURN = ("simplenet", "convnet2", "resnet2", "xresnet18")
TOLERANCE = {"f32": 1e-3, "bf16": 3e-2}
# A way of PyTorch that was slower than this in everything is left out of the rounds after the first.
HOPELESS = 1.25
# Warm-up: 20 steps, or as many as fill this time, but no fewer than three.
STEPS, STEPS_LEAST = 20, 3
MIB = 1 << 20


def note(text):
    print(text, file=sys.stderr, flush=True)


def output(command, environment):
    """The JSON object that a command prints; None, and a line to say why, where it fails."""
    result = subprocess.run(command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, text=True)
    if result.returncode == 0:
        return json.loads(result.stdout)
    note(f"failed: {' '.join(map(str, command))}")
    return None


class Contest:
    """The programs, the settings, and what each round of each net gave."""

    def __init__(self, args, work):
        self.args, self.work = args, Path(work)
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        self.cargo("--bin", "handgrad", target=target)
        self.handgrad = target / "release" / "handgrad"
        self.burn = None
        self.peers = [peer for peer in args.peers.split(",") if peer and getattr(self, f"has_{peer}")(target)]

    def cargo(self, *options, target):
        command = ["cargo", "build", "--release", "--quiet", "--locked", *options]
        subprocess.run(command, cwd=ROOT, env=os.environ | {"CARGO_TARGET_DIR": str(target)}, check=True)

    def has_torch(self, _):
        needs = "import torch, torchvision, fastai, safetensors, numpy"
        result = subprocess.run([sys.executable, "-c", needs], capture_output=True, text=True)
        if result.returncode:
            note(f"PyTorch is skipped: {result.stderr.splitlines()[-1]} ({sys.executable}; PYTHON names another one)")
        return result.returncode == 0

    def has_burn(self, target):
        target = Path(os.environ.get("BURN_TARGET_DIR", target / "peers"))
        try:
            self.cargo("--manifest-path", HERE / "burn" / "Cargo.toml", target=target)
        except subprocess.CalledProcessError:
            note("burn is skipped: it was not built")
            return False
        self.burn = target / "release" / "burn-bench"
        return True

    def environment(self, contestant):
        forced = AVX2[contestant] if self.args.simd == "avx2" else {}
        threads = {name: str(self.args.threads) for name in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        # What torch.compile has built serves the rounds after the first.
        cache = os.environ.get("TORCHINDUCTOR_CACHE_DIR", self.work / "inductor")
        return threads | forced | {"TORCHINDUCTOR_CACHE_DIR": str(cache)}

    def ours(self, net, *options, seconds=None, precision="f32"):
        command = [self.handgrad, "bench", net.file, "--batch", net.batch, "--size", net.size, "--precision", precision]
        command += ["--threads", self.args.threads, "--seconds", seconds or self.args.seconds, "--json", *options]
        return output(list(map(str, command)), self.environment("handgrad")) or sys.exit(1)

    def prepare(self, net):
        """Writes the net's weights and images, and settles how many steps all take before the timed ones."""
        net.exported = self.work / f"{net.name}.safetensors"
        first = self.ours(net, "--export", net.exported, seconds=0.01)
        fitting = int(self.args.warm_up_seconds * first["train_images_per_second"] / net.batch)
        net.steps = max(STEPS_LEAST, min(STEPS, fitting))

    def torch(self, net):
        command = [sys.executable, HERE / "torch_bench.py", net.file, net.exported, "--batch", net.batch, "--lr", net.lr]
        command += ["--steps", net.steps, "--seconds", self.args.seconds, "--threads", self.args.threads]
        command += ["--limit", self.args.limit, "--ways", ",".join(net.ways)]
        result = output(list(map(str, command)), self.environment("torch"))
        if not result:
            return
        for way, measured in result["ways"].items():
            if "skipped" in measured:
                net.skipped.setdefault(way, measured["skipped"])
        measured = {way: value for way, value in result["ways"].items() if "skipped" not in value}
        net.torch.append(result | {"ways": measured})
        if measured and len(net.torch) == 1:
            keys = ("train", "infer", "latency")
            best = {(key, f32): min((value[key] for way, value in measured.items() if way.startswith(f32)), default=0)
                    for key in keys for f32 in ("f32", "")}
            hopeful = lambda value: any(value[key] <= HOPELESS * time for (key, _), time in best.items())
            net.ways = [way for way, value in measured.items() if hopeful(value)]

    def round(self, net):
        for precision in self.args.precisions.split(","):
            result = self.ours(net, "--warm-up", net.steps, "--lr", net.lr, precision=precision)
            net.ours.setdefault(precision, []).append(result)
        if "torch" in self.peers:
            self.torch(net)
        if "burn" in self.peers and net.name in BURN:
            command = [self.burn, net.name, net.exported, net.batch, net.size, net.steps, net.lr, self.args.seconds]
            if result := output(list(map(str, command)), self.environment("burn")):
                net.burn.append(result)


class Net:
    """A net with its settings and results."""

    def __init__(self, name, args):
        self.name, self.file = name, HERE / "nets" / f"{name}.toml"
        recipe = tomllib.loads(self.file.read_text())
        self.batch = args.batch or recipe["data"]["batch"]
        self.size = args.size or recipe["data"]["size"]
        self.lr = recipe["phase"][0]["lr"]
        self.ways, self.skipped = args.ways.split(","), {}
        self.ours, self.torch, self.burn = {}, [], []
        self.exported = self.steps = None

    def theirs(self, key, prefix):
        """(way, value in each round) of PyTorch's best way whose name begins so; (None, []) where there is none."""
        ways = {}
        for result in self.torch:
            for way, value in result["ways"].items():
                if way.startswith(prefix):
                    ways.setdefault(way, []).append(value[key])
        whole = {way: values for way, values in ways.items() if len(values) == len(self.torch)}
        way = min(whole, key=lambda way: statistics.median(whole[way]), default=None)
        return way, whole.get(way, [])

    def memory(self, prefix):
        """Of the way that trains fastest."""
        way, _ = self.theirs("train", prefix)
        return way, [result["ways"][way]["anonymous_bytes"] / MIB for result in self.torch] if way else []


# ---------------------------------------------------------------- the table


def spread(values, digits):
    if not values:
        return "–"
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({least:.{digits}f}–{most:.{digits}f})" if len(values) > 1 else f"{middle:.{digits}f}"


def ratios(ours, theirs, more_is_better):
    """How many times as good we are in each round, and the median of that."""
    return spread([a / b if more_is_better else b / a for a, b in zip(ours, theirs)], 2)


def best_precision(net, key, more_is_better):
    """Our values in the precision that is best."""
    sign = 1 if more_is_better else -1
    return max(([r[key] for r in rounds] for rounds in net.ours.values()), key=lambda v: sign * statistics.median(v))


def row(net, label, digits, key, their_key, burn_key, more_is_better, convert, contest):
    """Our f32, PyTorch's best f32, ratio; our best, PyTorch's best of any, ratio; burn."""
    f32, any_ = [r[key] for r in net.ours["f32"]], best_precision(net, key, more_is_better)
    if key == "train_anonymous_bytes":
        f32, any_ = ([(value or 0) / MIB for value in values] for values in (f32, any_))
    cells = [net.name, label, spread(f32, digits)]
    if "torch" in contest.peers:
        for ours, prefix in (f32, "f32"), (any_, ""):
            way, values = net.memory(prefix) if key == "train_anonymous_bytes" else net.theirs(their_key, prefix)
            values = [convert(net, value) for value in values]
            name = (way or "–") if not prefix else (way or "–").removeprefix("f32 ")
            cells += [spread(values, digits), name, f"**{ratios(ours, values, more_is_better)}**"]
    if "burn" in contest.peers:
        values = [r[burn_key] for r in net.burn] if burn_key else []
        cells += [spread(values, digits), ratios(f32, values, more_is_better)]
    return cells


def agreement(ours, theirs, *precisions):
    """Whether two losses are those of the same work."""
    difference = abs(ours - theirs) / abs(ours)
    fits = difference <= max(TOLERANCE[precision] for precision in precisions)
    return f"differs by {difference:.0e}" + ("" if fits else ": **NOT THE SAME WORK**")


def loss_row(net, contest):
    """The loss behind the timed steps, and whether the contestants agree about it."""
    losses = {precision: rounds[0]["loss"] for precision, rounds in net.ours.items()}
    ours, first = losses["f32"], net.ours["f32"][0]["first_loss"]
    cells = [net.name, f"loss after {net.steps} steps (at first {first:.4f})", f"{ours:.5f}"]
    if "torch" in contest.peers:
        fastest = max(net.ours, key=lambda precision: net.ours[precision][0]["train_images_per_second"])
        for prefix, precision in ("f32", "f32"), ("", fastest):
            way, _ = net.theirs("train", prefix)
            if not way:
                cells += ["–"] * 3
                continue
            loss = net.torch[0]["ways"][way]["loss"]
            agrees = agreement(losses[precision], loss, precision, way.split()[0])
            cells += [f"{loss:.5f}", way.removeprefix("f32 ") if prefix else way, agrees]
    if "burn" in contest.peers:
        cells += [f"{net.burn[0]['loss']:.5f}", agreement(ours, net.burn[0]["loss"], "f32")] if net.burn else ["–", "–"]
    return cells


def table(nets, contest):
    """Markdown."""
    args = contest.args
    yield f"{processor()}, {args.threads} thread{'s' if args.threads > 1 else ''}{', AVX2 at most' if args.simd else ''};"
    rounds = min((len(net.ours["f32"]) for net in nets), default=0)
    yield f"{rounds} rounds of {args.seconds:g} s a measurement: medians (lowest–highest)."
    yield "Ratios above 1 mean that handgrad is ahead; each round's own ratio, then their median."
    head = ["net", "measure", "handgrad f32"]
    if "torch" in contest.peers:
        results = [result for net in nets for result in net.torch]
        if results:
            rates = spread([result["gemm_gflops"] for result in results if result["gemm_gflops"]], 0)
            yield f"PyTorch {results[0]['version']}, {results[0]['capability']}, {rates} GFLOP/s in an f32 matrix product."
        head += ["PyTorch's best f32", "which", "handgrad / it", "PyTorch's best", "which", "handgrad / it"]
    if "burn" in contest.peers:
        head += ["burn-flex", "handgrad / it"]
    yield ""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    rate = lambda net, seconds: net.batch / seconds
    for net in nets:
        for values in (
            row(net, f"training, images/s, batch {net.batch}, {net.size} px", 0 if net.size < 64 else 1,
                "train_images_per_second", "train", "train_images_per_second", True, rate, contest),
            row(net, "inference, images/s", 0 if net.size < 64 else 1,
                "infer_images_per_second", "infer", "infer_images_per_second", True, rate, contest),
            row(net, "one image, ms", 3, "latency_ms", "latency", "latency_ms", False,
                lambda net, seconds: 1e3 * seconds, contest),
            row(net, "memory of training, MiB", 0, "train_anonymous_bytes", None, None, False,
                lambda net, mib: mib, contest),
            loss_row(net, contest),
        ):
            yield f"| {' | '.join(values)} |"
    skipped = [f"{net.name}, {way}: {why}" for net in nets for way, why in net.skipped.items()]
    if skipped:
        yield ""
        yield "Left out: " + "; ".join(skipped) + "."


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown processor"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default=",".join(NETS), help="comma-separated: %(default)s")
    parser.add_argument("--peers", default="torch,burn", help="comma-separated; one that is not installed is skipped")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, help="images per batch, instead of the net's own")
    parser.add_argument("--size", type=int, help="height and width, instead of the net's own")
    parser.add_argument("--simd", choices=["avx2"], help="forbid everything above AVX2 on both sides")
    parser.add_argument("--precisions", default="f32", help="handgrad's, comma-separated, f32 among them")
    parser.add_argument("--ways", default="f32 channels_last,f32 NCHW,f32 compiled,bf16 channels_last,bf16 compiled",
                        help="PyTorch's, comma-separated: %(default)s")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds that one way of PyTorch may take in all")
    parser.add_argument("--warm-up-seconds", type=float, default=20.0,
                        help=f"{STEPS} steps come before the timed ones, fewer where these take longer than this")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    unknown = set(args.nets.split(",")) - set(NETS)
    if unknown:
        parser.error(f"no such nets: {', '.join(sorted(unknown))}; there are {', '.join(NETS)}")
    with tempfile.TemporaryDirectory(prefix="peers-") as work:
        contest = Contest(args, work)
        nets = [Net(name, args) for name in args.nets.split(",")]
        for net in nets:
            contest.prepare(net)
            note(f"{net.name}: {net.steps} steps before the timed ones")
        try:
            # Every contestant in every round, so that whatever else the machine does meets all alike.
            for number in range(1, args.rounds + 1):
                for net in nets:
                    note(f"round {number} of {args.rounds}: {net.name}")
                    contest.round(net)
        except KeyboardInterrupt:
            note("stopped: the table has what was measured until then")
    for line in table([net for net in nets if "f32" in net.ours], contest):
        print(line)


if __name__ == "__main__":
    main()
