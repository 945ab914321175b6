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

from katlab.lab import fingerprint

DECIDING = ("katlab", "notebooks", "data_samples", "constraints.txt")  # what figures depend on
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


def git(root: Path = Path(__file__).parents[2]) -> dict[str, object]:
    """Commit, and whether code, data or a notebook's code cells differ from it.

    Empty outside a repository. Outputs, prose and parameters of a notebook are no change: one that
    is open in JupyterLab has them all the time. A file of the package that git does not know is.
    """
    sha = _git(root, "rev-parse", "HEAD")
    if sha is None:
        return {}
    status = _git(root, "status", "--porcelain", "--no-renames", "--", *DECIDING) or ""
    differ = [(line[:2], line[3:].strip('"')) for line in status.splitlines()]
    return {"sha": sha.strip(), "changed": any(_counts(root, *one) for one in differ)}


def _counts(root: Path, mark: str, path: str) -> bool:
    if not path.endswith(".ipynb"):
        return mark != "??" or path.startswith("katlab/")
    committed = _git(root, "show", f"HEAD:{path}")
    if committed is None or not (root / path).is_file():
        return mark != "??"
    return fingerprint.code(committed) != fingerprint.code((root / path).read_text("utf-8"))


def _git(root: Path, *command: str) -> str | None:
    """What git prints; None where it is not installed or refuses."""
    try:
        done = subprocess.run(["git", "-C", str(root), *command], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return None if done.returncode else done.stdout
