"""What the adversary maximises: a reasoner that the letter misses, exact gradients and divergences of a toy policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from safemed_eval.core import Question
from safemed_eval.models.waist import Waist
from safemed_eval.train import Threats
from safemed_eval.train._rows import Row, to_canvas
from safemed_eval.train.inner.adversary import Adversary
from safemed_eval.train.inner.objectives import Completion, Divergence, MinusReward, Policy, Tokens, _weights
from safemed_eval.train.recipe import Aim

QUESTION = Question(text="Which?", options=("a", "b"))
ROWS: list[Row] = [
    {"id": str(i), "question": QUESTION, "label": 0, "image": Image.new("RGB", (8, 8), (128, 128, 128))}
    for i in range(12)
]
CANVAS = torch.stack([to_canvas(row["image"]) for row in ROWS])
END = 2


class Reasoner(torch.nn.Module):
    """A policy of three tokens: a thought, 0 or 1, then the letter, 0 (gold) or 1, and its end.

    With m the mean change of the image in grey levels: after its thought it says gold with log-odds 2.5 - 3 m, and the
    bare letter after the cue has log-odds 4 + 0.1 m, which an attack lowers by going the other way. If the pixels act
    `through` the thought, the thought has log-odds 2.5 - 3 m, and the letter says it again, with log-odds of 4.
    """

    device = torch.device("cpu")
    turn = SimpleNamespace(ends=lambda _: [END], told=lambda tokens: f"<think>{tokens[0]}</think>")
    generation_config = None

    def __init__(self, through: bool = False) -> None:
        super().__init__()
        self.through = through

    @property
    def model(self) -> torch.nn.Module:
        return self

    def lead(self, x: torch.Tensor) -> torch.Tensor:
        return 2.5 - 3 * 255 * (x - 128 / 255).mean((1, 2, 3))

    def thought(self, x: torch.Tensor) -> torch.Tensor:
        return _two(self.lead(x) if self.through else torch.full((len(x),), 0.7))

    def letter(self, x: torch.Tensor, thought: torch.Tensor) -> torch.Tensor:
        return _two(4 - 8 * thought.float() if self.through else self.lead(x))

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        return _two(4 + 0.1 * 255 * (canvas - 128 / 255).mean((1, 2, 3)))

    def scores_after(self, canvas: torch.Tensor, questions: Sequence[Question], texts: Sequence[str]) -> torch.Tensor:
        return self.letter(canvas, torch.tensor([int(text[len("<think>")]) for text in texts]))

    def sample(
        self, canvas: torch.Tensor, questions: Sequence[Question], generators: Sequence[torch.Generator]
    ) -> list[Tokens]:
        thoughts = _draw(self.thought(canvas), generators)
        letters = _draw(self.letter(canvas, torch.tensor(thoughts)), generators)
        return [(thought, letter, END) for thought, letter in zip(thoughts, letters, strict=True)]

    def token_log_probs(
        self, canvas: torch.Tensor, questions: Sequence[Question], written: Sequence[Tokens]
    ) -> list[torch.Tensor]:
        said = torch.stack([self.thought(canvas), self.letter(canvas, torch.tensor([t[0] for t in written]))], 1)
        impossible = torch.full((len(canvas), 2, 1), -50.0)
        end = torch.tensor([-50.0, -50.0, 0.0]).expand(len(canvas), 1, 3)
        return list(torch.cat([torch.cat([said, impossible], 2), end], 1))


def _two(lead: torch.Tensor) -> torch.Tensor:
    return torch.stack([lead, torch.zeros_like(lead)], 1).log_softmax(1)


def _draw(log_probs: torch.Tensor, generators: Sequence[torch.Generator]) -> list[int]:
    rows = zip(log_probs.detach().exp(), generators, strict=True)
    return [int(torch.multinomial(row, 1, generator=rng)) for row, rng in rows]


def rewards(rows: Sequence[Row], written: Sequence[Tokens]) -> list[float]:
    return [float(tokens[1] == row["label"]) for row, tokens in zip(rows, written, strict=True)]


def policy(size: int = 8, through: bool = False) -> Policy:
    return Policy(writer=Reasoner(through), size=size, at_once=50, rewards=rewards, most=1.0)  # type: ignore[arg-type]


def mean_reward(of: Policy, canvas: torch.Tensor) -> float:
    groups = of.rollouts(canvas, ROWS, "fresh")
    return sum(one.reward for group in groups for one in group) / sum(map(len, groups))


def attacked(aim: Aim, *, steps: int = 5, through: bool = False) -> float:
    """The mean reward of fresh samples at the images that an adversary of 4/255 chooses."""
    of = policy(through=through)
    threats = Threats(eps=4 / 255, steps=steps, share=1.0, warm_up=0.0, aim=aim)
    adversary = Adversary(model=Waist(of.writer, torch.device("cpu")), threats=threats, policy=of, at_once=30)
    right = None
    if aim == "kl":
        right = [Counter(one.tokens for one in group if one.reward) for group in of.rollouts(CANVAS, ROWS, "clean")]
    found = adversary.perturb(ROWS, right=right)
    shown = torch.stack([to_canvas(row["image"]) for row in found.rows])
    assert 0 < float((shown - CANVAS).abs().max()) <= 4 / 255 + 1e-6
    assert found.attacked == list(range(12))
    assert found.adversarial_loss is not None and found.clean_loss is not None
    assert found.adversarial_loss > found.clean_loss - 1e-6
    return mean_reward(of, shown)


def test_the_bare_letter_misses_a_reasoner_that_the_policys_own_objectives_break() -> None:
    assert mean_reward(policy(), CANVAS) > 0.85
    assert attacked("letter") == 1.0, "the letter after the bare cue leads away from what the policy says"
    for aim in ("answer", "reward"):
        assert attacked(aim) < 0.05, aim
    assert attacked("answer", steps=1) < 0.05
    assert attacked("kl") < 0.4, "from some random starts it diverges towards the right answer"


def test_what_pixels_do_by_way_of_the_thought_is_missed_where_the_thought_is_held() -> None:
    assert mean_reward(policy(through=True), CANVAS) > 0.85
    assert attacked("letter", through=True) > 0.95
    assert attacked("reward", through=True) < 0.05
    assert attacked("kl", through=True) < 0.4


@pytest.mark.parametrize("through", [False, True])
def test_the_gradient_is_that_of_minus_the_expected_reward(through: bool) -> None:
    """Exact: E = sum over thoughts of p(thought) p(gold | thought); estimated from 4,000 samples."""
    of, row, x = policy(4000, through), ROWS[:1], CANVAS[:1].clone().requires_grad_()
    toy = of.writer
    expected = sum(
        toy.thought(x)[0, t].exp() * toy.letter(x, torch.tensor([t]))[0, 0].exp()  # type: ignore[attr-defined]
        for t in (0, 1)
    )
    (exact,) = torch.autograd.grad(-expected, x)
    objective = MinusReward(of, row, x.detach(), step=0)
    rolled = of.rollouts(x.detach(), row, "ascent", 0, 0)[0]
    spread = torch.tensor([one.reward for one in rolled]).std()
    (found,) = torch.autograd.grad(objective.height(x).sum(), x)
    assert float(found.mean() * spread / 4000) == pytest.approx(float(exact.mean()), rel=0.12)


def test_a_group_that_agrees_still_says_where_to_go() -> None:
    """All right: away from what was said. All wrong: towards it. Rewards that differ: GRPO's advantages, by hand."""
    right, wrong = Completion(tokens=(0, 0, END), reward=1.2), Completion(tokens=(0, 1, END), reward=0.2)
    assert _weights([right] * 4, most=1.2) == {(0, 0, END): pytest.approx(4 * 0.6)}
    assert _weights([wrong] * 4, most=1.2) == {(0, 1, END): pytest.approx(4 * -0.4)}
    std = (4 * 0.25 / 3) ** 0.5
    half = 2 * 0.5 / (std + 1e-4)
    assert _weights([right, wrong, right, wrong], most=1.2) == {
        (0, 0, END): pytest.approx(half),
        (0, 1, END): pytest.approx(-half),
    }
    assert _weights([Completion(tokens=(), reward=0.0)] * 2, most=1.2) == {}, "nothing was said"


class Noted(Reasoner):
    """Notes each time that it is asked for samples, and for a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = ""

    def sample(
        self, canvas: torch.Tensor, questions: Sequence[Question], generators: Sequence[torch.Generator]
    ) -> list[Tokens]:
        self.asked += "S"
        return super().sample(canvas, questions, generators)

    def token_log_probs(
        self, canvas: torch.Tensor, questions: Sequence[Question], written: Sequence[Tokens]
    ) -> list[torch.Tensor]:
        self.asked += "g" * canvas.requires_grad
        return super().token_log_probs(canvas, questions, written)


@pytest.mark.parametrize(("steps", "asked"), [(1, "Sg"), (2, "SgSg"), (5, "SggSggg"), (6, "SgggSggg")])
def test_the_adversary_samples_anew_once_halfway(steps: int, asked: str) -> None:
    writer = Noted()
    of = Policy(writer=writer, size=2, at_once=50, rewards=rewards, most=1.0)  # type: ignore[arg-type]
    threats = Threats(eps=4 / 255, steps=steps, share=1.0, warm_up=0.0, aim="reward")
    Adversary(model=Waist(writer, torch.device("cpu")), threats=threats, policy=of, at_once=4).perturb(ROWS[:2])
    assert writer.asked == asked


def test_the_divergence_by_hand() -> None:
    """Two rollouts that say the same, and a row without a right one."""
    of, x = policy(), (CANVAS[:2] + 1 / 255).clone()
    found = Divergence(of, ROWS[:2], CANVAS[:2], [Counter({(0, 0, END): 2}), Counter()])
    p, q = torch.tensor(2.5).sigmoid(), torch.tensor(-0.5).sigmoid()
    kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    assert found.height(x).tolist() == pytest.approx([2 * float(kl), 0], rel=1e-4)
    assert found.height(CANVAS[:2]).tolist() == pytest.approx([0, 0], abs=1e-6)


def test_samples_do_not_depend_on_the_batch() -> None:
    of = policy(3)
    whole, alone = of.rollouts(CANVAS, ROWS, "x"), of.rollouts(CANVAS[4:5], ROWS[4:5], "x")
    assert whole[4] == alone[0]
    assert whole[4] != of.rollouts(CANVAS, ROWS, "y")[4] or whole != of.rollouts(CANVAS, ROWS, "y")
