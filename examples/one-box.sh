#!/bin/bash
# One machine, all of its GPUs: a worker on each.
#
#     bash examples/one-box.sh CHECKPOINT DATA        such as: runs/ckpt omnimedvqa:/data/OmniMedVQA
#
# Ctrl-C stops cleanly. The same command goes on where it stopped, with as many GPUs as there are then.
set -euo pipefail

model=$1 data=$2
options=(--model "$model" --data "$data" --sigma 0.25 --n 10000)

safemed-eval plan "${options[@]}"
safemed-eval certify "${options[@]}" --ray local --out runs/certify-0.25
safemed-eval report runs/certify-0.25 --out report
