"""Data sets: each kind of `--data` is one module of `sources`, or a plug-in.

`load_data` chooses items and opens every image: a run takes what it returns. Step by step:

    >>> data = load("phantom")                      # or "omnimedvqa:/data/OmniMedVQA"
    >>> data = select(data, per_group=3, seed=0)
    >>> data = verify(data)                         # items whose image is bad are listed in `data.bad`

No torch here: a wrong path or a broken image is reported before anything heavy starts.
"""

from __future__ import annotations

from safemed_eval.data.audit.leakage import Comparison
from safemed_eval.data.audit.near_duplicates import NEAR
from safemed_eval.data.audit.shared import Audit, Counts, Side
from safemed_eval.data.audit.text_cues import Cue, cues
from safemed_eval.data.audit.training_overlap import Overlap, Training, overlap, overlap_sentences, write_seen
from safemed_eval.data.canvas import DEFAULT_CANVAS, Canvas, Fit, canvas_of, parse_canvas, pixels_of
from safemed_eval.data.choose import AnyData, Choice, Data, choose_data, load_data
from safemed_eval.data.dataset import Bad, DataSet
from safemed_eval.data.description import Description, describe
from safemed_eval.data.donors import Donor, Match, donors_of
from safemed_eval.data.export import export
from safemed_eval.data.images.reader import Canvases, Reader
from safemed_eval.data.kinds import is_made, kinds, load, load_readable, spelled
from safemed_eval.data.option_order import reordered, rotation, shuffled
from safemed_eval.data.progress import Progress, no_progress
from safemed_eval.data.regions import region_of, verify_masks
from safemed_eval.data.selection import Selection, select
from safemed_eval.data.verification import verify

__all__ = [
    "DEFAULT_CANVAS",
    "NEAR",
    "AnyData",
    "Audit",
    "Bad",
    "Canvas",
    "Canvases",
    "Choice",
    "Comparison",
    "Counts",
    "Cue",
    "Data",
    "DataSet",
    "Description",
    "Donor",
    "Fit",
    "Match",
    "Overlap",
    "Progress",
    "Reader",
    "Selection",
    "Side",
    "Training",
    "canvas_of",
    "choose_data",
    "cues",
    "describe",
    "donors_of",
    "export",
    "is_made",
    "kinds",
    "load",
    "load_data",
    "load_readable",
    "no_progress",
    "overlap",
    "overlap_sentences",
    "parse_canvas",
    "pixels_of",
    "region_of",
    "reordered",
    "rotation",
    "select",
    "shuffled",
    "spelled",
    "verify",
    "verify_masks",
    "write_seen",
]
