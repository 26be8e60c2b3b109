"""TRL's trainers, with an adversary that attacks the images first."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers.utils import CONFIG_NAME
from trl import GRPOTrainer, SFTTrainer
from trl.data_utils import apply_chat_template, prepare_multimodal_messages

from safemed_eval.core import Question
from safemed_eval.models.answers import OPENING_TAG
from safemed_eval.models.checkpoints.generate import Sampler
from safemed_eval.models.checkpoints.thoughts import CLOSE, is_open
from safemed_eval.models.checkpoints.vlm import VLM
from safemed_eval.seeds import generator
from safemed_eval.train import rewards
from safemed_eval.train._recipe import Groups
from safemed_eval.train._rows import Row, to_canvas
from safemed_eval.train._shards import gather_head, whole_weights
from safemed_eval.train.adversary import Adversary, Perturbed, in_eval_mode

_ROWS = "rows"
_NO_ADVANTAGE = 0.01
"""Rounding leaves advantages up to this size in a group of equal rewards; in any other group one is above 0.3."""


class _Sharded:
    """Trains weights that may be sharded, and resumes from a checkpoint with transformers' own loader.

    `Trainer` matches tensors by name and only warns of mismatches. Transformers saves some architectures, such as
    Qwen2-VL, under other names than in memory: no tensor would match, and training would restart from the beginning.
    Checkpoints of sharded weights have the names in memory.
    """

    model: Any
    is_fsdp_enabled: bool

    def compute_loss(self, *args: object, **kwargs: object) -> object:
        gather_head(self)
        return super().compute_loss(*args, **kwargs)  # type: ignore[misc]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        whole = (Path(resume_from_checkpoint) / CONFIG_NAME).is_file()
        if self.is_fsdp_enabled or hasattr(self.model, "peft_config") or not whole:
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
            return
        saved = type(self.model).from_pretrained(resume_from_checkpoint, dtype=self.model.dtype)
        self.model.load_state_dict(saved.state_dict())


class AdversarialSFT(_Sharded, SFTTrainer):  # type: ignore[misc]
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
            with whole_weights(self):
                perturbed = _perturb(self, self._adversary, rows)
            inputs = dict(self._collate([dict(row) for row in perturbed.rows]))
        return super()._prepare_inputs(inputs)


class AdversarialGRPO(_Sharded, GRPOTrainer):  # type: ignore[misc]
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

    A completion that is cut off at `max_new_tokens` is left out of the loss and of the KL term: its missing answer says
    nothing of the thought before it. Its reward stays in the mean of its group. Where all completions of a step are cut
    off, the loss is 0, and only weight decay changes the weights; the log has the share, `completions/clipped_ratio`.
    With vLLM the ratio is not 1: TRL multiplies a completion's loss by the probability that it has in training over
    that in vLLM, and leaves it out above 3 (`vllm_importance_sampling_mode` "sequence_mask").

    A group of completions with equal rewards has no advantage and no gradient; the log has the share of such groups,
    `frac_reward_zero_std`.
    """

    def __init__(self, *args: object, adversary: Adversary | None, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._adversary = adversary
        self._clean: dict[str, torch.Tensor] = {}
        self._drawn: tuple[int, Counter[str]] = (-1, Counter())

    def _generate_and_score_completions(self, inputs: list[Row]) -> Any:
        """Attack each question once, before its group is sampled. TRL calls this once per generation batch."""
        with nullcontext() if self.use_vllm else whole_weights(self), self._seeded(inputs):
            if self._adversary and self.model.training:
                inputs = self._attacked(inputs)
            try:
                batch = super()._generate_and_score_completions(inputs)
            finally:
                self._clean = {}
        if self.model.training:
            # TRL compares rewards such as 1.2 exactly, and misses groups of equal rewards.
            agree = (batch["advantages"].view(-1, self.num_generations).abs() < _NO_ADVANTAGE).all(1).float()
            share = float(self.accelerator.gather(agree).mean())
            self._metrics["train"]["frac_reward_zero_std"][-1] = share
        return batch

    @contextmanager
    def _seeded(self, inputs: list[Row]) -> Iterator[None]:
        """Seed the sampling of each completion by the step, the item, and how many of its completions came before.

        A completion then depends neither on its process nor on how many there are, nor on a resumption. vLLM draws
        with its own seeds.
        """
        network = self.accelerator.unwrap_model(self.model_wrapped)
        step = self.state.global_step
        drawn = self._drawn[1] if self._drawn[0] == step else Counter()
        self._drawn = (step, drawn)
        generators = []
        for row in inputs:
            parts = ("sample", step, row["id"], drawn[row["id"]])
            generators.append(generator(self.accelerator.device, self.args.seed, *parts))
            drawn[row["id"]] += 1
        own = vars(network).get("generate")
        network.generate = functools.partial(network.generate, logits_processor=[_Chosen(self.temperature, generators)])
        try:
            yield
        finally:
            del network.generate
            if own is not None:
                network.generate = own

    def _attacked(self, inputs: list[Row]) -> list[Row]:
        size = self.num_generations
        if len(inputs) % size or any(row["id"] != inputs[i - i % size]["id"] for i, row in enumerate(inputs)):
            raise RuntimeError(f"the {len(inputs)} rows of a process are not whole groups of {size}")
        assert self._adversary is not None
        with whole_weights(self):
            perturbed = _perturb(self, self._adversary, inputs[::size])
        if self.beta:
            self._clean = self._images_of(inputs)
        return [{**row, "image": perturbed.rows[i // size]["image"]} for i, row in enumerate(inputs)]

    def _calculate_rewards(self, *args: object, **kwargs: object) -> object:
        with whole_weights(self):
            return super()._calculate_rewards(*args, **kwargs)

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


class _Chosen(Sampler):
    """Leaves only the token that the row's own noise chooses, so that torch's global generator decides nothing."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        noisy = super().__call__(input_ids, scores)
        return torch.full_like(noisy, -torch.inf).scatter_(1, noisy.argmax(1, keepdim=True), 0.0)


def _perturb(trainer: Any, adversary: Adversary, rows: Sequence[Row]) -> Perturbed:
    """Run the adversary at the current step, and add its metrics to the trainer's log."""
    state = trainer.state
    with trainer.accelerator.autocast():
        progress = min(1.0, (state.global_step + 1) / max(1, state.max_steps))
        perturbed = adversary.perturb(rows, step=state.global_step, progress=progress)
    everywhere: list[dict[str, float]] = gather_object([perturbed.metrics])
    for name in sorted({name for metrics in everywhere for name in metrics}):
        values = [metrics[name] for metrics in everywhere if name in metrics]
        trainer._metrics["train"][name].append(sum(values) / len(values))
    return perturbed


def reward_functions(groups: Groups, vlm: VLM) -> tuple[list[Callable[..., list[float]]], list[float]]:
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

    return [correct, kept], [groups.correct, groups.kept]


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
