#!/usr/bin/env python3
"""Both ways between handgrad and PyTorch, with the program itself; what CI's Rust tests cannot see without PyTorch.

    pip install -r fixtures/requirements.txt
    python load_in_pytorch.py target/debug/handgrad target/debug/data-tools

1. A checkpoint of torchvision's ResNet-18 (1000 classes, random weights) goes through pth_to_safetensors.py.
2. `handgrad train --from` it, with a new head, trains one epoch on a few built-in images.
3. PyTorch loads the model file strictly, and gives each image the probabilities that `handgrad predict` gives it.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

SCRIPT = Path(__file__).parent.parent / "data-tools/scripts/pth_to_safetensors.py"
RECIPE = """
title = "from PyTorch and back"
[model]
name = "resnet18"
[data]
dataset = "synth"
size = 32
batch = 50
normalise = "imagenet"
[[optimizer.group]]
pattern = "layer1.*"
lr_scale = 0
[[phase]]
lr = 0.01
epochs = 1
"""


def main(handgrad, data_tools):
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        run = lambda *args: subprocess.run(args, cwd=folder, check=True, capture_output=True, text=True).stdout
        source = torchvision.models.resnet18()
        path = Path(folder)
        torch.save({"state_dict": source.state_dict(), "epoch": 3}, path / "resnet18.pth")
        print(run(sys.executable, str(SCRIPT), "resnet18.pth", "resnet18.safetensors").strip())
        (path / "recipe.toml").write_text(RECIPE)
        run(data_tools, "synth", "small.hgd", "--train", "100", "--valid", "50")
        train = "train recipe.toml --data small.hgd --from resnet18.safetensors --new-head --out run"
        run(handgrad, *train.split())

        model = torchvision.models.resnet18(num_classes=10).eval()
        tensors = load_file(path / "run/model.safetensors")
        print("PyTorch:", model.load_state_dict(tensors, strict=True))
        same = lambda name: torch.equal(model.get_parameter(name), source.get_parameter(name))
        assert all(same(f"layer1.{name}") for name, _ in model.layer1.named_parameters()), "layer1 is frozen"
        assert not same("conv1.weight"), "conv1 learns"
        with safe_open(path / "run/model.safetensors", "pt") as file:
            preprocessing = json.loads(file.metadata()["handgrad.preprocessing"])
        mean, std = (torch.tensor(preprocessing[key], dtype=torch.float64)[:, None, None] for key in ("mean", "std"))
        worst = 0.0
        for seed in range(3):
            pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path / "image.png")
            x = (torch.from_numpy(pixels).permute(2, 0, 1).double() / 255 - mean) / std
            theirs = model.double()(x[None]).softmax(1)[0]
            ours = json.loads(run(handgrad, "predict", "run/model.safetensors", "image.png", "--top", "10", "--json"))
            for prediction in ours[0]["predictions"]:
                worst = max(worst, abs(prediction["probability"] - theirs[prediction["class"]].item()))
        print(f"probabilities differ by at most {worst:.1e}")
        assert worst < 1e-5


if __name__ == "__main__":
    main(*(str(Path(program).absolute()) for program in sys.argv[1:3]))
