"""Families that cannot be attacked or certified as they stand are refused with the reason, at load or by a check."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from families.refused import REFUSED

from safemed_eval.errors import CheckpointError
from safemed_eval.models import load, resolve
from safemed_eval.models.check import check, refuse_failures


@pytest.mark.parametrize("gradients", [True, False], ids=["attacked", "certified"])
@pytest.mark.parametrize("family", REFUSED)
def test_the_refusal_names_the_reason(family: str, gradients: bool, checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(CheckpointError, match=REFUSED[family][1]):
        refuse_failures(check(load(resolve(str(checkpoint(family))), device="cpu"), (56, 56), gradients=gradients), "x")


def test_a_random_mllama_whose_gates_are_closed_is_image_blind(checkpoint: Callable[[str], Path]) -> None:
    """As transformers initializes it: what the cross-attention layers read from the image is multiplied by 0."""
    blind = load(resolve(str(checkpoint("mllama"))), device="cpu")
    for name, gate in blind.scorer.model.named_parameters():
        if name.endswith(("cross_attn_attn_gate", "cross_attn_mlp_gate")):
            gate.data.zero_()
    failed = {one.name: one.detail for one in check(blind, (56, 56)) if one.status == "fail"}
    assert set(failed) == {"the image matters", "gradient reaches the pixels"}
    assert "the model does not look at it" in failed["the image matters"]
