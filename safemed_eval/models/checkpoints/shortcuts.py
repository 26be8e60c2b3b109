"""Shortcuts of a forward whose logits are read at its last token alone.

- *prefix*: keys and values of the tokens before the image, which all rows share, are computed once and kept. If tokens
  attend only to those before them (not so in PaliGemma), nothing in the image or after it can change them.
- *last layer*: after its attention, the last layer is computed for the last token only; no other output is read.
- *packed images*: if a vision tower packs the images of a batch into one sequence, transformers attends to one image,
  or one window of it, at a time, in every layer; here all of the same length are attended to in one call.
- *compiled layers*, only where they are asked for: torch.compile fuses the small operations of the decoder's layers and
  of the image encoder's perceptrons. It stands in for *prefix*, with whose cache each layer would be compiled apart.

None of them changes what is computed for the last token, except for the order of float sums. Nothing here depends on
an architecture: whether a shortcut may be taken is measured against the plain forward; see `proof` and
`VLM.take_shortcuts`.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from safemed_eval.models.checkpoints.protocols import Network, Tensors

if TYPE_CHECKING:
    from transformers import DynamicCache

PREFIX, LAST_LAYER, PACKED, COMPILED = "prefix", "last layer", "packed images", "compiled layers"
SHORTCUTS = (PREFIX, LAST_LAYER, PACKED)

_PREFIXES_KEPT = 16


def cache_argument(model: Network) -> str:
    """The name of the cache of keys and values, as argument and output: "cache" from transformers 5.24 on."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


@dataclass(frozen=True)
class Prefix:
    """The keys and values of some leading tokens, one pair of (1, heads, tokens, size) a layer."""

    states: tuple[tuple[torch.Tensor, torch.Tensor], ...]

    def cache(self, rows: int) -> DynamicCache:
        """A cache for this many rows, which one forward may extend."""
        from transformers import DynamicCache

        return DynamicCache(
            [(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1)) for keys, values in self.states]
        )


class Prefixes:
    """Computes and keeps the prefixes of a model, whose weights must not change any more."""

    def __init__(self, model: Network) -> None:
        self._model = model
        config = model.config
        names = ("image_token_id", "image_token_index")
        self._image = next((getattr(config, name) for name in names if getattr(config, name, None) is not None), None)
        self._known: OrderedDict[tuple[int, ...], Prefix] = OrderedDict()

    def _length(self, ids: list[list[int]]) -> int:
        """Count the leading tokens that these rows share before any image token; at most all but the last token."""
        shortest = min(map(len, ids)) - 1
        different = (i for i in range(shortest) if ids[0][i] == self._image or len({row[i] for row in ids}) > 1)
        return next(different, shortest) if self._image in ids[0] else 0

    def __len__(self) -> int:
        """The number of prefixes that are kept."""
        return len(self._known)

    def take_out(self, batch: dict[str, Any], rows: Sequence[Tensors]) -> dict[str, Any]:
        """Replace the tokens that all rows of a left-padded batch begin with by their keys and values.

        Args:
            batch: tensors of (B, L) or (B, L, ...), and of (..., B, L) for positions.
            rows: the text sides that the batch was made of, (1, own length) each.
        """
        ids = [row["input_ids"][0].tolist() for row in rows]
        prefix = self._length(ids)
        if not prefix:
            return batch
        longest = max(map(len, ids))
        starts = [longest - len(row) for row in ids]
        kept = torch.tensor([[*range(start), *range(start + prefix, longest)] for start in starts])
        kept, each = kept.to(batch["input_ids"].device), torch.arange(len(ids)).unsqueeze(1)
        positions = batch.get("position_ids")
        first = None if positions is None else positions[..., :1, starts[0] : starts[0] + prefix]
        cut = {
            name: value[..., each, kept] if name == "position_ids" else value[each, kept]
            for name, value in batch.items()
        }
        mask = cut["attention_mask"]
        cut["attention_mask"] = torch.cat([mask.new_ones(len(ids), prefix), mask], dim=1)
        return {**cut, PREFIX: self._of(ids[0][:prefix], first)}

    def _of(self, tokens: list[int], positions: torch.Tensor | None) -> Prefix:
        """The keys and values of these tokens, at these positions."""
        key = tuple(tokens)
        if key not in self._known:
            ids = torch.tensor([tokens], device=self._model.device)
            where = {} if positions is None else {"position_ids": positions}
            with torch.no_grad():
                grown = self._model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True, **where)
            layers = getattr(grown, cache_argument(self._model)).layers
            self._known[key] = Prefix(tuple((layer.keys, layer.values) for layer in layers))
            if len(self._known) > _PREFIXES_KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]


@contextmanager
def last_token_only(model: Network) -> Iterator[None]:
    """During one forward, let the last layer compute what follows its attention for the last token alone.

    Not for two threads at once.
    """
    layer = model.get_decoder().layers[-1]
    places = [(layer.self_attn, "o_proj", layer.self_attn.o_proj), (layer, "mlp", layer.mlp)]
    for parent, name, module in places:
        setattr(parent, name, _LastToken(module))
    try:
        yield
    finally:
        for parent, name, module in places:
            setattr(parent, name, module)


class _LastToken(torch.nn.Module):
    """A token-wise module, applied to the last token only; the outputs for the others are zeros."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return F.pad(self.inner(hidden[:, -1:]), (0, 0, hidden.shape[1] - 1, 0))


@contextmanager
def packed_images(model: Network) -> Iterator[None]:
    """During one forward, attend to all packed images in one call. Not for two threads at once.

    Raises:
        ValueError: the vision tower packs no images, or another attention than SDPA was asked for.
    """
    from transformers import AttentionInterface

    config, calls = model.config.vision_config, _within_images.calls
    before = config._attn_implementation
    if before != "sdpa":
        raise ValueError(f"the vision tower attends by {before}")
    AttentionInterface.register(_WITHIN_IMAGES, _within_images)
    config._attn_implementation = _WITHIN_IMAGES
    try:
        yield
    finally:
        config._attn_implementation = before
    if _within_images.calls == calls:
        raise ValueError("the vision tower packs no images")


_WITHIN_IMAGES = "flash_within_images"
"""The name contains "flash": transformers passes the boundaries of images to such an attention only."""


class _WithinImages:
    """An attention function for transformers that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        cu_seq_lens_q: torch.Tensor,
        scaling: float | None = None,
        dropout: float = 0.0,
        is_causal: bool = False,
        **_: object,
    ) -> tuple[torch.Tensor, None]:
        """(1, heads, tokens, size) each -> (1, tokens, heads, size); tokens attend to those of their own image.

        Args:
            cu_seq_lens_q: the places where images begin, and where the last one ends.
        """
        if attention_mask is not None or dropout or is_causal:
            raise ValueError("packed images have neither a mask nor dropout, and see in both directions")
        self.calls += 1
        ends = cu_seq_lens_q.tolist()
        spans: dict[int, list[int]] = {}
        for start, end in pairwise(ends):
            spans.setdefault(end - start, []).append(start)

        def within(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            """(images, heads, length, size) each -> (images * length, heads, size)"""
            return F.scaled_dot_product_attention(q, k, v, scale=scaling).transpose(1, 2).flatten(0, 1)

        packed = query[0], key[0], value[0]
        if len(spans) == 1:
            q, k, v = (x.reshape(len(x), len(ends) - 1, -1, x.shape[-1]).transpose(0, 1) for x in packed)
            return within(q, k, v)[None], None
        attended = torch.empty_like(packed[0]).transpose(0, 1)
        for length, starts in spans.items():
            places = torch.tensor(starts, device=query.device)[:, None] + torch.arange(length, device=query.device)
            q, k, v = (x[:, places].transpose(0, 1) for x in packed)
            attended = attended.index_copy(0, places.flatten(), within(q, k, v))
        return attended[None], None


_within_images = _WithinImages()


class CompiledLayers:
    """The layers of a network, as torch.compile makes them on first use: for any batch and any length of prompts.

    All decoder layers but the last, which *last layer* changes, and the perceptrons in the blocks of the image encoder.
    """

    def __init__(self, model: Network) -> None:
        layers, encoder = model.get_decoder().layers, model.get_encoder(modality="image")
        places = [(layers, str(number)) for number in range(len(layers) - 1)]
        places += [
            (encoder.get_submodule(name.rpartition(".")[0]), "mlp")
            for name, _ in encoder.named_modules()
            if re.search(r"\.\d+\.mlp$", name)
        ]
        self._places = [(parent, name, getattr(parent, name)) for parent, name in places]
        self._compiled = [torch.compile(module, dynamic=True) for _, _, module in self._places]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """During one forward, let them stand in for the layers. Not for two threads at once."""
        for (parent, name, _), compiled in zip(self._places, self._compiled, strict=True):
            setattr(parent, name, compiled)
        try:
            with torch._dynamo.config.patch(recompile_limit=_VARIANTS), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The .grad attribute")  # the compiler looks at its inputs
                yield
        finally:
            for parent, name, module in self._places:
                setattr(parent, name, module)


_VARIANTS = 64
"""With and without gradients and padding, one row or more, half precision and float32; torch gives up at 8."""
