"""Where a model's thought begins and ends in what it writes: one pair of marks for all families."""

from __future__ import annotations

import re

OPEN, CLOSE = "<think>", "</think>"
"""What every family's own marks are written as in texts that `models` returns."""

MARKS = (
    ("<think>", "</think>"),  # Qwen, GLM, DeepSeek, InternVL, MiniCPM, MiMo
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),  # EXAONE
    ("<reasoning>", "</reasoning>"),  # LLaVA-CoT, Reka
    ("◁think▷", "◁/think▷"),  # Kimi-VL
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("<unused94>thought", "<unused95>"),  # MedGemma 1.5
    ("<|channel>thought", "<channel|>"),  # Gemma 4
    ("<|channel|>analysis<|message|>", "<|end|>"),  # harmony
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # OpenThinker, Sky-T1
    ("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
)
"""Opening and closing marks by family."""

_OPENS = re.compile("|".join(re.escape(opening) for opening, _ in MARKS), re.IGNORECASE)
_CLOSES = re.compile("|".join(re.escape(closing) for _, closing in MARKS), re.IGNORECASE)


def canonical(text: str) -> str:
    """The text with the thought's marks of any known family as `<think>` and `</think>`."""
    return _CLOSES.sub(CLOSE, _OPENS.sub(OPEN, text))
