"""The version of the toolkit, as every run records it."""

from __future__ import annotations

VERSION = "0.1.0"
