"""A model of real size on one GPU: `python benchmarks/gpu.py [2b|3b]`; `tiny` tries the script on a CPU.

Random weights of the shapes of Qwen2-VL-2B and Qwen2.5-VL-3B, 392 x 392 pixels, bfloat16. Prints noise samples/s of
CERTIFY and gradient steps/s of PGD with the share of the machine's measured matrix product that they reach, memory,
tokens/s of generated answers, and where a batch's time goes. Counted are the operations of the plain forward: what the
shortcuts leave out is not taken off, so that shares compare.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import transformers
from _common import QUESTION, in_turns, machine, rate_of
from torch.utils.flop_counter import FlopCounterMode

from safemed_eval import attacks
from safemed_eval.models import Asking, tiny
from safemed_eval.models.batch import find_batch
from safemed_eval.models.generate import Writer
from safemed_eval.models.processor import pixel_inputs
from safemed_eval.models.prompts import TEMPLATES
from safemed_eval.models.vlm import VLM
from safemed_eval.models.waist import Waist
from safemed_eval.seeds import generator
from safemed_eval.smoothing import Smoothing
from safemed_eval.smoothing.certify import certify

_SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"


def real(name: str) -> tuple[tiny.Family, int]:
    """The family in its real shape, and the side of its canvas."""
    side = 392
    pixels = {"shortest_edge": side * side, "longest_edge": side * side}
    images = partial(transformers.Qwen2VLImageProcessor, patch_size=14, merge_size=2, size=pixels)
    if name == "tiny":
        return tiny.QWEN2_5_VL, 56
    if name == "2b":
        base, text, vision = (
            tiny.SMALL_QWEN2_VL,
            {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12},
            {"embed_dim": 1280, "hidden_size": 1536, "depth": 32, "num_heads": 16, "patch_size": 14},
        )
    else:
        base, text, vision = (
            tiny.QWEN2_5_VL,
            {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16},
            {"hidden_size": 1280, "intermediate_size": 3420, "depth": 32, "num_heads": 16, "out_hidden_size": 2048}
            | {"window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]},
        )
    text |= {"num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 32768}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    config = {
        **base.config,
        "text_config": base.config["text_config"] | text,
        "vision_config": base.config["vision_config"] | vision,
    }
    return replace(base, config=config, image_processor=images), side


def peak(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Operations/s of a large matrix product."""
    a, b = (torch.randn((side, side), device=device, dtype=dtype) for _ in range(2))
    rates = in_turns({"product": partial(rate_of, lambda: [a @ b for _ in range(10)], 10)})["product"]
    return 2 * side**3 * max(rates)


def flops(work: Callable[[], object]) -> float:
    counter = FlopCounterMode(display=False)
    with counter:
        work()
    return float(counter.get_total_flops())


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "3b"
    if name not in ("2b", "3b", "tiny"):
        sys.exit(f"{name}: write 2b, 3b or tiny")
    family, side = real(name)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float32 if name == "tiny" else torch.bfloat16
    print(machine())
    started = time.perf_counter()
    network, processor = tiny.make(family, dtype=dtype, device=str(device))
    processor.chat_template = _SYSTEM + processor.chat_template
    network = network.eval().requires_grad_(False)
    size = sum(p.numel() for p in network.parameters()) / 1e9
    print(f"{name}: {size:.2f} billion parameters, made in {time.perf_counter() - started:.0f} s")
    vlm = VLM(network, processor, Asking())
    model = Waist(vlm, device)
    limit = peak(device, dtype, 512 if name == "tiny" else 8192)
    print(f"measured peak of a matrix product: {limit / 1e12:.1f} Tflop/s")

    canvas = torch.rand((3, side, side), generator=torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        each = flops(lambda: model.vote(QUESTION)(canvas[None]))
    vlm.take_shortcuts()
    batch = find_batch(model, (side, side), gradients=False)
    n = 2 * batch if name == "tiny" else max(1000, 8 * batch)
    spec = Smoothing(sigma=0.25, n0=batch, n=n)
    streams = partial(generator, device, 0, "gpu")
    run = partial(certify, model.vote(QUESTION), canvas, spec, rng=streams, batch=batch)
    taken = vlm.shortcuts
    for shortcuts in ((), taken):
        vlm.shortcuts = shortcuts
        rate = float(np.median(in_turns({"": partial(rate_of, run, spec.n0 + n)}, 3)[""]))
        print(
            f"certify, batch {batch}, shortcuts {list(shortcuts)}: {rate:.1f} samples/s, {each / 1e9:.0f} Gflop each, "
            f"{rate * each / limit:.1%} of the peak{_memory()}"
        )

    rows = find_batch(model, (side, side), gradients=True)
    images = canvas.repeat(rows, 1, 1, 1)
    labels = model.classify([QUESTION] * rows)(images).argmax(1)
    pgd = attacks.parse("pgd:eps=4/255,steps=4,early_stop=no")
    keys = [generator(device, row) for row in range(rows)]
    attack = partial(pgd, model.classify([QUESTION] * rows), images, labels, keys)
    rate = float(np.median(in_turns({"": partial(rate_of, attack, 4 * rows)}, 3)[""]))
    step = flops(lambda: pgd(model.classify([QUESTION]), images[:1], labels[:1], keys[:1])) / 4
    print(f"PGD, {rows} rows: {rate:.1f} gradient steps/s, {rate * step / limit:.1%} of the peak{_memory()}")

    writer = Waist(
        Writer(network, processor, Asking(readout="generate", template=TEMPLATES["think"], max_new_tokens=64)), device
    )
    write = partial(writer.answer, canvas.repeat(batch, 1, 1, 1), [QUESTION] * batch)
    rate = float(np.median(in_turns({"": partial(rate_of, write, 64 * batch)}, 3)[""]))
    print(f"generate, {batch} rows: {rate:.0f} tokens/s, if no row ends before its 64{_memory()}")

    copies = canvas.repeat(batch, 1, 1, 1)
    prompts = [vlm.prompt(QUESTION, vlm.asking.template.cue)] * batch
    inputs = vlm._inputs(copies, prompts, positions=True)
    vision = {key: inputs[key] for key in ("pixel_values", "image_grid_thw")}
    _, call = vlm._text(prompts[0], side, side)
    noise = torch.empty((batch, 3, side, side), device=device)
    parts = {
        "vote": lambda: model.vote(QUESTION)(copies),
        "noise": lambda: noise.normal_(0, 0.25, generator=streams(0)),
        "image processor": lambda: pixel_inputs(processor, copies, call),
        "vision tower": lambda: network.get_image_features(**vision),
        "whole model": lambda: network(**inputs, use_cache=False, logits_to_keep=1),
        "its head": lambda: network.get_output_embeddings()(
            torch.zeros((batch, 1, _width(network)), device=device, dtype=dtype)
        ),
    }
    with torch.no_grad():
        rates = in_turns({key: partial(rate_of, part, 1) for key, part in parts.items()})
    print(f"ms a batch of {batch}: " + ", ".join(f"{key} {1e3 / float(np.median(r)):.1f}" for key, r in rates.items()))


def _width(network: torch.nn.Module) -> int:
    return int(network.get_output_embeddings().weight.shape[1])


def _memory() -> str:
    if not torch.cuda.is_available():
        return ""
    used = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    return f", peak memory {used:.1f} GiB"


if __name__ == "__main__":
    main()
