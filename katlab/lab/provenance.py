"""Where and with what a stage ran: time, versions, commit (recorded, never part of a result).

Usage:  provenance.versions()["torch"]
"""

import platform
import resource
import subprocess
import sys
import time
from datetime import datetime
from importlib import metadata
from pathlib import Path

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "papermill")


def now() -> str:
    """Local time with its offset, ISO 8601."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def since(moment: str) -> float:
    """Seconds from a moment that `now` wrote until now."""
    return time.time() - datetime.fromisoformat(moment).timestamp()


def peak_memory_mib() -> int:
    """The most memory that this process held, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, else KiB
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide results (read, not imported)."""
    installed = {dist.name.lower() for dist in metadata.distributions()}
    found = {name: metadata.version(name) for name in LIBRARIES if name in installed}
    return {"python": platform.python_version(), **found}


def git() -> dict[str, object]:
    """Commit and whether tracked files differ from it; empty outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent)]
    try:
        sha = subprocess.run([*command, "rev-parse", "HEAD"], capture_output=True, text=True)
    except FileNotFoundError:  # git itself is not installed
        return {}
    if sha.returncode:
        return {}
    changed = subprocess.run([*command, "diff", "--quiet", "HEAD"], capture_output=True)
    return {"sha": sha.stdout.strip(), "changed": changed.returncode != 0}
