#!/usr/bin/env bash
# The CUDA backend on this machine's GPU: conformance, rates, PyTorch with cuDNN beside it, as a Markdown page: run.sh --help.
#
# Needs NVIDIA's driver and what bundle.sh packed; it is called where that was unpacked. PYTHON (python3) is an interpreter,
# 3.11 or later, with PyTorch 2.8 or later for the comparison; without PyTorch the rest is done.
set -euo pipefail
exec "${PYTHON:-python3}" "$(dirname "$0")/measure.py" "$@"
