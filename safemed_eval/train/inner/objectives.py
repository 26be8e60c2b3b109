"""What the adversary of a training maximises: one quantity per image, bound to the questions of some rows.

Each is an object with `height(x)`, (b, 3, H, W) canvases -> (b,) values, differentiable in them; `read(x)`, by which
two canvases of a row are compared; and `refresh(x)`, which samples anew from the policy at these canvases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from safemed_eval.attacks._common.ascent import Goal
from safemed_eval.models.checkpoints.generate import Writer
from safemed_eval.models.waist import Waist
from safemed_eval.seeds import generator
from safemed_eval.train._rows import Row
from safemed_eval.train.inner.modes import in_eval_mode

Tokens = tuple[int, ...]


class Read(NamedTuple):
    """(b,) losses, the higher the harder, and (b,) bools: gold is the likeliest option; None where none is read."""

    loss: torch.Tensor
    right: torch.Tensor | None


class Objective(Protocol):
    """A quantity that the adversary maximises."""

    def height(self, x: torch.Tensor) -> torch.Tensor: ...
    def read(self, x: torch.Tensor) -> Read: ...
    def refresh(self, x: torch.Tensor) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What the policy wrote: its tokens, and the reward that they earned."""

    tokens: Tokens
    reward: float


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The policy as the adversary sees it: it samples completions, and its rewards are known.

    Args:
        writer: the network in training, with the temperature and the longest completion of its rollouts.
        size: completions per question, G.
        at_once: sequences that fit into memory together.
        rewards: the rewards of completions, one row and one completion each.
        most: what a completion earns for which each reward function returns 1.
    """

    writer: Writer
    size: int
    at_once: int
    rewards: Callable[[Sequence[Row], Sequence[Tokens]], list[float]]
    most: float
    seed: int = 0

    def sample(self, x: torch.Tensor, rows: Sequence[Row], *purpose: str | int, size: int) -> list[list[Tokens]]:
        """Sample `size` completions of each row's question at its canvas; seeded by purpose, row and place in it."""
        device, every = self.writer.device, [(place, i) for place in range(len(rows)) for i in range(size)]
        found: list[Tokens] = []
        with in_eval_mode(self.writer.model):
            for start in range(0, len(every), self.at_once):
                part = every[start : start + self.at_once]
                rngs = [generator(device, self.seed, *purpose, rows[place]["id"], i) for place, i in part]
                places = [place for place, _ in part]
                found += self.writer.sample(x[places], [rows[place]["question"] for place in places], rngs)
        return [found[start : start + size] for start in range(0, len(found), size)]

    def rollouts(self, x: torch.Tensor, rows: Sequence[Row], *purpose: str | int) -> list[list[Completion]]:
        """Sample a group for each row at its canvas, with rewards."""
        groups = self.sample(x, rows, *purpose, size=self.size)
        flat = [tokens for group in groups for tokens in group]
        earned = self.rewards([row for row in rows for _ in range(self.size)], flat)
        made = [Completion(tokens=tokens, reward=reward) for tokens, reward in zip(flat, earned, strict=True)]
        return [made[start : start + self.size] for start in range(0, len(made), self.size)]


class Letter:
    """The log-odds of all other options against gold, where the letter follows the template's cue.

    It is the attack pgd's own goal. Of a policy that thinks first it asks for a letter that the policy never says.
    """

    def __init__(self, model: Waist, rows: Sequence[Row]) -> None:
        self._classify = model.classify([row["question"] for row in rows])
        self._labels = torch.tensor([row["label"] for row in rows], device=model.device)
        self._goal = Goal(loss="ce", gold=self._labels)

    def log_probs(self, x: torch.Tensor) -> torch.Tensor:
        """(b, K) log-probabilities of the options."""
        return self._classify(x)

    def height(self, x: torch.Tensor) -> torch.Tensor:
        return self._goal(self.log_probs(x), torch.arange(len(x), device=x.device))[0]

    @torch.no_grad()
    def read(self, x: torch.Tensor) -> Read:
        log_probs = self.log_probs(x)
        return Read(-log_probs.gather(1, self._labels.unsqueeze(1)).squeeze(1), log_probs.argmax(1) == self._labels)

    def refresh(self, x: torch.Tensor) -> None:
        """Nothing is sampled."""


class LetterAfterThought(Letter):
    """The same where the letter follows a thought that the policy has sampled itself, held until it is refreshed.

    It misses what the pixels do to the answer by way of the thought.
    """

    def __init__(self, model: Waist, policy: Policy, rows: Sequence[Row], clean: torch.Tensor, step: int) -> None:
        super().__init__(model, rows)
        self._policy, self._rows, self._step, self._refreshed = policy, rows, step, 0
        self._questions = [row["question"] for row in rows]
        self._none = torch.tensor(
            [
                [place >= len(q.options) for place in range(max(len(q.options) for q in self._questions))]
                for q in self._questions
            ],
            device=model.device,
        )
        self.refresh(clean)

    def log_probs(self, x: torch.Tensor) -> torch.Tensor:
        scores = self._policy.writer.scores_after(x, self._questions, self._texts)
        return scores.float().masked_fill(self._none, -torch.inf).log_softmax(1)

    def refresh(self, x: torch.Tensor) -> None:
        groups = self._policy.sample(x, self._rows, "thought", self._step, self._refreshed, size=1)
        turn = self._policy.writer.turn
        ends = frozenset(turn.ends(self._policy.writer.model.generation_config))
        self._texts = [turn.told([token for token in tokens if token not in ends]) for (tokens,) in groups]
        self._refreshed += 1


class MinusReward:
    """Minus the expected reward of a group, by its likelihood ratio: - sum of A_i log pi(y_i | x) over the group.

    The y_i are sampled at the clean image, and again at each refresh; the gradient at the canvas that they were sampled
    at is an unbiased estimate of minus the expected reward's (Williams 1992). A_i is the advantage of GRPO; in a group
    whose rewards agree, where that is zero, the reward less half of `Policy.most`: any constant baseline
    leaves the expectation as it is.
    """

    def __init__(self, policy: Policy, rows: Sequence[Row], clean: torch.Tensor, step: int) -> None:
        self._policy, self._rows, self._step, self._refreshed = policy, rows, step, 0
        self.refresh(clean)

    def height(self, x: torch.Tensor) -> torch.Tensor:
        places = [place for place, weights in enumerate(self._weights) for _ in weights]
        tokens = [tokens for weights in self._weights for tokens in weights]
        if not tokens:
            return x.new_zeros(len(x))
        log_probs = self._policy.writer.token_log_probs(
            x[places], [self._rows[place]["question"] for place in places], tokens
        )
        weights = [weight for weights in self._weights for weight in weights.values()]
        terms = zip(weights, log_probs, tokens, strict=True)
        return _by_row(x, places, [-weight * _said(row, one).sum() for weight, row, one in terms])

    @torch.no_grad()
    def read(self, x: torch.Tensor) -> Read:
        return Read(self.height(x), None)

    def refresh(self, x: torch.Tensor) -> None:
        groups = self._policy.rollouts(x, self._rows, "ascent", self._step, self._refreshed)
        self._weights = [_weights(group, self._policy.most) for group in groups]
        self._refreshed += 1


def _weights(group: Sequence[Completion], most: float) -> dict[Tokens, float]:
    """The advantages of a group, summed over equal completions; those that cancel out are left out."""
    rewards = torch.tensor([one.reward for one in group], dtype=torch.float64)
    spread = float(rewards.std())
    advantages = (rewards - rewards.mean()) / (spread + 1e-4) if spread > 1e-3 else rewards - most / 2
    weights: Counter[Tokens] = Counter()
    for one, advantage in zip(group, advantages.tolist(), strict=True):
        weights[one.tokens] += advantage
    return {tokens: weight for tokens, weight in weights.items() if tokens and abs(weight) > 1e-6}


class Divergence:
    """The divergence of what the policy goes on to say: sum over tokens of KL(pi(. | clean, y) || pi(. | x, y)).

    It is summed over the rollouts y of the clean image that answer rightly; a row without one has no divergence.

    Source:
        The adversarial form of ROMA (arXiv:2605.09262), after TRADES (Zhang et al. 2019, arXiv:1901.08573).
    """

    def __init__(
        self, policy: Policy, rows: Sequence[Row], clean: torch.Tensor, right: Sequence[Counter[Tokens]]
    ) -> None:
        self._writer = policy.writer
        self._places = [place for place, group in enumerate(right) for _ in group]
        self._tokens = [tokens for group in right for tokens in group]
        self._counts = [count for group in right for count in group.values()]
        self._questions = [rows[place]["question"] for place in self._places]
        with torch.no_grad():
            self._clean = self._log_probs(clean)

    def _log_probs(self, x: torch.Tensor) -> list[torch.Tensor]:
        if not self._tokens:
            return []
        return self._writer.token_log_probs(x[self._places], self._questions, self._tokens)

    def height(self, x: torch.Tensor) -> torch.Tensor:
        terms = [
            count * (clean.exp() * (clean - shown)).sum()
            for count, clean, shown in zip(self._counts, self._clean, self._log_probs(x), strict=True)
        ]
        return _by_row(x, self._places, terms)

    @torch.no_grad()
    def read(self, x: torch.Tensor) -> Read:
        return Read(self.height(x), None)

    def refresh(self, x: torch.Tensor) -> None:
        """The rollouts are those of the clean image."""


def _by_row(x: torch.Tensor, places: Sequence[int], terms: Sequence[torch.Tensor]) -> torch.Tensor:
    """Add up terms by the rows that they belong to, (b,); 0 for a row without any."""
    sums = x.new_zeros(len(x))
    return sums.index_add(0, torch.tensor(places, device=x.device), torch.stack([*terms])) if terms else sums


def _said(log_probs: torch.Tensor, tokens: Tokens) -> torch.Tensor:
    """(L,) log-probabilities of these tokens, from (L, V)."""
    return log_probs.gather(1, torch.tensor(tokens, device=log_probs.device).unsqueeze(1)).squeeze(1)
