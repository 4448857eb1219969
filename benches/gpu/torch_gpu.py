#!/usr/bin/env python3
"""PyTorch's rates on a GPU, on a net that `handgrad bench --export` wrote, in each of several precisions.

    torch_gpu.py ../peers/nets/resnet2.toml exported.safetensors --batch 256 --steps 20 --seconds 3

prints one JSON object: for each way the seconds of a training step (forward, loss, backward, SGD with momentum, fused), of
inference on the batch and on one image, the losses of the first and of the last step, and the most memory that training took
of the device. Weights, images and targets are the file's. Images come from pinned memory of the host in each call, and scores
go back, as in handgrad; the losses of training are not read. Convolutions are cuDNN's, the fastest that it finds for the shape,
in channels_last.

Needs PyTorch and nothing besides: the nets are written out below, with the names of E1's and fastai's state dicts.
"""

import argparse
import contextlib
import json
import math
import statistics
import time
import tomllib
import traceback
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

TINY_RATE = 1e-9  # the work is the same, and the weights stay where they are
CALLS = 5  # samples at least
SAMPLE = 0.02  # seconds of a sample of steps: what lies between two waits for the device
EPS = 1e-12  # BnLayer has none; PyTorch's kernel insists on one

# name: (TF32 in products and convolutions, autocast's type, torch.compile)
WAYS = {
    "f32": (False, None, False),
    "tf32": (True, None, False),
    "bf16": (True, torch.bfloat16, False),
    "bf16 compiled": (True, torch.bfloat16, True),
}


# ---------------------------------------------------------------- the CIFAR-10 progression


class SimpleNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3072, 40), nn.Linear(40, 10)])

    def forward(self, x):
        return self.layers[1](F.relu(self.layers[0](x.flatten(1))))


class ConvLayer(nn.Module):
    def __init__(self, ni, nf):
        super().__init__()
        self.conv = nn.Conv2d(ni, nf, 3, stride=2, padding=1)

    def forward(self, x):
        return F.relu(self.conv(x))


class ConvNet2(nn.Module):
    def __init__(self, sizes=(3, 20, 40, 80)):
        super().__init__()
        self.layers = nn.ModuleList(ConvLayer(i, o) for i, o in zip(sizes, sizes[1:]))
        self.out = nn.Linear(sizes[-1], 10)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.out(F.adaptive_max_pool2d(x, 1).flatten(1))


class BnLayer(nn.Module):
    """conv -> ReLU -> (x - mean) / std * m + a with the unbiased std, by PyTorch's own kernel, which takes the other one."""

    def __init__(self, ni, nf, stride=2, kernel=3):
        super().__init__()
        self.conv = nn.Conv2d(ni, nf, kernel, stride=stride, padding=1, bias=False)
        self.a = nn.Parameter(torch.zeros(nf, 1, 1))
        self.m = nn.Parameter(torch.ones(nf, 1, 1))
        self.statistics = None

    def forward(self, x):
        x = F.relu(self.conv(x))
        m, a, n = self.m.flatten(), self.a.flatten(), x.numel() // x.shape[1]
        if self.training:
            return F.batch_norm(x, None, None, m * ((n - 1) / n) ** 0.5, a, training=True, eps=EPS)
        if self.statistics is None:
            self.statistics = torch.var_mean(x.float(), (0, 2, 3))
        variance, mean = self.statistics
        return F.batch_norm(x, mean, variance, m, a, eps=EPS)


class ResNet2(nn.Module):
    def __init__(self, sizes=(16, 32, 128, 256)):
        super().__init__()
        self.conv1 = BnLayer(3, sizes[0], stride=1, kernel=7)
        self.layers = nn.ModuleList(BnLayer(i, o) for i, o in zip(sizes, sizes[1:]))
        self.layers2 = nn.ModuleList(BnLayer(o, o, stride=1) for o in sizes[1:])
        self.layers3 = nn.ModuleList(BnLayer(o, o, stride=1) for o in sizes[1:])
        self.out = nn.Linear(sizes[-1], 10)

    def forward(self, x):
        x = self.conv1(x)
        for first, second, third in zip(self.layers, self.layers2, self.layers3):
            x = first(x)
            x = x + second(x)
            x = x + third(x)
        return self.out(F.adaptive_max_pool2d(x, 1).flatten(1))


# ---------------------------------------------------------------- fastai's XResNets


def conv_layer(ni, nf, kernel=3, stride=1, groups=1, act=None):
    conv = nn.Conv2d(ni, nf, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(nf), *([act()] if act else []))


class Squeeze(nn.Module):
    def __init__(self, channels, act):
        super().__init__()
        hidden = math.ceil(channels // 16 / 8) * 8
        down = nn.Sequential(nn.Conv2d(channels, hidden, 1), act())
        up = nn.Sequential(nn.Conv2d(hidden, channels, 1), nn.Sigmoid())
        self.layers = nn.ModuleList([nn.AdaptiveAvgPool2d(1), down, up])

    def forward(self, x):
        scale = x
        for layer in self.layers:
            scale = layer(scale)
        return x * scale


class SelfAttention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.utils.spectral_norm(nn.Conv1d(channels, channels, 1, bias=False))
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        flat = x.flatten(2)
        attended = torch.bmm(torch.bmm(flat, flat.transpose(1, 2)), self.conv(flat))
        return (self.gamma * attended + flat).view_as(x)


class Block(nn.Module):
    def __init__(self, expansion, ni, nf, stride, act, squeeze, grouped, attention):
        super().__init__()
        hidden, groups = (nf * 4 // 64 * 32, 32) if grouped else (nf, 1)
        first, second = (hidden, hidden) if grouped or not squeeze else (nf * 2, nf * expansion)
        ni, nf = ni * expansion, nf * expansion
        if expansion == 1:
            path = [conv_layer(ni, second, stride=stride, groups=groups, act=act), conv_layer(second, nf)]
        else:
            path = [conv_layer(ni, first, 1, act=act), conv_layer(first, second, stride=stride, groups=groups, act=act),
                    conv_layer(second, nf, 1)]
        path += [Squeeze(nf, act)] if squeeze else []
        path += [SelfAttention(nf)] if attention else []
        self.convpath = nn.Sequential(*path)
        identity = [nn.AvgPool2d(2, ceil_mode=True)] if stride != 1 else []
        identity += [conv_layer(ni, nf, 1)] if ni != nf else []
        self.idpath, self.act = nn.Sequential(*identity), act()

    def forward(self, x):
        return self.act(self.convpath(x) + self.idpath(x))


def xresnet(options):
    name = options["name"]
    squeeze, grouped = name.startswith("xse_"), "resnext" in name
    expansion, layers = {"18": (1, (2, 2, 2, 2)), "34": (1, (3, 4, 6, 3)), "50": (4, (3, 4, 6, 3))}[name[-2:]]
    act = {"relu": nn.ReLU, "mish": nn.Mish}[options.get("act", "relu")]
    net = [conv_layer(3, 32, stride=2, act=act), conv_layer(32, 32, act=act), conv_layer(32, 64, act=act)]
    net.append(nn.MaxPool2d(3, 2, 1))
    before = 64 // expansion
    for stage, (channels, blocks) in enumerate(zip((64, 128, 256, 512), layers)):
        attends = lambda i: options.get("sa", False) and stage + 4 == len(layers) and i + 1 == blocks
        made = []
        for i in range(blocks):
            stride = 2 if stage > 0 and i == 0 else 1
            made.append(Block(expansion, before, channels, stride, act, squeeze, grouped, attends(i)))
            before = channels
        net.append(nn.Sequential(*made))
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.0), nn.Linear(before * expansion, 10)]
    return nn.Sequential(*net, *head)


def build(options):
    small = {"simplenet": SimpleNet, "convnet2": ConvNet2, "resnet2": ResNet2}.get(options["name"])
    return small() if small else xresnet(options)


# ---------------------------------------------------------------- measuring


def read(path, batch):
    """Weights, images [n, 3, h, w], classes of a safetensors file."""
    raw = bytearray(Path(path).read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    height, width = json.loads(header.pop("__metadata__")["handgrad.preprocessing"])["size"]
    types = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64}
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        kind = types[entry["dtype"]]
        count = (end - begin) // kind.itemsize
        tensors[name] = torch.frombuffer(raw, dtype=kind, count=count, offset=start + begin).view(entry["shape"]).clone()
    images = tensors.pop("extra/images").view(batch, height, width, 3).permute(0, 3, 1, 2)
    targets = tensors.pop("extra/targets").view(batch, -1).argmax(1)
    # The published progression evaluates with the last batch's statistics, which its training step computes anew.
    weights = {k: v for k, v in tensors.items() if not k.endswith((".last_mean", ".last_var"))}
    return weights, images.contiguous(memory_format=torch.channels_last), targets


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def median_seconds(seconds, device, call, least):
    """The median time of a call over samples of several calls, which take `least` seconds or more between two waits."""
    call()
    wait(device)
    before = time.perf_counter()
    call()
    wait(device)
    each = max(1, math.ceil(least / max(time.perf_counter() - before, 1e-9)))
    start, times = time.perf_counter(), []
    while len(times) < CALLS or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        for _ in range(each):
            call()
        wait(device)
        times.append((time.perf_counter() - before) / each)
    return statistics.median(times)


def measure(options, data, args, way):
    weights, images, targets = data
    device = torch.device(args.device)
    tf32, autocast, compiled = WAYS[way]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    if device.type == "cuda":
        images = images.pin_memory()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    model = build(options)
    model.load_state_dict(weights, strict=True)
    model.train().to(device, memory_format=torch.channels_last)
    targets = targets.to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9, fused=True)
    run = torch.compile(model, dynamic=False) if compiled else model
    precision = lambda: torch.autocast(device.type, dtype=autocast) if autocast else contextlib.nullcontext()

    def step():
        x = images.to(device, non_blocking=True)
        optimizer.zero_grad(set_to_none=True)
        with precision():
            loss = F.cross_entropy(run(x), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    losses = [step() for _ in range(args.steps)]
    first = losses[0].item()
    for group in optimizer.param_groups:
        group["lr"] = TINY_RATE
    loss = step().item()
    train = median_seconds(args.seconds, device, step, SAMPLE)
    memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    model.eval()
    one = images[:1].contiguous(memory_format=torch.channels_last)
    one = one.pin_memory() if device.type == "cuda" else one
    with torch.inference_mode(), precision():
        predict = lambda x: run(x.to(device, non_blocking=True)).float().cpu()
        infer = median_seconds(args.seconds, device, lambda: predict(images), 0.0)
        latency = median_seconds(args.seconds, device, lambda: predict(one), 0.0)
    return {"train": train, "infer": infer, "latency": latency, "first_loss": first, "loss": loss, "bytes": memory}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="the recipe that was exported")
    parser.add_argument("exported", help="weights, images and targets by `handgrad bench --export`")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--lr", type=float, default=TINY_RATE, help="of the steps before the timed ones")
    parser.add_argument("--steps", type=int, default=20, help="before the timed ones")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each of the three measurements of each way")
    parser.add_argument("--ways", default="f32,tf32,bf16", help=f"comma-separated, of {', '.join(WAYS)}")
    parser.add_argument("--device", default="cuda", help="cpu only tries the script out")
    args = parser.parse_args()
    unknown = set(args.ways.split(",")) - WAYS.keys()
    if unknown:
        parser.error(f"no such ways: {', '.join(sorted(unknown))}")
    torch.manual_seed(0)
    with open(args.recipe, "rb") as file:
        options = tomllib.load(file)["model"]
    data, ways = read(args.exported, args.batch), {}
    for way in args.ways.split(","):
        try:
            ways[way] = measure(options, data, args, way)
        except Exception as error:  # whatever PyTorch raises is this way's result
            traceback.print_exc()
            ways[way] = {"skipped": (str(error).splitlines() or [type(error).__name__])[0]}
    cuda = torch.device(args.device).type == "cuda"
    name = torch.cuda.get_device_name() if cuda else "the CPU"
    cudnn = torch.backends.cudnn.version() if cuda else None
    print(json.dumps({"version": torch.__version__, "device": name, "cudnn": cudnn, "ways": ways}))


if __name__ == "__main__":
    main()
