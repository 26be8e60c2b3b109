"""Provenance of a run: versions, machine, command line. No environment variables, which may hold secrets."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from safemed_eval.codec import Json
from safemed_eval.version import __version__

_PACKAGES = (
    *("torch", "torchvision", "transformers", "numpy", "scipy", "pillow", "pydicom", "peft", "accelerate"),
    "adversarial-robustness-toolbox",
)


def session(device: str) -> Json:
    """Describe this start of a run: time, command line, versions, commit of the toolkit, machine, device."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "argv": sys.argv[1:],
        "safemed_eval": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "versions": {name: installed for name in _PACKAGES if (installed := _version(name))},
    }


def code_sha256() -> str:
    """Hash the toolkit's source files (sha256): equal for the same code, installed or in a checkout."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(f"{file.relative_to(root)}\n{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of the toolkit's checkout, with "+" if files differ; None for an installed package."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists() or not (root / "pyproject.toml").exists():
        return None
    try:
        head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        diff = subprocess.run(["git", "-C", str(root), "diff", "--quiet", "HEAD"], capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if diff.returncode else "")
