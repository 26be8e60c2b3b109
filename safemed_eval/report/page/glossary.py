"""The terms of the page: a list at its end, and a note wherever one of them is a heading."""

from __future__ import annotations

import re

TERMS = {
    "abstain": 'The vote is not clear enough for a certificate, or "no answer" itself wins it.',
    "ACR": "Average certified radius over all items, 0 where the answer is wrong or there is none.",
    "adaptive": "An attack on a model that writes: on its letter, on its own rationale, and with a rationale for a "
    "wrong option; what falls to any has fallen.",
    "alpha": "The probability that one certificate is false.",
    "APGD": "PGD that finds its own step size (Croce and Hein 2020).",
    "art": "An attack of the Adversarial Robustness Toolbox.",
    "blank": "The question is asked about an image that shows nothing.",
    "canvas": "The size, in pixels, to which every image is brought before anything is measured.",
    "ceiling": "The radius that unanimous votes give: n copies cannot certify more.",
    "circular": "The clean image, asked with its options in each of their rotations; right is what is right in all of "
    "them.",
    "clean": "The image as it is, brought to the canvas.",
    "clusters": "Items of one patient or, where patients are not known, of one image.",
    "corrupt": "In the list of attacks: what happens to images without an enemy, at a severity from 1, barely visible, "
    "to 5, bad.",
    "eps": "The bound of an attack: the largest change of any pixel (L-infinity), or the length of the whole change "
    "(L2).",
    "FGSM": "An attack of one step, along the sign of the gradient.",
    "grey levels RMS": "The root of the mean squared change over all pixels, in steps of an 8-bit image.",
    "grounded": "Right and dependent on the image: another patient's image gets another answer, or halves the "
    "probability of the right one.",
    "items": "Pairs of an image and a question about it.",
    "ln e": "The evidence of sequential draws against the answer's being too improbable for a radius; it is certified "
    "where e reaches 1/alpha.",
    "median r": "The largest radius at which half of the items are still certified and right.",
    "n0, n": "Noisy copies that select the answer, and further ones that bound how often it is given.",
    "no answer": "What the model wrote names no option, or two. It counts as wrong.",
    "noise": "A random change. In the list of attacks: of the same size, and an attack must do better. Of "
    "certificates: what the copies of an image are changed by.",
    "official": "The checkpoint's own path for 8-bit images, each at its own size, without a canvas.",
    "p lower": "A lower bound of the probability that the selected answer is given under the noise.",
    "PGD": "An attack of many small steps along the gradient, kept within eps.",
    "radius": "The size of a change up to which the answer is certified: its length over all pixels (L2), their sum "
    "(L1), or how far a setting of the display is turned.",
    "rationale": "What a model writes before its answer: its thought, if it marks one.",
    "sequential": "Noisy copies are drawn until it is decided which of the radii that were asked for are certified for "
    "the gold answer. Nothing is known of other radii, or of other answers.",
    "shuffled": "The question is asked about another patient's image.",
    "sigma": "The standard deviation of the noise, on the scale from 0 to 1.",
    "smooth": "The smoothed model itself answers, by vote, and is attacked by gradients averaged over noise.",
    "suite": "APGD, APGD towards each wrong option, and a search without gradients, one after the other.",
    "text-only": "The question is asked without an image.",
    "transfer": "An attack that was found on another model.",
}
_BY_HEADING = {term.casefold(): term for term in TERMS} | {
    "abstained": "abstain",
    "with rationale": "rationale",
}


def term_id(term: str) -> str:
    """The id of a term's entry in the list."""
    return "term-" + re.sub(r"\W+", "-", term.casefold())


def term_of(heading: str) -> str | None:
    """The term that a heading is, or None."""
    return _BY_HEADING.get(heading.casefold())
