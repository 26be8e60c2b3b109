"""TRL's trainers, with an adversary that attacks the images first."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Any

import torch
from transformers.utils import CONFIG_NAME
from trl import GRPOTrainer, SFTTrainer
from trl.data_utils import apply_chat_template, prepare_multimodal_messages

from safemed_eval.core import Item, Question
from safemed_eval.models.answers import OPENING_TAG
from safemed_eval.models.checkpoints.thoughts import CLOSE, is_open
from safemed_eval.models.checkpoints.vlm import VLM
from safemed_eval.train import rewards
from safemed_eval.train._recipe import Groups
from safemed_eval.train._rows import Row, to_canvas
from safemed_eval.train.adversary import Adversary, Perturbed, in_eval_mode
from safemed_eval.train.reward_functions import RewardFunction
from safemed_eval.train.watch.samples import Rewarded
from safemed_eval.train.watch.trainer import Watched

_ROWS = "rows"
_NO_ADVANTAGE = 0.01
"""Rounding leaves advantages up to this size in a group of equal rewards; in any other group one is above 0.3."""
_NO_DIFFERENCE = 1e-5
"""The same where advantages are differences of rewards, not divided by a standard deviation."""
_ONCE_A_BATCH = ("adversary/eps", "adversary/seconds")
"""Metrics of the adversary that are no means over attacked rows."""


class _Resumed:
    """Resumes from a checkpoint with transformers' own loader.

    `Trainer` matches tensors by name and only warns of mismatches. Transformers saves some architectures, such as
    Qwen2-VL, under other names than in memory: no tensor would match, and training would restart from the beginning.
    """

    model: Any

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if hasattr(self.model, "peft_config") or not (Path(resume_from_checkpoint) / CONFIG_NAME).is_file():
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
            return
        saved = type(self.model).from_pretrained(resume_from_checkpoint, dtype=self.model.dtype)
        self.model.load_state_dict(saved.state_dict())


class AdversarialSFT(Watched, _Resumed, SFTTrainer):  # type: ignore[misc]
    """Supervised fine-tuning on adversarial images: Madry et al. 2018 (arXiv:1706.06083), for the answer's tokens.

    The collator keeps the raw rows beside the clean batch, whose labels TRL counts; just before the step they are
    attacked and collated again. Without an adversary this is TRL's trainer.
    """

    def __init__(self, *args: object, adversary: Adversary | None, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._adversary = adversary
        self._collate: Any = self.data_collator  # type: ignore[has-type]
        if adversary:
            self.data_collator = self._with_rows

    def _with_rows(self, rows: Sequence[Row]) -> dict[str, Any]:
        return {**self._collate([dict(row) for row in rows]), _ROWS: list(rows)}

    def _prepare_inputs(self, inputs: dict[str, Any]) -> Any:
        rows = inputs.pop(_ROWS, None)
        if self._adversary and rows is not None:
            perturbed = _perturb(self, self._adversary, rows)
            inputs = dict(self._collate([dict(row) for row in perturbed.rows]))
        return super()._prepare_inputs(inputs)


class AdversarialGRPO(Watched, _Resumed, GRPOTrainer):  # type: ignore[misc]
    """Group relative policy optimization on adversarial images: AT-GRPO.

    G completions are sampled for each question. Each gets the reward r = w1 correct + w2 kept, and the advantage
    (r - mean of the group) / (standard deviation of the group + 1e-4), the same for all of its tokens. The loss is the
    clipped surrogate of PPO with clip ratio 0.2, averaged over the tokens of a completion and then over completions,
    plus beta times the k3 estimate of the KL divergence from the model before training: DeepSeekMath
    (arXiv:2402.03300, equations 3 and 4), TRL's loss_type "grpo", with one update per sampling, so that the ratio is 1
    and nothing is clipped. As SafeMed-R1 (arXiv:2512.19317) does, the image is attacked first and everything after it,
    rollouts, rewards and log-probabilities, sees the attacked image.

    Differs from both: the reference sees the clean image. On an attacked image, a reference that is not robust would
    pull the policy towards the answers that the attack aims at. (`beta` 0 leaves it out.)

    A group of completions with equal rewards has no advantage and no gradient; the log has the share of such groups,
    `frac_reward_zero_std`.
    """

    def __init__(self, *args: object, adversary: Adversary | None, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._adversary = adversary
        self._clean: dict[str, torch.Tensor] = {}

    def _generate_and_score_completions(self, inputs: list[Row]) -> Any:
        """Attack each question once, before its group is sampled. TRL calls this once per generation batch."""
        if self._adversary and self.model.training:
            inputs = self._attacked(inputs)
        try:
            batch = super()._generate_and_score_completions(inputs)
        finally:
            self._clean = {}
        if self.model.training:
            # TRL compares rewards such as 1.2 exactly, and misses groups of equal rewards.
            least = _NO_DIFFERENCE if self.scale_rewards == "none" else _NO_ADVANTAGE
            agree = (batch["advantages"].view(-1, self.num_generations).abs() < least).all(1).float()
            share = float(self.accelerator.gather(agree).mean())
            self._metrics["train"]["frac_reward_zero_std"][-1] = share
        return batch

    def _attacked(self, inputs: list[Row]) -> list[Row]:
        size = self.num_generations
        if len(inputs) % size or any(row["id"] != inputs[i - i % size]["id"] for i, row in enumerate(inputs)):
            raise RuntimeError(f"the {len(inputs)} rows of a process are not whole groups of {size}")
        assert self._adversary is not None
        perturbed = _perturb(self, self._adversary, inputs[::size])
        if self.beta:
            self._clean = self._images_of(inputs)
        return [{**row, "image": perturbed.rows[i // size]["image"]} for i, row in enumerate(inputs)]

    def _get_per_token_logps_and_entropies(self, model: Any, *args: object, **kwargs: object) -> Any:
        if self._clean and self._is_reference(model):
            kwargs |= self._clean
        return super()._get_per_token_logps_and_entropies(model, *args, **kwargs)

    def _images_of(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Return the model's inputs for these rows' images, made as TRL makes them."""
        prompts = [prepare_multimodal_messages(row["prompt"], images=[row["image"]]) for row in rows]
        texts = [apply_chat_template({"prompt": prompt}, self.processing_class)["prompt"] for prompt in prompts]
        inputs = self.processing_class(
            images=[[row["image"]] for row in rows], text=texts, padding=True, return_tensors="pt"
        )
        images = {name: value for name, value in inputs.items() if value.is_floating_point()}
        return {name: value.to(self.accelerator.device) for name, value in images.items()}

    def _is_reference(self, model: Any) -> bool:
        if self.ref_model is not None:
            return model is self.ref_model
        status = self.accelerator.unwrap_model(model).get_model_status()
        return status.enabled is False or status.active_adapters == ["ref"]


def _perturb(trainer: Any, adversary: Adversary, rows: Sequence[Row]) -> Perturbed:
    """Run the adversary at the current step, and add its metrics to the trainer's log, weighted by attacked rows."""
    state = trainer.state
    with trainer.accelerator.autocast():
        progress = min(1.0, (state.global_step + 1) / max(1, state.max_steps))
        perturbed = adversary.perturb(rows, step=state.global_step, progress=progress)
    for name, value in perturbed.metrics.items():
        trainer.means.add(name, value, 1 if name in _ONCE_A_BATCH else len(perturbed.attacked))
    return perturbed


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
