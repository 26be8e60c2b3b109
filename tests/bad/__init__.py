"""Bad input, as a table: how each piece is made, the command that meets it, and what the command must say.

A case that is good input in a strange dress stands here too, with exit code 0: it must work, and say what was done.
"""

from __future__ import annotations

from bad import checkpoints, commands, images, questions, runs
from bad.case import Case

CASES: list[Case] = [*images.CASES, *questions.CASES, *checkpoints.CASES, *commands.CASES, *runs.CASES]
