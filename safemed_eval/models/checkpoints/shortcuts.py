"""What a forward that is read at its last token alone need not compute.

- *prefix*: keys and values of the tokens that stand before the image in every row are computed once, and kept. Where
  tokens see only those before them (not in PaliGemma) nothing in the image or behind it can change them.
- *last layer*: behind its attention the last layer works on the last token only; the others are read by nobody.
- *packed images*: where a vision tower packs the images of a batch one behind the other, transformers attends to one
  image, or window of it, after the other, in every layer; here all those of a length are attended to in one call.

None changes what is computed for the token that is read, but for the order of float sums. Nothing here knows an
architecture: whether a shortcut may be taken is measured against the plain forward; see `proof` and `VLM.prove`.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F

PREFIX, LAST_LAYER, PACKED = "prefix", "last layer", "packed images"
SHORTCUTS = (PREFIX, LAST_LAYER, PACKED)

_PREFIXES_KEPT = 16


def cache_argument(model: Any) -> str:
    """The name of the cache of keys and values, as argument and output: "cache" from transformers 5.24 on."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


@dataclass(frozen=True)
class Prefix:
    """The keys and values of some leading tokens, one pair of (1, heads, tokens, size) a layer."""

    states: tuple[tuple[torch.Tensor, torch.Tensor], ...]

    def cache(self, rows: int) -> Any:
        """A cache for so many rows, to be grown by one forward."""
        from transformers import DynamicCache

        return DynamicCache(
            [(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1)) for keys, values in self.states]
        )


class Prefixes:
    """The prefixes of a model whose weights do not change any more."""

    def __init__(self, model: Any) -> None:
        self._model = model
        config = model.config
        names = ("image_token_id", "image_token_index")
        self._image = next((getattr(config, name) for name in names if getattr(config, name, None) is not None), None)
        self._known: OrderedDict[tuple[int, ...], Prefix] = OrderedDict()

    def _length(self, ids: list[list[int]]) -> int:
        """How many leading tokens these rows have in common, before any image token; at most all but the last one."""
        shortest = min(map(len, ids)) - 1
        different = (i for i in range(shortest) if ids[0][i] == self._image or len({row[i] for row in ids}) > 1)
        return next(different, shortest) if self._image in ids[0] else 0

    def __len__(self) -> int:
        """How many are known."""
        return len(self._known)

    def take_out(self, batch: dict[str, Any], rows: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, Any]:
        """A left-padded batch without the tokens that all rows begin with, whose keys and values it holds instead.

        Args:
            batch: tensors of (B, L) or (B, L, ...), and of (..., B, L) for positions.
            rows: the text sides that it was made of, (1, own length) each.
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
def last_token_only(model: Any) -> Iterator[None]:
    """For one forward, let the last layer compute what follows its attention for the last token alone.

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
    """A module that works token by token, applied to the last one; zeros stand for the others."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return F.pad(self.inner(hidden[:, -1:]), (0, 0, hidden.shape[1] - 1, 0))


@contextmanager
def packed_images(model: Any) -> Iterator[None]:
    """For one forward, attend to all packed images in one call. Not for two threads at once.

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
"""The name has "flash" in it: to such an attention transformers says where images begin and end."""


class _WithinImages:
    """An attention function of transformers; counts its calls."""

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
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        """(1, heads, tokens, size) each -> (1, tokens, heads, size); tokens see those of their own image.

        Args:
            cu_seq_lens_q: where images begin, and where the last one ends.
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
        found = torch.empty_like(packed[0]).transpose(0, 1)
        for length, starts in spans.items():
            places = torch.tensor(starts, device=query.device)[:, None] + torch.arange(length, device=query.device)
            q, k, v = (x[:, places].transpose(0, 1) for x in packed)
            found = found.index_copy(0, places.flatten(), within(q, k, v))
        return found[None], None


_within_images = _WithinImages()
