"""transfer: adversarial images of another model, tried on this one."""

from __future__ import annotations

from dataclasses import dataclass, field

from safemed_eval.attacks._base import Attack, Attacked, BallAttack, Facts, Problem, refuse_counts
from safemed_eval.attacks.pgd import PGD
from safemed_eval.grammar import ALWAYS


@dataclass(frozen=True, kw_only=True)
class Transfer(BallAttack):
    """PGD on a surrogate model, without early stopping; the search does not use the judged model.

    A model with masked gradients loses more accuracy under it than under pgd: its robustness is then only apparent.

    Args:
        model: the surrogate, written as for --model (`from=` in a spec).
    Source:
        Papernot et al. 2016 (arXiv:1605.07277); as a test of defences, Athalye et al. 2018 (arXiv:1802.00420).
    """

    facts = Facts(black_box=True, on_surrogate=True, example="transfer:from=CKPT")

    model: str = field(metadata={"key": "from"})
    steps: int = field(default=10, metadata=ALWAYS)

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_counts(steps=self.steps)

    @property
    def surrogate(self) -> str:
        return self.model

    @property
    def on_smoothed(self) -> Attack:
        return self

    @property
    def _surrogate_search(self) -> PGD:
        return PGD(eps=self.eps, norm=self.norm, steps=self.steps, early_stop=False)

    def search(self, problem: Problem) -> Attacked:
        return self._surrogate_search.search(problem)


ATTACK = Transfer
