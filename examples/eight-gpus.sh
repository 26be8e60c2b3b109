#!/usr/bin/env bash
# One machine with eight GPUs: a worker on each, this process hands out the items and writes the records.
#   MODEL=org/name DATA=omnimedvqa:/data/OmniMedVQA examples/eight-gpus.sh
set -euo pipefail
: "${MODEL:?a checkpoint}" "${DATA:?such as omnimedvqa:/data/OmniMedVQA}"

# What will it cost? One GPU, a few items.
safemed-eval plan --model "$MODEL" --data "$DATA" --sigma 0.25 --attack pgd:eps=4/255

# The same command again goes on where it stopped, with as many workers as there are then.
safemed-eval certify --model "$MODEL" --data "$DATA" --sigma 0.25 --ray local --out runs/certify
safemed-eval evaluate --model "$MODEL" --data "$DATA" --attack pgd:eps=4/255 --ray local --out runs/evaluate
safemed-eval report runs/certify runs/evaluate --out report
