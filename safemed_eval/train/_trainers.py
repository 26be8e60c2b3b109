"""TRL's trainers with the adversary in front of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers.utils import CONFIG_NAME
from trl import GRPOTrainer, SFTTrainer
from trl.data_utils import apply_chat_template, prepare_multimodal_messages

from safemed_eval.core import Question
from safemed_eval.models.answers import OPENING_TAG
from safemed_eval.models.checkpoints.thoughts import CLOSE, is_open
from safemed_eval.models.checkpoints.vlm import VLM
from safemed_eval.train import rewards
from safemed_eval.train._recipe import Groups
from safemed_eval.train._rows import Row, to_canvas
from safemed_eval.train.adversary import Adversary, Perturbed, in_eval_mode

_ROWS = "rows"
_NO_ADVANTAGE = 0.01
"""Of a group that agrees, advantages are this small or smaller, by rounding; of any other, one is above 0.3."""


class _Resumed:
    """Goes on from a checkpoint by transformers' own loader.

    `Trainer` reads the tensors by name and warns of those that do not fit, which are all where transformers saves an
    architecture under other names than it has in memory (Qwen2-VL is one): the training would go on from the start.
    """

    model: Any

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if hasattr(self.model, "peft_config") or not (Path(resume_from_checkpoint) / CONFIG_NAME).is_file():
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
            return
        saved = type(self.model).from_pretrained(resume_from_checkpoint, dtype=self.model.dtype)
        self.model.load_state_dict(saved.state_dict())


class AdversarialSFT(_Resumed, SFTTrainer):  # type: ignore[misc]
    """Supervised fine-tuning on adversarial images: Madry et al. 2018 (arXiv:1706.06083), for the answer's tokens.

    The collator keeps the raw rows beside the clean batch, whose labels TRL counts; they are attacked just before the
    step and collated again. Without an adversary this is TRL's trainer.
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
            found = _perturb(self, self._adversary, rows)
            inputs = dict(self._collate([dict(row) for row in found.rows]))
        return super()._prepare_inputs(inputs)


class AdversarialGRPO(_Resumed, GRPOTrainer):  # type: ignore[misc]
    """Group relative policy optimization, on adversarial images: AT-GRPO.

    For a question G completions are sampled, each gets the reward r = w1 correct + w2 kept, and the advantage
    (r - mean of the group) / (standard deviation of the group + 1e-4), the same for all of its tokens. The loss is the
    clipped surrogate of PPO with clip ratio 0.2, averaged over the tokens of a completion and then over completions,
    plus beta times the k3 estimate of the KL divergence from the model before training: DeepSeekMath
    (arXiv:2402.03300, equations 3 and 4), TRL's loss_type "grpo", with one update per sampling, so that the ratio is 1
    and nothing is clipped. As SafeMed-R1 (arXiv:2512.19317) does, the image is attacked first and everything after it,
    rollouts, rewards and log-probabilities, sees the attacked image.

    Differs from both: the reference sees the clean image. A reference that is not robust, asked about an attacked
    image, would pull the policy towards the answers that the attack wants. (`beta` 0 leaves it out.)

    A group whose completions all earn the same has no advantage and teaches nothing; the log counts them,
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
            # TRL compares rewards such as 1.2 to the last bit and misses groups that agree.
            agree = (batch["advantages"].view(-1, self.num_generations).abs() < _NO_ADVANTAGE).all(1).float()
            share = float(self.accelerator.gather(agree).mean())
            self._metrics["train"]["frac_reward_zero_std"][-1] = share
        return batch

    def _attacked(self, inputs: list[Row]) -> list[Row]:
        size = self.num_generations
        if len(inputs) % size or any(row["id"] != inputs[i - i % size]["id"] for i, row in enumerate(inputs)):
            raise RuntimeError(f"the {len(inputs)} rows of a process are not whole groups of {size}")
        assert self._adversary is not None
        found = _perturb(self, self._adversary, inputs[::size])
        if self.beta:
            self._clean = self._images_of(inputs)
        return [{**row, "image": found.rows[i // size]["image"]} for i, row in enumerate(inputs)]

    def _get_per_token_logps_and_entropies(self, model: Any, *args: object, **kwargs: object) -> Any:
        if self._clean and self._is_reference(model):
            kwargs |= self._clean
        return super()._get_per_token_logps_and_entropies(model, *args, **kwargs)

    def _images_of(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """What the model is given for these rows' images, as TRL makes it."""
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
    """Run the adversary at this moment of the training, and note what it did in the trainer's log."""
    state = trainer.state
    with trainer.accelerator.autocast():
        found = adversary.perturb(
            rows, step=state.global_step, progress=min(1.0, (state.global_step + 1) / max(1, state.max_steps))
        )
    everywhere: list[dict[str, float]] = gather_object([found.metrics])
    for name in sorted({name for metrics in everywhere for name in metrics}):
        values = [metrics[name] for metrics in everywhere if name in metrics]
        trainer._metrics["train"][name].append(sum(values) / len(values))
    return found


def reward_functions(groups: Groups, vlm: VLM) -> tuple[list[Callable[..., list[float]]], list[float]]:
    """The rewards in the shape that TRL wants, and their weights. `vlm` is the policy, behind the waist."""

    def correct(
        completion_ids: Sequence[Sequence[int]],
        question: Sequence[Question],
        label: Sequence[int],
        image: Sequence[Any],
        **_: object,
    ) -> list[float]:
        ends = frozenset(vlm.turn.ends(vlm.model.generation_config))
        if groups.readout == "generate":
            texts = [_told(vlm, tokens, ends) for tokens in completion_ids]
            return [rewards.correct(*one) for one in zip(texts, question, label, strict=True)]
        asked = zip(completion_ids, question, label, image, strict=True)
        with torch.no_grad(), in_eval_mode(vlm.model):
            return [_chosen(vlm, ends, *one) for one in asked]

    def kept(completions: Sequence[Any], **_: object) -> list[float]:
        return [rewards.kept(_text(one), vlm.template) for one in completions]

    return [correct, kept], [groups.correct, groups.kept]


def _chosen(vlm: VLM, ends: Set[int], tokens: Sequence[int], question: Question, label: int, image: Any) -> float:
    """1 if the gold letter is the likeliest after what the completion thinks of its image; 0 for a thought cut off."""
    text = _told(vlm, tokens, ends)
    ended = bool(tokens) and tokens[-1] in ends
    if not ended and (is_open(text) or not (CLOSE in text or OPENING_TAG in text)):
        return 0.0
    canvas = to_canvas(image)[None].to(vlm.device)
    return float(vlm.scores_after(canvas, [question], [text])[0].argmax() == label)


def _told(vlm: VLM, tokens: Sequence[int], ends: Set[int]) -> str:
    """What a completion says; TRL's own text of it lacks marks of a thought that are special tokens."""
    return vlm.turn.told([token for token in tokens if token not in ends])


def _text(completion: Sequence[Mapping[str, str]]) -> str:
    return completion[-1]["content"]
