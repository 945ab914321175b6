"""A run that goes on elsewhere: one file with what its stages made, the students as adapters.

Under LoRA a student is what it was trained from and an adapter, with the new tokens' rows, of some
ten MiB. `pack` takes the stages' files and adapters, `unpack` puts them down and rebuilds each
student: 01's from its layer plan, the others by merging. On the machine that packed, the weights
are the same bytes (tested); another processor may round a merged weight to the bfloat16 beside it.

    travel.pack(outputs / "mine", "04_cold_start", Path("mine-04.zip"))
    travel.unpack(Path("mine-04.zip"), outputs)
"""

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

from katlab import UserError, adapters, models
from katlab.lab import identity, records
from katlab.lab.runs import StageRun
from katlab.layer_saturation import stage as layer_saturation
from katlab.layer_saturation.plan import LayerPlan
from katlab.mtp_distillation import stage as mtp_distillation

MANIFEST = "pack.json"
FIRST = "01_layer_saturation"
SOURCE = {  # of the students that are trained: what each begins with
    "03_mtp_distillation": FIRST,
    "04_cold_start": "03_mtp_distillation",
    "05_step_srpo": "04_cold_start",
}
# Caches, logs, and what a finished stage needs no more.
LEFT_OUT = ("checkpoints", "kernel.log", "progress.json", "replies.jsonl")
STUDENT = Path("checkpoints") / "student"


def pack(run: Path, last: str, out: Path) -> Path:
    """Write the stages of a run up to `last` as one zip and return its path.

    Raises UserError where a stage is not finished, a student was trained in full (there is nothing
    small to carry), or `out` is there already.
    """
    if out.exists():
        raise UserError(f"{out} is there already; remove it or give another --out.")
    folders = [folder for folder in records.stage_folders(run) if folder.name <= last]
    if last not in [folder.name for folder in folders]:
        raise UserError(f"Run '{run.name}' has no stage {last}; see: katlab ls {run.name}")
    for folder in folders:
        if records.state(records.read(folder)) != "done":
            raise UserError(
                f"{folder.name} of run '{run.name}' is {records.state(records.read(folder))}; "
                "finish it before it is packed."
            )
        if folder.name in SOURCE and not adapters.file(folder / STUDENT).is_file():
            raise UserError(
                f"The student of {folder.name} was trained in full and takes a file of its own "
                "size; set lora.enabled = true, or carry its checkpoints/student as it is."
            )
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            known = {f.name: _digest(f / STUDENT) for f in folders if (f / STUDENT).is_dir()}
            manifest = {"run": run.name, "stages": [f.name for f in folders], "students": known}
            archive.writestr(MANIFEST, json.dumps(manifest, indent=1))
            if (run / identity.FILE).is_file():
                archive.write(run / identity.FILE, identity.FILE)
            for folder in folders:
                for file in _files(folder):
                    archive.write(file, file.relative_to(run))
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
    return out


def _files(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder)
        weights = file.suffix == ".safetensors"
        if file.is_file() and inside.parts[0] not in LEFT_OUT and not weights:
            yield file
    adapter = adapters.file(folder / STUDENT)
    yield from sorted(adapter.parent.glob("*")) if adapter.is_file() else ()


def unpack(file: Path, outputs: Path) -> tuple[Path, list[str]]:
    """Put a packed run into `outputs` and rebuild its students.

    Returns its folder and the stages whose rebuilt student is not the same bytes as the packed one.
    Stages that are there already, with the same fingerprint, stay as they are. Raises UserError
    for a file that `pack` did not write, or a stage that is there and is another.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            manifest = json.loads(archive.read(MANIFEST))
            run = outputs / manifest["run"]
            students = manifest["students"]
            new = [n for n in manifest["stages"] if not _there(archive, run, n, n in students)]
            inside = [n for n in archive.namelist() if n.partition("/")[0] in new and _plain(n)]
            if identity.FILE in archive.namelist() and not (run / identity.FILE).is_file():
                inside.append(identity.FILE)
            archive.extractall(run, inside)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is no file that katlab pack wrote ({error}).") from None
    differ = []
    for name in (name for name in new if name in students):
        _rebuild(StageRun.open(run / name))
        if _digest(run / name / STUDENT) != students[name]:
            differ.append(name)
    return run, differ


def _plain(name: str) -> bool:
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def _there(archive: zipfile.ZipFile, run: Path, name: str, student: bool) -> bool:
    """Whether the stage and its student lie in the run; UserError where another stage does."""
    if not (run / name / "run.json").is_file():
        return False
    packed = json.loads(archive.read(f"{name}/run.json")).get("fingerprint")
    if records.read(run / name).get("fingerprint") != packed:
        raise UserError(
            f"Run '{run.name}' has another {name} here; rename that run or katlab rm {run.name}."
        )
    return not student or any((run / name / STUDENT).glob("*.safetensors"))


def _rebuild(stage: StageRun) -> None:
    """Write checkpoints/student of a stage from what it began with."""
    target, config = stage.dir / STUDENT, stage.config
    if stage.name == FIRST:
        source = layer_saturation.parent_folder(config.model)
        plan = LayerPlan.load(stage.dir / "layer_plan.json")
        layer_saturation.write_student(source, target, plan)
        return
    adapter = adapters.file(target)
    if stage.name == "03_mtp_distillation":
        torch.manual_seed(stage.seed)  # as it began: rows beyond the tags are drawn
        model, tokenizer = mtp_distillation.student(stage)
    else:
        source = stage.upstream(SOURCE[stage.name]) / STUDENT
        model, tokenizer = models.load_for_training(source, config.model, config.lora)
        model = adapters.attach(model, config.lora)
    adapters.put(model, adapter)
    part = target.with_name(".student.part")
    models.save(model, tokenizer, part, config.model)
    shutil.rmtree(target)  # the adapter alone, which `save` has written again
    part.rename(target)


def _digest(student: Path) -> str:
    """SHA-256 over a student's weights."""
    digest = hashlib.sha256()
    for path in sorted(student.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
