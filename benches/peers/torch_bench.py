#!/usr/bin/env python3
"""PyTorch's rates on the models that handgrad's benches measure, in the best of three ways to run them.

    torch_bench.py simplenet|convnet2|resnet2 --batch 256 --seconds 3 --threads 2

prints one JSON object: images per second of training (forward, backward, SGD with momentum) and of inference at the
batch, the median latency of a batch of one in milliseconds, and which way was best for each; once more, under names that
begin with f32_, without the way in bf16. The models are those of
tests/fixtures/make_golden.py, with which handgrad's tests compare every gradient.
"""

import argparse
import contextlib
import json
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "fixtures"))
import make_golden  # noqa: E402


# The layer has none; PyTorch's kernel insists on one.
EPS = 1e-12


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
    torch.manual_seed(0)
    layer, x = make_golden.BnLayer(3, 8), torch.randn(4, 3, 9, 9)
    for training in (True, False):
        layer.train(training)
        difference = (layer(x) - fused_norm(layer, x)).abs().max().item()
        assert difference < 1e-4, f"the fast layer computes something else: {difference}"


def build(name):
    torch.manual_seed(0)
    model = make_golden.MODELS[name][0]()
    if name == "resnet2":
        model.out = nn.Sequential(nn.Dropout(0.2), model.out)
    return model


def median_seconds(seconds, call):
    """The median time of a call, over about `seconds` after a fifth of that to warm up; at least five calls."""
    start = time.perf_counter()
    while time.perf_counter() - start < seconds / 5:
        call()
    start, times = time.perf_counter(), []
    while time.perf_counter() - start < seconds or len(times) < 5:
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return statistics.median(times)


def measure(name, batch, seconds, memory_format, autocast):
    """Seconds of a training step, of inference at the batch, of inference of one image."""
    model = build(name).to(memory_format=memory_format)
    x = torch.randn(batch, 3, 32, 32).to(memory_format=memory_format)
    target = torch.arange(batch) % 10
    # A tiny rate does the same work and keeps the numbers ordinary however long this runs.
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9, momentum=0.9)

    def precision():
        return torch.autocast("cpu", dtype=torch.bfloat16) if autocast else contextlib.nullcontext()

    def step():
        optimizer.zero_grad(set_to_none=True)
        with precision():
            loss = F.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()

    train = median_seconds(seconds, step)
    model.eval()
    with torch.inference_mode(), precision():
        infer = median_seconds(seconds, lambda: model(x))
        one = x[:1].clone(memory_format=memory_format)
        latency = median_seconds(seconds, lambda: model(one))
    return train, infer, latency


WAYS = {
    "f32 NCHW": (torch.contiguous_format, False),
    "f32 channels_last": (torch.channels_last, False),
    "bf16 channels_last": (torch.channels_last, True),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["simplenet", "convnet2", "resnet2"])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each of the three measurements of each way")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    check_fused_norm()
    make_golden.BnLayer.forward = fused_norm
    make_golden.ResnetLayer.forward = fused_residual

    times = {way: measure(args.model, args.batch, args.seconds, *options) for way, options in WAYS.items()}
    result = {"version": torch.__version__}
    for prefix, ways in ("", list(WAYS)), ("f32_", [way for way in WAYS if way.startswith("f32")]):
        best = [min(ways, key=lambda way: times[way][i]) for i in range(3)]
        train, infer, latency = (times[way][i] for i, way in enumerate(best))
        result |= {
            prefix + "train_images_per_second": args.batch / train,
            prefix + "infer_images_per_second": args.batch / infer,
            prefix + "latency_ms": latency * 1e3,
            prefix + "train_way": best[0],
            prefix + "infer_way": best[1],
            prefix + "latency_way": best[2],
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
