#!/usr/bin/env python3
"""Turns a checkpoint of PyTorch's (.pth, .pt, .bin) into a safetensors file that `handgrad train --from` reads.

    pip install torch safetensors
    python pth_to_safetensors.py resnet18.pth resnet18.safetensors
    python pth_to_safetensors.py fastai.pth xresnet.safetensors --key model --strip 0.

The checkpoint is read with weights_only=True: what else it holds is not run. A state dict inside of one ("state_dict",
"model") is found by itself; --key names another. --strip takes a prefix off every name; names without it are left out.
"""

import argparse
import sys

import torch
from safetensors.torch import save_file

KEYS = ("state_dict", "model_state_dict", "model", "net", "weights")


def is_state_dict(value):
    return isinstance(value, dict) and value and all(isinstance(tensor, torch.Tensor) for tensor in value.values())


def find(checkpoint, key):
    """The state dict in a checkpoint."""
    if key is not None:
        candidates = [checkpoint.get(key) if isinstance(checkpoint, dict) else None]
    else:
        inside = [checkpoint.get(name) for name in KEYS] if isinstance(checkpoint, dict) else []
        candidates = [checkpoint, *inside]
    for candidate in candidates:
        if is_state_dict(candidate):
            return candidate
    held = ", ".join(map(str, checkpoint)) if isinstance(checkpoint, dict) else type(checkpoint).__name__
    sys.exit(f"no state dict found; the checkpoint holds: {held}. --key NAME says which")


def convert(state, prefix):
    """Tensors of their own memory, without the prefix."""
    kept = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    if not kept:
        sys.exit(f"no name begins with {prefix!r}; the first is {next(iter(state))!r}")
    return {name: tensor.detach().clone().contiguous() for name, tensor in kept.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint")
    parser.add_argument("out")
    parser.add_argument("--key", help="where in the checkpoint the state dict is")
    parser.add_argument("--strip", default="", metavar="PREFIX", help="a prefix to take off every name")
    args = parser.parse_args()
    state = convert(find(torch.load(args.checkpoint, map_location="cpu", weights_only=True), args.key), args.strip)
    save_file(state, args.out)
    print(f"{len(state)} tensors, the first is {next(iter(state))}: {args.out}")


if __name__ == "__main__":
    main()
