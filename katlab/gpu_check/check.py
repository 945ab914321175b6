"""`katlab gpu-check`: what this machine's GPU makes of a profile, offline, in five to ten minutes.

Parts run in processes of their own, one after the other, so that memory is counted afresh, vLLM
has the GPU to itself, and a part that dies takes no other with it. Their words are in a log.

    found = check.run("real-0.5b", tell=print);  check.failed(found)
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from katlab import UserError
from katlab.lab import profiles, stages

GROUPS = (  # weights first: the others work on them
    ("weights", "full", "lora", "qlora", "sft", "distillation"),
    ("rollouts",),
    ("step_srpo",),
)
LIMIT = 600.0  # seconds after which the rest is given up; vLLM's first start may take two minutes
OF_GROUP = 300.0
TINY = "tiny"  # the profile that means a tiny check


def run(
    profile: str, tiny: bool = False, tell: Callable[[str, dict], None] = lambda name, found: None
) -> dict[str, Any]:
    """All figures by part; `tell` hears each as it is known. UserError where there is no GPU.

    A part that failed has its `error`, one sentence, instead of figures. A tiny check is for trying
    the check itself: a model of a few thousand weights, also on a CPU, in this process.
    """
    import torch

    profiles.load(profile)
    tiny = tiny or profile == TINY
    if not (tiny or torch.cuda.is_available()):
        raise UserError(
            "There is no GPU that torch can use here (katlab doctor); give --tiny to try the check "
            "itself on the CPU."
        )
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="katlab-gpu-check-") as name:
        folder = Path(name)
        found = _here(folder, profile, tell) if tiny else _apart(folder, profile, tell)
    seconds = round(time.monotonic() - begun, 1)
    return {"profile": profile, "tiny": tiny, **found, "seconds": seconds}


def failed(found: dict[str, Any]) -> list[str]:
    """The parts that have no figures."""
    return [name for name, one in found.items() if isinstance(one, dict) and "error" in one]


def log() -> Path:
    """Where the parts' own words go."""
    return stages.root() / "build" / "gpu-check.log"


def _here(folder: Path, profile: str, tell) -> dict[str, Any]:
    from katlab.gpu_check import parts
    from katlab.gpu_check.bench import Bench

    bench, found = Bench(folder, profile, tiny=True), {}
    for name in parts.PARTS:
        found[name] = parts.measure(bench, name)
        tell(name, found[name])
    return found


def _apart(folder: Path, profile: str, tell) -> dict[str, Any]:
    """The parts of each group in a process; what it did not come to has the reason as its error."""
    deadline, found = time.monotonic() + LIMIT, {}
    log().parent.mkdir(parents=True, exist_ok=True)
    with log().open("w") as words:
        for group in GROUPS:
            limit = min(OF_GROUP, deadline - time.monotonic())
            ended = child(folder, profile, group, limit, words) if limit > 0 else "no time was left"
            made = folder / "parts.jsonl"
            lines = made.read_text().splitlines() if made.is_file() else []
            known = {k: v for line in lines for k, v in json.loads(line).items()}
            for name in group:
                found[name] = known.get(name, {"error": f"Not measured: {ended}."})
                tell(name, found[name])
    return found


def child(folder: Path, profile: str, group: tuple[str, ...], limit: float, words) -> str:
    """Measure a group in another process and say how it ended."""
    command = [sys.executable, "-m", "katlab.gpu_check.parts", str(folder), profile, *group]
    words.write(f"== {' '.join(group)}\n")
    words.flush()
    process = subprocess.Popen(
        command, stdout=words, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        status = process.wait(timeout=limit)
    except subprocess.TimeoutExpired:
        return f"it took longer than {limit:.0f} seconds"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # also what it left behind, such as vLLM's own
        process.wait()
    return f"its process ended with status {status}; see {log()}"
