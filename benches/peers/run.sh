#!/usr/bin/env bash
# handgrad beside PyTorch and burn on this machine, as a Markdown table: run.sh --help.
#
# PYTHON (python3) is an interpreter, 3.11 or later, that has torch, torchvision, fastai and safetensors.
set -euo pipefail
exec "${PYTHON:-python3}" "$(dirname "$0")/compare.py" "$@"
