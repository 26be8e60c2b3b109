"""The architectures of the conformance suite, as tiny random-weight checkpoints. A new family is one row."""

from __future__ import annotations

from families import gemma, llama, llava, qwen

FAMILIES = {**qwen.FAMILIES, **llava.FAMILIES, **llama.FAMILIES, **gemma.FAMILIES}
