"""Noise whose certificates follow from a normal distribution: on all pixels, or on one parameter."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.special import ndtr

from safemed_eval import stats
from safemed_eval.smoothing.evidence import Floats
from safemed_eval.smoothing.noise._base import Noise, View
from safemed_eval.smoothing.two_class import Shifted


@dataclass(frozen=True)
class Normal(Noise):
    """Normal noise of standard deviation sigma in each coordinate of what is changed.

    A class with probability p or more at the image has at least Phi(ppf(p) - d / sigma) where it is changed by d in
    Euclidean length, and so remains the answer within sigma * ppf(p).

    Source:
        Cohen et al. 2019 (arXiv:1902.02918), Theorem 1, with p_B = 1 - p_A. For a parameter whose changes add up, so
        that changing by s and then by t is changing by s + t: Li et al. 2021 (TSS, arXiv:2002.12398), Corollary 7,
        which is the same theorem in one dimension.
    """

    sigma: float

    def radius(self, p_lower: float, view: View | None = None) -> float | None:
        radius = stats.certified_radius(p_lower, self.sigma)
        return radius if radius is None or view is None else view.from_canvas(radius)

    def probability_needed(self, radius: float, view: View | None = None) -> float:
        return float(ndtr(_on_canvas(radius, view) / self.sigma))

    def null(self, p0: Floats) -> Shifted:
        return Shifted(p0)

    def probability_left(self, p_lower: float, radius: float, distance: float, view: View | None = None) -> float:
        far, near = _on_canvas(radius, view), _on_canvas(distance, view)
        return stats.certified_lower(p_lower, far, self.sigma, near)


def _on_canvas(length: float, view: View | None) -> float:
    return length if view is None else view.on_canvas(length)
