"""Shortcuts of the forward are taken where they are proved, and nowhere else."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from families import FAMILIES

from safemed_eval.core import Question
from safemed_eval.errors import CheckpointError
from safemed_eval.models import Asking, load, resolve, tiny
from safemed_eval.models.check import check
from safemed_eval.models.checkpoints.proof import FACTOR, limit
from safemed_eval.models.checkpoints.shortcuts import LAST_LAYER, PACKED, PREFIX, Prefixes
from safemed_eval.models.checkpoints.text_sides import TextSides
from safemed_eval.models.checkpoints.vlm import VLM
from safemed_eval.models.precision import in_float32, is_half
from safemed_eval.models.waist import Waist

SHORT = Question(text="Which?", options=("CT", "MRI"))
LONG = Question(text="Which of these is the most likely finding? " * 4, options=("CT", "MRI", "X-Ray", "Ultrasound"))
CPU = torch.device("cpu")


@cache
def half(family: str, seed: int) -> VLM:
    """A tiny model in bfloat16."""
    if FAMILIES[family].model_type not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} does not know this family yet")
    network, processor = tiny.make(FAMILIES[family], seed=seed, dtype=torch.bfloat16)
    return VLM(network.eval().requires_grad_(False), processor, Asking())


class Counts:
    """A network that counts positions from 5, and keeps as a key of each token the position that it was given."""

    device, dtype, config = CPU, torch.float32, SimpleNamespace(image_token_id=9)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, position_ids: Any = None, **_: Any
    ) -> SimpleNamespace:
        places = torch.full_like(input_ids, -1) if position_ids is None else position_ids
        layer = SimpleNamespace(keys=places[:, None, :, None].float(), values=input_ids[:, None, :, None].float())
        return SimpleNamespace(past_key_values=SimpleNamespace(layers=[layer]))

    __call__ = forward

    def _prepare_position_ids_for_generation(self, input_ids: torch.Tensor, inputs: Any) -> torch.Tensor:
        return (inputs["attention_mask"].cumsum(1) + 4) * inputs["attention_mask"]


class Unplaced(Counts):
    """The same for a network whose forward takes no positions."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> SimpleNamespace:  # type: ignore[override]
        return super().forward(input_ids, attention_mask)

    __call__ = forward  # type: ignore[assignment]


TEXTS = {"long": [2, 3, 9, 9, 4, 5], "short": [2, 3, 9, 9]}


@pytest.mark.parametrize("network", [Counts(), Unplaced()])
@pytest.mark.parametrize("short", [False, True])
def test_rows_are_padded_and_begun_at_their_own_positions(network: Any, short: bool) -> None:
    """A prefix is computed once, at the positions that its tokens have in the batch."""
    sides = TextSides(network, SimpleNamespace(tokenizer=SimpleNamespace(pad_token_id=1)))  # type: ignore[arg-type]

    def one(prompt: str, height: int, width: int) -> Any:
        ids = torch.tensor([TEXTS[prompt]])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, None

    vars(sides)["one"] = one
    batch = sides.batch(["long", "short"], [(), ()], 8, 8, {}, short=short)
    taken = 2 if short else 0
    assert batch["input_ids"].tolist() == [[2, 3, 9, 9, 4, 5][taken:], [1, 1, *[2, 3, 9, 9][taken:]]]
    mask = [[1] * 6, [0, 0, 1, 1, 1, 1]] if not short else [[1] * 6, [1, 1, 0, 0, 1, 1]]
    assert batch["attention_mask"].tolist() == mask
    positions = [[5, 6, 7, 8, 9, 10][taken:], [0, 0, *[5, 6, 7, 8][taken:]]]
    assert ("position_ids" in batch) == (type(network) is Counts)
    if "position_ids" in batch:
        assert batch["position_ids"].tolist() == positions
    if short:
        ((keys, values),) = batch[PREFIX].states
        assert values.flatten().tolist() == [2, 3]
        assert keys.flatten().tolist() == ([5, 6] if type(network) is Counts else [-1, -1])
        assert len(sides.prefixes) == 1


@pytest.mark.parametrize(
    ("rows", "prefix"),
    [
        ([[2, 3, 9], [2, 3, 9]], [2, 3]),
        ([[2, 3, 9, 4]], [2, 3]),
        ([[2, 3, 4, 9], [2, 5, 4, 9]], [2]),
        ([[2, 3, 9], [2, 3, 3]], [2, 3]),
        ([[2, 9]], [2]),
        ([[2, 3, 9], [2, 3]], [2]),
        ([[9, 2], [9, 2]], []),
        ([[2, 3, 4], [2, 3, 4]], []),
    ],
)
@pytest.mark.parametrize("axes", [1, 3])
def test_a_prefix_is_what_all_rows_begin_with_before_any_image(
    rows: list[list[int]], prefix: list[int], axes: int
) -> None:
    """At most all but the last token, whose logits are read. A prompt without an image has none."""
    longest = max(map(len, rows))
    sides = [{"input_ids": torch.tensor([row])} for row in rows]
    ids = torch.tensor([[1] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    places = (mask.cumsum(1) + 4).expand(axes, -1, -1) if axes > 1 else mask.cumsum(1) + 4
    batch = {"input_ids": ids, "attention_mask": mask, "position_ids": places}
    found = Prefixes(Counts()).take_out(batch, sides)  # type: ignore[arg-type]
    if not prefix:
        assert found is batch
        return
    ((_, values),) = found[PREFIX].states
    assert values.flatten().tolist()[: len(prefix)] == prefix and values.shape[2] == len(prefix)
    for number, row in enumerate(rows):
        left = len(row) - len(prefix)
        assert found["input_ids"][number, -left:].tolist() == row[len(prefix) :]
        assert found["position_ids"][..., number, -left:].unique(dim=0).flatten().tolist() == [
            *range(5 + len(prefix), 5 + len(row))
        ]
        assert int(found["attention_mask"][number].sum()) == len(row)


@pytest.mark.parametrize(
    ("family", "seed"), [("gemma3", 2), ("gemma3", 3), ("gemma3", 4), ("molmo2", 0), ("molmo2", 1), ("molmo2", 2)]
)
def test_half_precision_hides_no_wrong_shortcut(family: str, seed: int) -> None:
    """Their image tokens see each other both ways. These differ by less than 3 % of a logit, as rounding may."""
    vlm = half(family, seed)
    vlm.take_shortcuts([SHORT, LONG], (56, 56))
    assert vlm.shortcuts == (LAST_LAYER,)
    assert vlm.refused[PREFIX].startswith("scores change by ")


def test_a_wrong_shortcut_is_found_by_the_check_in_half_precision() -> None:
    """Rows then depend on the rows beside them: on how many tokens these begin with in common."""
    vlm = half("gemma3", 2)
    statuses = {}
    for shortcuts in ((), (PREFIX,)):
        vlm.shortcuts, vlm._proved = shortcuts, range(10**6)
        findings = {one.name: one for one in check(Waist(vlm, CPU), (56, 56), questions=(SHORT, LONG), gradients=False)}
        statuses[shortcuts] = findings["rows are independent"].status
    assert statuses == {(): "pass", (PREFIX,): "fail"}


def test_a_window_shorter_than_the_prompt(checkpoint: Callable[[str], Path]) -> None:
    """Cohere2's prefix is right as long as its window holds what stands behind it, and is given up beyond."""
    model = load(resolve(str(checkpoint("cohere2"))), device="cpu", questions=[SHORT], size=(56, 56))
    vlm, images = model.scorer, torch.rand(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    assert vlm.shortcuts == (PREFIX, LAST_LAYER)
    for beyond in (LONG, replace(LONG, text=LONG.text * 2)):
        shown = model.classify([beyond, beyond])(images)
        taken, vlm.shortcuts = vlm.shortcuts, ()
        torch.testing.assert_close(shown, model.classify([beyond, beyond])(images), atol=1e-5, rtol=0)
        vlm.shortcuts = taken
    assert vlm.shortcuts == (LAST_LAYER,) and PREFIX in vlm.refused


def test_the_prompts_of_the_run_decide(checkpoint: Callable[[str], Path]) -> None:
    folder = str(checkpoint("cohere2"))
    model = load(resolve(folder), device="cpu", questions=[SHORT, LONG], size=(56, 56))
    assert model.scorer.shortcuts == (LAST_LAYER,)
    (finding,) = [one for one in check(model, (56, 56), gradients=False) if one.name == "shortcuts"]
    assert finding.detail.startswith("taken: last layer; ") and "prefix not: scores change by" in finding.detail
    assert "packed images not: " in finding.detail


def test_a_question_that_cannot_be_asked_decides_nothing(waist: Callable[[str], Waist]) -> None:
    """It is the error of its own item; the others keep their shortcuts."""
    vlm = waist("qwen2_vl").scorer
    broken = Question(text="<|im_end|>", options=("a", "b"))
    vlm.take_shortcuts([SHORT, broken, LONG], (56, 56))
    assert vlm.shortcuts == (PREFIX, LAST_LAYER, PACKED)
    statuses = {one.status for one in check(waist("qwen2_vl"), (56, 56), questions=(broken, SHORT), gradients=False)}
    assert "fail" not in statuses


def test_the_limit_is_a_small_multiple_of_the_noise() -> None:
    assert FACTOR <= 10
    assert limit(1e-3, 5.0) == pytest.approx(FACTOR * 1e-3, rel=0.01)
    assert 0 < limit(0.0, 1.0) < 1e-5, "where there is no noise, rounding of the letters in float32 is left"


def test_weights_come_back_bit_by_bit() -> None:
    network = half("gemma3", 2).model
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with in_float32(network):
        assert not is_half(network) and network.dtype == torch.float32
    assert is_half(network)
    for name, tensor in network.state_dict().items():
        assert tensor.dtype == before[name].dtype and torch.equal(tensor, before[name])


def test_what_cannot_be_held_in_float32_takes_no_shortcut(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = half("gemma3", 2)
    monkeypatch.setattr(vlm.model.config, "_attn_implementation_internal", "flash_attention_2")
    with pytest.raises(CheckpointError, match="flash_attention_2 computes in half precision only"), vlm.exact():
        pass
    vlm.take_shortcuts([SHORT], (56, 56))
    assert vlm.shortcuts == () and set(vlm.refused) == {PREFIX, LAST_LAYER, PACKED}
    assert "not proved: " in vlm.refused[PREFIX]


def test_a_family_that_transformers_broke_is_refused_by_name(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(checkpoint("llama4"))
    seen = importlib.import_module("safemed_eval.models.checkpoints.load").transformers
    monkeypatch.setattr(seen, "__version__", "5.24.0")
    with pytest.raises(CheckpointError, match=r"transformers 5\.24\.0 breaks llama4: .*; install another version"):
        load(resolve(folder), device="cpu")
    monkeypatch.setattr(seen, "__version__", "5.23.0")
    assert load(resolve(folder), device="cpu").differentiable
