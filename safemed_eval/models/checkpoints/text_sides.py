"""The text side of a batch: built once per prompt by the official processor, left-padded, and kept."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from safemed_eval.models.checkpoints.processor import ImageCall, grouped_if_equal, official_inputs
from safemed_eval.models.checkpoints.protocols import Network, Processor, Tensors
from safemed_eval.models.checkpoints.shortcuts import PREFIX, Prefixes

_TEXTS_KEPT = 4096
_BATCHES_KEPT = 4

Batch = dict[str, Any]
"""Arguments of a network's forward: tensors, and under PREFIX the `Prefix` that was taken out of them."""


class TextSides:
    """Turns prompts into batches of token ids, masks and positions on the network's device.

    The weights must not change while batches and prefixes are kept; `forget` drops them.

    Args:
        network: a transformers model.
        processor: the processor that was saved with it.
    """

    def __init__(self, network: Network, processor: Processor) -> None:
        self._network = network
        self._processor = processor
        self._takes_positions = "position_ids" in inspect.signature(network.forward).parameters
        self._texts: OrderedDict[tuple[str, int, int], tuple[Tensors, ImageCall]] = OrderedDict()
        self._calls: dict[tuple[int, int], tuple[ImageCall, ImageCall]] = {}
        """The processor's own call for each size, and the one that is made in its place."""
        self.forget()

    def forget(self) -> None:
        """Drop all batches and prefixes."""
        self._batches: OrderedDict[Hashable, Batch] = OrderedDict()
        self.prefixes = Prefixes(self._network)

    def one(self, prompt: str, height: int, width: int) -> tuple[Tensors, ImageCall]:
        """The text side of one prompt, each tensor (1, L), and how the processor calls its image processor."""
        key = (prompt, height, width)
        if key not in self._texts:
            blank = Image.new("RGB", (width, height), (127, 127, 127))
            inputs, call = official_inputs(self._processor, blank, prompt)
            texts = {name: value for name, value in inputs.items() if name not in call.outputs}
            self._texts[key] = texts, self._grouped(call, height, width)
            if len(self._texts) > _TEXTS_KEPT:
                self._texts.popitem(last=False)
        self._texts.move_to_end(key)
        return self._texts[key]

    def _grouped(self, call: ImageCall, height: int, width: int) -> ImageCall:
        """See `grouped_if_equal`, which is asked once for each size, since all prompts make the same call."""
        size = height, width
        if size not in self._calls or self._calls[size][0] != call:
            self._calls[size] = call, grouped_if_equal(self._processor, call, size)
        return self._calls[size][1]

    def batch(
        self,
        prompts: Sequence[str],
        written: Sequence[tuple[int, ...]],
        height: int,
        width: int,
        images: Tensors | None,
        *,
        short: bool,
    ) -> Batch:
        """Left-pad the text sides of some prompts.

        Args:
            written: tokens behind each prompt, as if the model had written them.
            images: the image side; if given, the positions of all tokens are added.
            short: take out the tokens that all rows begin with; their keys and values are there instead.
        """
        rows = tuple(zip(prompts, written, strict=True))
        alike = len({*rows}) == 1  # noisy copies of an image: a smaller batch is the beginning of a larger one
        key = (rows[:1] if alike else rows, height, width, images is None, short)
        kept = self._batches.get(key)
        if kept is None or len(kept["input_ids"]) < len(rows):
            sides = [_longer(self.one(prompt, height, width)[0], tokens) for prompt, tokens in rows]
            kept = self._batches[key] = self._padded(sides, images, short)
            if len(self._batches) > _BATCHES_KEPT:
                self._batches.popitem(last=False)
        self._batches.move_to_end(key)
        return _first(kept, len(rows)) if alike else kept

    def _padded(self, rows: Sequence[Tensors], images: Tensors | None, short: bool) -> Batch:
        longest = max(row["input_ids"].shape[1] for row in rows)

        def padded(name: str) -> torch.Tensor:
            value = self._processor.tokenizer.pad_token_id if name == "input_ids" else 0
            beyond = (0, 0) * (rows[0][name].ndim - 2)
            return torch.cat(
                [F.pad(row[name], (*beyond, longest - row[name].shape[1], 0), value=value) for row in rows]
            )

        batch: Batch = {**self.to_network({name: padded(name) for name in rows[0]})}
        # Without explicit positions most models count the padding in; rotary ones forgive that, to rounding.
        positions = getattr(self._network, "_prepare_position_ids_for_generation", None)
        if images is not None and self._takes_positions and positions is not None:
            batch["position_ids"] = positions(batch["input_ids"], {**batch, **images})
        return self.prefixes.take_out(batch, rows) if short else batch

    def to_network(self, inputs: Tensors) -> dict[str, torch.Tensor]:
        """Move tensors to the network's device, and floating-point ones to its type."""
        dtype = self._network.dtype
        return {
            name: value.to(self._network.device, dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }


def _first(batch: Mapping[str, Any], rows: int) -> Batch:
    """The first rows of a batch; positions are (..., B, L)."""
    return {
        name: value if name == PREFIX else value[..., :rows, :] if name == "position_ids" else value[:rows]
        for name, value in batch.items()
    }


def _longer(side: Tensors, tokens: tuple[int, ...]) -> Tensors:
    """A text side with these tokens behind it; masks and types of its last token are repeated for them."""
    if not tokens:
        return side
    last = {name: value[:, -1:].repeat_interleave(len(tokens), dim=1) for name, value in side.items()}
    last["input_ids"] = torch.tensor([tokens])
    return {name: torch.cat([value, last[name]], dim=1) for name, value in side.items()}
