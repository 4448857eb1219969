#!/usr/bin/env python3
"""`woof-xse_resnext18-deep-defaults` of docs/results.md in fastai itself: what is luck and what is ours.

    pip install fastai==2.8.12 torch==2.15.0 safetensors==0.8.0
    python fastai_deep.py imagewoof2-320 OUT [--seed N] [--threads N] [--like MODEL.safetensors]

xse_resnext18_deep with Mish, without self-attention, 5 epochs at 128 px and batch 64, Ranger with lr 1e-2 and momentum .9, label
smoothing, flat-cosine: by the published script's defaults. OUT gets log.jsonl (a line an epoch), checkpoint.pth after each epoch,
and weights.pth. With --like, OUT/model.safetensors has the weights in the place of those in that file of handgrad's, for
`handgrad eval`. Hours on two cores.
"""

import argparse
import json
import os
import time
from functools import partial
from pathlib import Path

import torch
from fastai.vision.all import (
    Callback, Categorize, Datasets, FlipItem, GrandparentSplitter, IntToFloatTensor, LabelSmoothingCrossEntropy, Learner, PILImage,
    RandomResizedCrop, ToTensor, accuracy, get_image_files, parent_label, ranger, set_seed, top_k_accuracy,
)
from fastai.layers import Mish
from fastai.vision.models.xresnet import xse_resnext18_deep


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="the folder with train and val")
    parser.add_argument("out", type=Path)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--like", type=Path, help="a model.safetensors of the same recipe's, by handgrad")
    return parser.parse_args()


class ChannelsLast(Callback):
    """Batches as the convolutions of a CPU take them fastest."""

    def before_batch(self):
        images = self.learn.xb[0].as_subclass(torch.Tensor)
        self.learn.xb = (images.contiguous(memory_format=torch.channels_last),)


class EpochLog(Callback):
    """A line an epoch, and a checkpoint before its evaluation."""

    order = 100

    def __init__(self, out):
        self.out = out

    def before_epoch(self):
        self.began = time.time()

    def after_train(self):
        state = {"epoch": self.epoch, "model": self.model.state_dict(), "opt": self.opt.state_dict()}
        torch.save(state, self.out / "checkpoint.tmp")
        os.replace(self.out / "checkpoint.tmp", self.out / "checkpoint.pth")

    def after_epoch(self):
        train_loss, valid_loss, top1, top5 = self.learn.recorder.log[1:5]
        line = {"epoch": self.epoch + 1, "train_loss": train_loss, "valid_loss": valid_loss, "accuracy": top1, "top5": top5}
        line = json.dumps(line | {"seconds": time.time() - self.began})
        print(line, flush=True)
        with open(self.out / "log.jsonl", "a") as log:
            log.write(line + "\n")


def main():
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    set_seed(args.seed)
    files = get_image_files(args.images)
    dsets = Datasets(
        files, [[PILImage.create], [parent_label, Categorize()]], splits=GrandparentSplitter(valid_name="val")(files)
    )
    dls = dsets.dataloaders(
        bs=64,
        num_workers=0,
        after_item=[ToTensor(), FlipItem(0.5), RandomResizedCrop(128, min_scale=0.35)],
        after_batch=[IntToFloatTensor()],
        device="cpu",
    )
    model = xse_resnext18_deep(n_out=10, act_cls=Mish, sa=0).to(memory_format=torch.channels_last)
    optimizer = partial(ranger, mom=args.momentum, sqr_mom=0.99, eps=1e-6, beta=0.0)
    learn = Learner(
        dls,
        model,
        opt_func=optimizer,
        metrics=[accuracy, partial(top_k_accuracy, k=5)],
        loss_func=LabelSmoothingCrossEntropy(),
        cbs=[ChannelsLast(), EpochLog(args.out)],
    )
    with learn.no_bar():
        learn.fit_flat_cos(args.epochs, args.lr, wd=1e-2)
    torch.save(model.state_dict(), args.out / "weights.pth")
    if args.like:
        from safetensors import safe_open
        from safetensors.torch import save_file

        with safe_open(args.like, "pt") as file:
            names, metadata = set(file.keys()), file.metadata()
        weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name in names}
        assert len(weights) == len(names), names - set(weights)
        save_file(weights, args.out / "model.safetensors", metadata | {"handgrad.checksum": "none"})


if __name__ == "__main__":
    main()
