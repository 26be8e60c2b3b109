"""TRL's trainers, with an adversary that attacks the images first."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers.utils import CONFIG_NAME
from trl import GRPOTrainer, SFTTrainer
from trl.data_utils import apply_chat_template, prepare_multimodal_messages
from trl.trainer.utils import RepeatSampler

from safemed_eval.codec import Json
from safemed_eval.models.checkpoints.generate import Sampler
from safemed_eval.seeds import generator
from safemed_eval.train._agreeing import agreeing, replaced
from safemed_eval.train._rows import Row, to_canvas
from safemed_eval.train._shards import gather_head, whole_weights
from safemed_eval.train.inner.adversary import Adversary, Perturbed
from safemed_eval.train.inner.objectives import Policy, Tokens
from safemed_eval.train.watch.trainer import Watched

_ROWS = "rows"
_NO_ADVANTAGE = 0.01
"""Rounding leaves advantages up to this size in a group of equal rewards; in any other group one is above 0.3."""
_NO_DIFFERENCE = 1e-5
"""The same where advantages are differences of rewards, not divided by a standard deviation."""
_ONCE_A_BATCH = ("adversary/eps", "adversary/seconds")
"""Metrics of the adversary that are no means over attacked rows."""


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

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: object = None) -> None:
        whole = (Path(resume_from_checkpoint) / CONFIG_NAME).is_file()
        if self.is_fsdp_enabled or hasattr(self.model, "peft_config") or not whole:
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
            return
        saved = type(self.model).from_pretrained(resume_from_checkpoint, dtype=self.model.dtype)
        self.model.load_state_dict(saved.state_dict())


class AdversarialSFT(Watched, _Sharded, SFTTrainer):  # type: ignore[misc]
    """Supervised fine-tuning on adversarial images: Madry et al. 2018 (arXiv:1706.06083), for the answer's tokens.

    The collator keeps the raw rows beside the clean batch, whose labels TRL counts; just before the step they are
    attacked and collated again. Without an adversary this is TRL's trainer.
    """

    def __init__(self, *args: object, adversary: Adversary | None, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._adversary = adversary
        self._collate: Callable[[list[Row]], Json] = self.data_collator  # type: ignore[has-type]
        if adversary:
            self.data_collator = self._with_rows

    def _with_rows(self, rows: Sequence[Row]) -> Json:
        return {**self._collate([dict(row) for row in rows]), _ROWS: list(rows)}

    def _prepare_inputs(self, inputs: Json) -> object:
        rows = inputs.pop(_ROWS, None)
        if self._adversary and rows is not None:
            with whole_weights(self):
                perturbed = _perturb(self, self._adversary, rows)
            inputs = dict(self._collate([dict(row) for row in perturbed.rows]))
        return super()._prepare_inputs(inputs)


class _Once(torch.utils.data.Sampler[int]):
    """TRL's order of rows, in which each batch for one generation of completions is named once.

    TRL repeats that batch for each of the accumulated steps, and looks at the first only: the rows of the others are
    all the batch's first, so that no image is decoded for them.
    """

    def __init__(self, order: RepeatSampler) -> None:
        self._order = order

    def __iter__(self) -> Iterator[int]:
        size = self._order.batch_size * self._order.mini_repeat_count
        first = 0
        for place, index in enumerate(self._order):
            if place % (size * self._order.repeat_count) < size:
                first = index if place % size == 0 else first
                yield index
            else:
                yield first

    def __len__(self) -> int:
        return len(self._order)


class AdversarialGRPO(Watched, _Sharded, GRPOTrainer):  # type: ignore[misc]
    """Group relative policy optimization on adversarial images: AT-GRPO.

    G completions are sampled for each question. Each gets the reward r = w1 correct + w2 kept, and the advantage
    (r - mean of the group) / (standard deviation of the group + 1e-4), the same for all of its tokens. The loss is the
    clipped surrogate of PPO with clip ratio 0.2, averaged over the tokens of a completion and then over completions,
    plus beta times the k3 estimate of the KL divergence from the model before training: DeepSeekMath
    (arXiv:2402.03300, equations 3 and 4), TRL's loss_type "grpo", with one update per sampling, so that the ratio is 1
    and nothing is clipped. (TRL's default multiplies the divergence by that ratio, which changes its gradient.) As
    SafeMed-R1 (arXiv:2512.19317) does, the image is attacked first and everything after it, rollouts, rewards and
    log-probabilities, sees the attacked image.

    The adversary aims at the letter after the template's cue, or at what the policy itself writes; see
    `inner.objectives`. The first three aims are min-max training as above. The fourth, "kl", is an adversarial form of
    ROMA (arXiv:2605.09262), whose perturbed views are no adversary's: rollouts, rewards and advantages A are those of
    the clean image x, and the loss is

        GRPO(x) + b KL(pi(. | x, y) || pi(. | x', y)) - c A log pi(y | x')

    with x' the attacked image and the divergence over rollouts y that answer rightly. It needs no rollouts on attacked
    images, and learns from groups that agree. b and c are ours, as are eps, steps, and sizes: no copy of SafeMed-R1
    that we could read names them.

    Differs from both: the reference sees the clean image. On an attacked image, a reference that is not robust would
    pull the policy towards the answers that the attack aims at. (`beta` 0 leaves it out.)

    A completion that is cut off at `max_new_tokens` is left out of the loss and of the KL term: its missing answer says
    nothing of the thought before it. Its reward stays in the mean of its group. Where all completions of a step are cut
    off, the loss is 0, and only weight decay changes the weights; the log has the share, `completions/clipped_ratio`.
    With vLLM the ratio is not 1: TRL multiplies a completion's loss by the probability that it has in training over
    that in vLLM, and leaves it out above 3 (`vllm_importance_sampling_mode` "sequence_mask").

    A group of completions with equal rewards has no advantage and no gradient; the log has the share of such groups,
    `frac_reward_zero_std`. Such groups are drawn again up to `resample` times: the nearest to DAPO's dynamic sampling
    (arXiv:2503.14476) that keeps the questions of a step, where DAPO takes others.

    `placeholders`, tokens that stand for an image in a prompt, are never sampled: a text that holds one could not be
    forced on the model.
    """

    def __init__(
        self,
        *args: object,
        adversary: Adversary | None,
        resample: int = 0,
        placeholders: Sequence[int] = (),
        **kwargs: object,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._placeholders = placeholders
        self._adversary = adversary
        self._resample = resample
        self._clean: dict[str, torch.Tensor] = {}
        self._right = torch.zeros(0, dtype=torch.bool)
        self._pairs: list[tuple[Row, Row]] = []
        self._drawn: tuple[int, Counter[str]] = (-1, Counter())

    def _generate_and_score_completions(self, inputs: list[Row]) -> Json:
        """Attack each question once, before its group is sampled. TRL calls this once per generation batch."""
        adversary = self._adversary if self.model.training else None
        late = adversary is not None and adversary.aim == "kl"
        # Weights are gathered once for all: by FSDP2 a process that has not used them would not shard them again.
        with nullcontext() if self.use_vllm else whole_weights(self):
            shown = self._attacked(inputs) if adversary and not late else inputs
            clean = inputs if adversary and not late and self.beta else None
            batch = self._sampled(shown, clean)
            if self.model.training:
                batch, share = self._drawn_again(batch, shown, clean)
                self._metrics["train"]["frac_reward_zero_std"][-1] = share
            if late:
                batch |= self._attacked_late(inputs, batch)
        return batch

    def _sampled(self, shown: list[Row], clean: list[Row] | None) -> Json:
        """Let TRL sample and reward completions of these rows; the reference sees the clean ones, if they are given."""
        with self._seeded(shown):
            self._clean = self._images_of(clean) if clean else {}
            try:
                batch: Json = super()._generate_and_score_completions(shown)
            finally:
                self._clean = {}
        return batch

    def _drawn_again(self, batch: Json, shown: list[Row], clean: list[Row] | None) -> tuple[Json, float]:
        """Draw the groups that agree again, as often as the recipe says, and keep new ones that do not.

        The log's rewards are those of the first draw.

        Returns:
            The batch, and the share of groups in all processes that agree in the end.
        """
        size, gather = self.num_generations, self.accelerator.gather
        # TRL compares rewards such as 1.2 exactly, and misses groups of equal rewards.
        least = _NO_DIFFERENCE if self.scale_rewards == "none" else _NO_ADVANTAGE
        agree = agreeing(batch["advantages"], size, least)
        for _ in range(self._resample):
            most = int(gather(agree.sum().reshape(1)).max())  # all processes draw as many, for TRL gathers rewards
            if not most:
                break
            groups = torch.argsort(~agree, stable=True)[:most]
            rows = (groups.unsqueeze(1) * size + torch.arange(size, device=groups.device)).flatten()
            right, lengths = self._right, {name: len(values) for name, values in self._metrics["train"].items()}
            again = self._sampled(
                [shown[row] for row in rows.tolist()], [clean[row] for row in rows.tolist()] if clean else None
            )
            for name, values in self._metrics["train"].items():
                del values[lengths.get(name, 0) :]
            better = agree[groups] & ~agreeing(again["advantages"], size, least)
            drawn = better.repeat_interleave(size).nonzero().flatten()
            batch = replaced(batch, again, rows[drawn], drawn, self._tokenizer.pad_token_id)
            right[rows[drawn]] = self._right[drawn]
            self._right = right
            batch["num_items_in_batch"] = gather(batch["completion_mask"].sum()).sum()
            agree = agreeing(batch["advantages"], size, least)
        return batch, float(gather(agree.float()).mean())

    def _get_train_sampler(self, dataset: object = None) -> _Once:
        return _Once(super()._get_train_sampler(dataset))

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
        network.generate = functools.partial(
            network.generate, logits_processor=[_Chosen(self.temperature, generators, self._placeholders)]
        )
        try:
            yield
        finally:
            del network.generate
            if own is not None:
                network.generate = own

    def _calculate_rewards(self, *args: object, **kwargs: object) -> torch.Tensor:
        with whole_weights(self):
            rewards: torch.Tensor = super()._calculate_rewards(*args, **kwargs)
        own = len(rewards) // self.accelerator.num_processes
        start = self.accelerator.process_index * own
        self._right = rewards[start : start + own, 0] == 1
        return rewards

    def _questions(self, inputs: list[Row]) -> list[Row]:
        """The first row of each group."""
        size = self.num_generations
        if len(inputs) % size or any(row["id"] != inputs[i - i % size]["id"] for i, row in enumerate(inputs)):
            raise RuntimeError(f"the {len(inputs)} rows of a process are not whole groups of {size}")
        return inputs[::size]

    def _attacked_late(self, inputs: list[Row], batch: Json) -> dict[str, torch.Tensor]:
        """Attack the questions where the policy, on the clean image, has answered rightly.

        Returns:
            For each completion the place of its question in `_pairs`, whether that was attacked, and whether the
            completion is right.
        """
        assert self._adversary is not None
        size, questions = self.num_generations, self._questions(inputs)
        completions: list[Tokens] = [
            tuple(tokens[mask.bool()].tolist())
            for tokens, mask in zip(batch["completion_ids"], batch["completion_mask"], strict=True)
        ]
        right = [bool(own) and bool(tokens) for own, tokens in zip(self._right, completions, strict=True)]
        said = [
            Counter(tokens for tokens, own in zip(completions[i : i + size], right[i : i + size], strict=True) if own)
            for i in range(0, len(inputs), size)
        ]
        with whole_weights(self):
            perturbed = _perturb(self, self._adversary, questions, said)
        self._pairs = list(zip(questions, perturbed.rows, strict=True))
        places = torch.arange(len(inputs), device=self.accelerator.device) // size
        attacked = torch.isin(places, torch.tensor(perturbed.attacked, device=places.device, dtype=places.dtype))
        return {"place": places, "attacked": attacked, "right": torch.tensor(right, device=places.device)}

    def _compute_loss(self, model: torch.nn.Module, inputs: Json) -> torch.Tensor:
        loss: torch.Tensor = super()._compute_loss(model, inputs)
        return loss + self._robust_loss(model, inputs) if "place" in inputs else loss

    def _robust_loss(self, model: torch.nn.Module, inputs: Json) -> torch.Tensor:
        """b KL(pi(. | x, y) || pi(. | x', y)) over right completions, less c A log pi(y | x'), x' the attacked image.

        Both are means over the tokens of a completion and then over all completions, as in GRPO's loss; completions of
        questions that were not attacked count as 0. No gradient flows through pi(. | x, y).
        """
        assert self._adversary is not None and self._adversary.threats is not None
        threats, every = self._adversary.threats, len(inputs["place"])
        rows, right, gain = self._distinct(inputs)
        pairs = [self._pairs[place] for place in inputs["place"][rows].tolist()]
        mask = inputs["completion_mask"][rows]
        with torch.no_grad():
            clean = self._distributions(model, inputs, rows, [pair[0] for pair in pairs])
        shown = self._distributions(model, inputs, rows, [pair[1] for pair in pairs])
        said = shown.gather(2, inputs["completion_ids"][rows].unsqueeze(2)).squeeze(2)

        def mean(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
            summed: torch.Tensor = ((values * mask).sum(1) / mask.sum(1).clamp(min=1) * weights).sum()
            return summed / every

        divergence = mean((clean.exp() * (clean - shown)).sum(-1), right)
        self._metrics["train"]["adversary/kl"].append(float(self.accelerator.gather(divergence.detach()).mean()))
        total = threats.kl_weight * divergence - threats.gain_weight * mean(said, gain)
        return total / int(self.current_gradient_accumulation_steps)

    def _distinct(self, inputs: Json) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The places of the distinct completions of attacked questions, with their sums over equal ones.

        Returns:
            (b,) places in the batch, at least one, so that all processes go through the model equally often; (b,) how
            many of the equal completions are right, and (b,) the sum of their advantages.
        """
        found: dict[tuple[int, Tokens], list[float]] = {}
        columns = (inputs[name].tolist() for name in ("place", "attacked", "right", "advantages"))
        texts = zip(inputs["completion_ids"], inputs["completion_mask"], strict=True)
        for row, (place, attacked, right, advantage, (ids, mask)) in enumerate(zip(*columns, texts, strict=True)):
            if attacked:
                sums = found.setdefault((place, tuple(ids[mask.bool()].tolist())), [row, 0.0, 0.0])
                sums[1], sums[2] = sums[1] + right, sums[2] + advantage
        kept = [sums for sums in found.values() if sums[1] or abs(sums[2]) > _NO_ADVANTAGE] or [[0, 0.0, 0.0]]
        rows, right, gain = torch.tensor(kept, device=self.accelerator.device).unbind(1)
        return rows.long(), right, gain

    def _distributions(
        self, model: torch.nn.Module, inputs: Json, rows: torch.Tensor, shown: Sequence[Row]
    ) -> torch.Tensor:
        """(b, L, V) log-probabilities of the tokens of these rows' completions, with these images."""
        texts = {name: inputs[name][rows] for name in ("token_type_ids", "mm_token_type_ids") if name in inputs}
        length = inputs["completion_ids"].shape[1]
        ids, mask = (
            torch.cat([inputs[f"prompt_{name}"][rows], inputs[f"completion_{name}"][rows]], dim=1)
            for name in ("ids", "mask")
        )
        images = self._image_inputs(shown)
        with self.accelerator.autocast():
            out = model(input_ids=ids, attention_mask=mask, **texts, **images, logits_to_keep=length + 1)
        logits: torch.Tensor = out.logits[:, -length - 1 : -1]
        return (logits.float() / float(self.temperature)).log_softmax(-1)

    def _attacked(self, inputs: list[Row]) -> list[Row]:
        size = self.num_generations
        assert self._adversary is not None
        with whole_weights(self):
            perturbed = _perturb(self, self._adversary, self._questions(inputs))
        return [{**row, "image": perturbed.rows[i // size]["image"]} for i, row in enumerate(inputs)]

    def _get_per_token_logps_and_entropies(self, model: torch.nn.Module, *args: object, **kwargs: object) -> object:
        if self._clean and self._is_reference(model):
            kwargs |= self._clean
        return super()._get_per_token_logps_and_entropies(model, *args, **kwargs)

    def _images_of(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Return the pixels of these rows' images as the model takes them, made as TRL makes them."""
        return {name: value for name, value in self._image_inputs(rows).items() if value.is_floating_point()}

    def _image_inputs(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Return all of the model's inputs that belong to these rows' images."""
        prompts = [prepare_multimodal_messages(row["prompt"], images=[row["image"]]) for row in rows]
        texts = [apply_chat_template({"prompt": prompt}, self.processing_class)["prompt"] for prompt in prompts]
        inputs = self.processing_class(
            images=[[row["image"]] for row in rows], text=texts, padding=True, return_tensors="pt"
        )
        of_texts = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
        return {name: value.to(self.accelerator.device) for name, value in inputs.items() if name not in of_texts}

    def _is_reference(self, model: torch.nn.Module) -> bool:
        if self.ref_model is not None:
            return model is self.ref_model
        status = self.accelerator.unwrap_model(model).get_model_status()
        return status.enabled is False or status.active_adapters == ["ref"]


class _Chosen(Sampler):
    """Leaves only the token that the row's own noise chooses, so that torch's global generator decides nothing."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        noisy = super().__call__(input_ids, scores)
        return torch.full_like(noisy, -torch.inf).scatter_(1, noisy.argmax(1, keepdim=True), 0.0)


def _perturb(
    trainer: Watched, adversary: Adversary, rows: Sequence[Row], right: Sequence[Counter[Tokens]] | None = None
) -> Perturbed:
    """Run the adversary at the current step, and add its metrics to the trainer's log, weighted by attacked rows."""
    state = trainer.state
    with trainer.accelerator.autocast():
        progress = min(1.0, (state.global_step + 1) / max(1, state.max_steps))
        perturbed = adversary.perturb(rows, step=state.global_step, progress=progress, right=right)
        metrics = perturbed.metrics
        if adversary.policy and (state.global_step == 0 or (state.global_step + 1) % trainer.args.logging_steps == 0):
            metrics |= _fresh_rewards(adversary.policy, rows, perturbed, state.global_step)
    for name, value in metrics.items():
        trainer.means.add(name, value, 1 if name in _ONCE_A_BATCH else len(perturbed.attacked))
    return perturbed


def _fresh_rewards(policy: Policy, rows: Sequence[Row], perturbed: Perturbed, step: int) -> dict[str, float]:
    """The mean reward of new samples at the attacked rows' images, clean and attacked: no adversary has seen them."""
    found = {}
    for name, shown in (("adversary/clean_reward", rows), ("adversary/reward", perturbed.rows)):
        chosen = [shown[place] for place in perturbed.attacked]
        if chosen:
            canvas = torch.stack([to_canvas(row["image"]) for row in chosen]).to(policy.writer.device)
            earned = [one.reward for group in policy.rollouts(canvas, chosen, "fresh", step) for one in group]
            found[name] = sum(earned) / len(earned)
    return found
