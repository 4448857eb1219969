#!/usr/bin/env python3
"""PyTorch's rates on a net that `handgrad bench --export` wrote, in each of several ways to run it.

    torch_bench.py nets/resnet2.toml exported.safetensors --batch 256 --steps 20 --seconds 3 --threads 2

prints one JSON object: for each way the seconds of a training step (forward, loss, backward, SGD with momentum), of
inference on the batch and on one image, the losses of the first and of the last step, and by how much the anonymous memory
of its process grew; the rate of a matrix product and PyTorch's version besides. Weights, images and targets are the file's;
the models are fastai's, torchvision's, and those of tests/fixtures, with which handgrad's tests compare every gradient.
"""

import argparse
import contextlib
import json
import os
import select
import signal
import statistics
import sys
import time
import tomllib
import traceback
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "fixtures"))
import make_golden  # noqa: E402

TINY_RATE = 1e-9  # the work is the same, and the weights stay where they are
CALLS, PATIENCE = 5, 4.0  # as handgrad bench: calls at least, unless they take so many times as long as they should
TOO_SLOW = 3.0  # a way whose step takes so many times as long as another's has lost
HOPE = 2  # steps after the first that it has to show the contrary
NO_HOPE = 10.0  # unless even the first took so many times as long, and no compiler worked in it
EPS = 1e-12  # BnLayer has none; PyTorch's kernel insists on one

# name: (memory format, bf16 autocast, torch.compile)
WAYS = {
    "f32 channels_last": (torch.channels_last, False, False),
    "f32 NCHW": (torch.contiguous_format, False, False),
    "f32 compiled": (torch.channels_last, False, True),
    "bf16 channels_last": (torch.channels_last, True, False),
    "bf16 compiled": (torch.channels_last, True, True),
}


# ---------------------------------------------------------------- models


def fused_norm(self, x):
    """What make_golden.BnLayer computes, with PyTorch's own kernel, which is faster than its parts.

    That kernel divides by n where the layer divides by n - 1: the scale makes up for it.
    """
    x = F.relu(self.conv(x))
    if not self.training:
        mean, variance = self.means.flatten(), self.stds.flatten() ** 2
        return F.batch_norm(x, mean, variance, self.m.flatten(), self.a.flatten(), eps=EPS)
    if not hasattr(self, "means"):  # once, so that inference has statistics
        with torch.no_grad():
            stds, means = torch.std_mean(x.float(), (0, 2, 3), keepdim=True)
            self.means, self.stds = means[0], stds[0]
    n = x.numel() // x.shape[1]
    scale = self.m.flatten() * ((n - 1) / n) ** 0.5
    return F.batch_norm(x, None, None, scale, self.a.flatten(), training=True, eps=EPS)


def fused_residual(self, x):
    return x + fused_norm(self, x)


@torch.no_grad()
def check_fused_norm():
    layer, x = make_golden.BnLayer(3, 8), torch.randn(4, 3, 9, 9)
    for training in (True, False):
        layer.train(training)
        difference = (layer(x) - fused_norm(layer, x)).abs().max().item()
        assert difference < 1e-4, f"the fast layer computes something else: {difference}"


def constructor(options):
    """Builds the net of a recipe's [model]. What it needs is imported here, so that a fork has it already."""
    name = options["name"]
    if name in make_golden.MODELS:
        return make_golden.MODELS[name][0]
    if name.startswith("resnet"):
        import torchvision

        return lambda: getattr(torchvision.models, name)(num_classes=10)
    import make_twisted

    extra = {"act_cls": nn.Mish} if options.get("act") == "mish" else {}
    build = lambda: getattr(make_twisted.xresnet, name)(n_out=10, sa=options.get("sa", False), **extra)
    swap = options.get("swap")
    return (lambda: make_twisted.twisted(build(), swap, "published")) if swap else build


def read(path, batch):
    """Weights, images [n, h, w, c], classes."""
    with safe_open(path, "pt") as file:
        size = json.loads(file.metadata()["handgrad.preprocessing"])["size"]
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    images = tensors.pop("extra/images").view(batch, *size, 3)
    targets = tensors.pop("extra/targets").view(batch, -1).argmax(1)
    # The published progression evaluates with the last batch's statistics, which its training step computes anew.
    return {k: v for k, v in tensors.items() if not k.endswith((".last_mean", ".last_var"))}, images, targets


# ---------------------------------------------------------------- measuring


class TooSlow(Exception):
    """A way is not worth the time to measure it."""


def median_seconds(seconds, call):
    """The median time of a call, over calls for `seconds` after one that warms up."""
    call()
    start, times = time.perf_counter(), []
    while True:
        before = time.perf_counter()
        call()
        now = time.perf_counter()
        times.append(now - before)
        if now - start >= seconds and (len(times) >= CALLS or now - start >= PATIENCE * seconds):
            return statistics.median(times)


def gemm_gflops():
    """The better of several products of 1536 x 1536 matrices: what instructions this process may use shows here."""
    n = 1536
    a, b = torch.randn(n, n), torch.randn(n, n)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best / 1e9


def measure(build, data, args, way, to_beat, say):
    """One way, in a process of its own. `say` hands over what there is: after the warm-up, and at the end."""
    weights, images, targets = data
    memory_format, autocast, compiled = WAYS[way]
    model = build()
    model.load_state_dict(weights, strict=True)
    model.train().to(memory_format=memory_format)
    x = images.permute(0, 3, 1, 2).clone(memory_format=memory_format)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=args.lr, momentum=0.9, fused=True)
    run = torch.compile(model, dynamic=False) if compiled else model

    def precision():
        return torch.autocast("cpu", dtype=torch.bfloat16) if autocast else contextlib.nullcontext()

    def step():
        optimizer.zero_grad(set_to_none=True)
        with precision():
            loss = F.cross_entropy(run(x), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    least = float("inf")
    for i in range(args.steps):
        before = time.perf_counter()
        loss = step()
        seconds = time.perf_counter() - before
        if i == 0:
            first = loss.item()
        else:
            least = min(least, seconds)
        hopeless = i >= HOPE and least > TOO_SLOW * to_beat or not compiled and seconds > NO_HOPE * to_beat
        if hopeless and seconds * args.steps > args.seconds:
            raise TooSlow(f"{min(least, seconds) / to_beat:.0f} times as slow as another way")
    say({"warm": True})
    for group in optimizer.param_groups:
        group["lr"] = TINY_RATE
    losses = []
    train = median_seconds(args.seconds, lambda: losses.append(step()))
    model.eval()
    with torch.inference_mode(), precision():
        infer = median_seconds(args.seconds, lambda: run(x))
        one = x[:1].clone(memory_format=memory_format)
        latency = median_seconds(args.seconds, lambda: run(one))
    loss = losses[-1].item()
    return {"train": train, "infer": infer, "latency": latency, "first_loss": first, "loss": loss}


def anonymous_bytes(process):
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def in_fork(work, limit):
    """What `work` returns, done by a fork of this process that has `limit` seconds; or why there is nothing.

    A fork has imported everything and shares no memory with another way; it can be ended. Its anonymous memory is watched
    until it says that it is warm.
    """
    if not hasattr(os, "fork"):
        return {"skipped": "this system cannot fork"}
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(reader)
        say = lambda value: os.write(writer, json.dumps(value).encode() + b"\n")
        try:
            say(work(say))
        except TooSlow as reason:
            say({"skipped": str(reason)})
        except Exception as error:  # whatever PyTorch raises is this way's result
            traceback.print_exc()
            say({"skipped": (str(error).splitlines() or [type(error).__name__])[0]})
        os._exit(0)
    os.close(writer)
    before = most = anonymous_bytes(child)
    deadline, text, warm, ended = time.monotonic() + limit, b"", False, False
    try:
        while time.monotonic() < deadline:
            ready, _, _ = select.select([reader], [], [], 1.0 if warm else 0.005)
            if not warm:
                with contextlib.suppress(OSError):
                    most = max(most, anonymous_bytes(child))
            if ready:
                part = os.read(reader, 65536)
                if not part:
                    ended = True
                    break
                text, warm = text + part, True
    finally:
        # Too late, or this process is to stop: nothing may go on and disturb what is measured next.
        if not ended:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        os.close(reader)
        os.waitpid(child, 0)
    lines = [json.loads(line) for line in text.splitlines()]
    if not lines or lines[-1] == {"warm": True}:
        return {"skipped": f"not done after {limit:.0f} s"}
    return lines[-1] if "skipped" in lines[-1] else lines[-1] | {"anonymous_bytes": most - before}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="the recipe that was exported")
    parser.add_argument("exported", help="weights, images and targets by `handgrad bench --export`")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--lr", type=float, default=TINY_RATE, help="of the steps before the timed ones")
    parser.add_argument("--steps", type=int, default=20, help="before the timed ones")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each of the three measurements of each way")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ways", default=",".join(WAYS), help="comma-separated: %(default)s")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds that a way may take in all")
    args = parser.parse_args()
    unknown = set(args.ways.split(",")) - WAYS.keys()
    if unknown:
        parser.error(f"no such ways: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    torch.manual_seed(0)
    with open(args.recipe, "rb") as file:
        build = constructor(tomllib.load(file)["model"])
    data = read(args.exported, args.batch)

    def prepared(work):
        """A fork's threads begin with it: those of its parent would be lost."""

        def run(say):
            torch.set_num_threads(args.threads)
            check_fused_norm()
            make_golden.BnLayer.forward = fused_norm
            make_golden.ResnetLayer.forward = fused_residual
            return work(say)

        return run

    ways, to_beat = {}, float("inf")
    for way in args.ways.split(","):
        ways[way] = in_fork(prepared(lambda say: measure(build, data, args, way, to_beat, say)), args.limit)
        to_beat = min(to_beat, ways[way].get("train", float("inf")))
    gemm = in_fork(prepared(lambda say: {"gflops": gemm_gflops()}), args.limit).get("gflops")
    capability = torch.backends.cpu.get_cpu_capability()
    print(json.dumps({"version": torch.__version__, "capability": capability, "gemm_gflops": gemm, "ways": ways}))


if __name__ == "__main__":
    main()
