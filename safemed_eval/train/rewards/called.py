"""Rewards as TRL and the adversary call them: the training's own, and those of a user."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import Any

import torch

from safemed_eval.core import Item, Question
from safemed_eval.models.answers import OPENING_TAG
from safemed_eval.models.checkpoints.thoughts import CLOSE, is_open
from safemed_eval.models.checkpoints.vlm import VLM
from safemed_eval.train import rewards
from safemed_eval.train._rows import Row, to_canvas
from safemed_eval.train.inner.modes import in_eval_mode
from safemed_eval.train.inner.objectives import Tokens
from safemed_eval.train.recipe import Groups
from safemed_eval.train.rewards.functions import RewardFunction
from safemed_eval.train.watch.samples import Rewarded


def reward_functions(groups: Groups, vlm: VLM) -> tuple[list[Callable[..., Sequence[float | None]]], list[float]]:
    """Return the reward functions in TRL's signature, and their weights; `vlm` is the policy, behind the waist."""

    def correct(
        completion_ids: Sequence[Sequence[int]],
        question: Sequence[Question],
        label: Sequence[int],
        image: Sequence[Any],
        **_: object,
    ) -> list[float]:
        ends = frozenset(vlm.turn.ends(vlm.model.generation_config))
        if groups.readout == "generate":
            texts = [_text_of(vlm, tokens, ends) for tokens in completion_ids]
            return [rewards.correct(*row) for row in zip(texts, question, label, strict=True)]
        asked = zip(completion_ids, question, label, image, strict=True)
        with torch.no_grad(), in_eval_mode(vlm.model):
            return [_chosen(vlm, ends, *row) for row in asked]

    def kept(completions: Sequence[Any], **_: object) -> list[float]:
        return [rewards.kept(completion[-1]["content"], vlm.template) for completion in completions]

    own = [_own(function, vlm) for function in groups.functions]
    return [correct, kept, *own], [groups.correct, groups.kept, *(function.weight for function in groups.functions)]


def _own(reward: RewardFunction, vlm: VLM) -> Callable[..., list[float | None]]:
    """Return a user's function in TRL's signature, under its own name."""
    function = reward.load()

    def rewarded(
        completion_ids: Sequence[Sequence[int]], question: Sequence[Question], label: Sequence[int], **_: object
    ) -> list[float | None]:
        ends = frozenset(vlm.turn.ends(vlm.model.generation_config))
        texts = [_text_of(vlm, tokens, ends) for tokens in completion_ids]
        return [function(*row) for row in zip(texts, question, label, strict=True)]

    rewarded.__name__ = reward.name
    return rewarded


def rewarding(groups: Groups | None, vlm: VLM) -> Rewarded:
    """Return a function that rewards one completion as the training does; without GRPO by `rewards.correct` alone."""
    if groups is None:

        def graded(tokens: Sequence[int], item: Item, image: object) -> dict[str, float | None]:
            ends = frozenset(vlm.turn.ends(vlm.model.generation_config))
            return {"correct": rewards.correct(_text_of(vlm, tokens, ends), item.question, item.label)}

        return graded
    functions, weights = reward_functions(groups, vlm)

    def weighed(tokens: Sequence[int], item: Item, image: object) -> dict[str, float | None]:
        content = vlm.processor.tokenizer.decode(tokens, skip_special_tokens=True)
        row = {"completion_ids": [tokens], "completions": [[{"content": content}]], "image": [image]}
        row |= {"question": [item.question], "label": [item.label]}
        values = {function.__name__: function(**row)[0] for function in functions}
        known = [(weight, v) for weight, v in zip(weights, values.values(), strict=True) if v is not None]
        return {**values, "reward": sum(weight * value for weight, value in known)}

    return weighed


def earned(
    functions: Sequence[Callable[..., Sequence[float | None]]], weights: Sequence[float], vlm: VLM
) -> Callable[[Sequence[Row], Sequence[Tokens]], list[float]]:
    """Return a function for the rewards of completions outside of TRL, from one row and one list of tokens each."""

    def rewards_of(rows: Sequence[Row], written: Sequence[Tokens]) -> list[float]:
        decode = vlm.processor.tokenizer.decode
        said = [[{"role": "assistant", "content": decode(list(one), skip_special_tokens=True)}] for one in written]
        columns = {name: [row[name] for row in rows] for name in rows[0]} if rows else {}
        given = {**columns, "completions": said, "completion_ids": [list(one) for one in written]}
        parts = [function(**given) for function in functions]
        rows_of = [zip(weights, each, strict=True) for each in zip(*parts, strict=True)]
        return [sum(weight * value for weight, value in each if value is not None) for each in rows_of]

    return rewards_of


def _chosen(vlm: VLM, ends: Set[int], tokens: Sequence[int], question: Question, label: int, image: Any) -> float:
    """Return 1 if gold is the likeliest letter after the completion's thought, else 0; 0 for an unfinished thought."""
    text = _text_of(vlm, tokens, ends)
    ended = bool(tokens) and tokens[-1] in ends
    if not ended and (is_open(text) or not (CLOSE in text or OPENING_TAG in text)):
        return 0.0
    canvas = to_canvas(image)[None].to(vlm.device)
    return float(vlm.scores_after(canvas, [question], [text])[0].argmax() == label)


def _text_of(vlm: VLM, tokens: Sequence[int], ends: Set[int]) -> str:
    """Decode a completion; TRL's own decoding drops thought tags that are special tokens."""
    return vlm.turn.told([token for token in tokens if token not in ends])
