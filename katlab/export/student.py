"""The final student of a run as a Hugging Face folder: weights, tokenizer, templates, a card.

What differs from the checkpoint of stage 05: the chat template's `mode` "on" and "off" prefills the
judge that forced the mode in stage 06, the tokenizer says how a reply is split (`response`), and
the cache is on. Weights are taken as they are.

    student.write(outputs / "demo", Path("demo-student"))
"""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from katlab import UserError, arms, template
from katlab.export import origin, response
from katlab.lab import profiles, records
from katlab.lab.console import verdicts
from katlab.lab.profiles import section

STAGE = "05_step_srpo"
TRIGGER = "{{- '<think_' + mode + '>\\n' -}}"  # how kat.jinja ends a prompt of a forced mode
KINDS = {"report": "Claims of the report", "target": "Own targets"}
OF_THE_BENCH = ("start_here", "scaling_plan", "compare_runs")  # not about this model
TRIED = "Compute 13+14."


def write(run: Path, folder: Path) -> None:
    """Write the final student of a run into a new folder.

    Raises UserError where stage 05 of the run is not finished, or its weights are gone.
    """
    source = checkpoint(run)
    record = records.read(run / STAGE)
    config = profiles.load(record["parameters"]["profile"], record["parameters"]["overrides"])
    folder.mkdir(parents=True)
    for path in sorted(source.glob("*.safetensors*")):
        shutil.copyfile(path, folder / path.name)
    for name in ("config.json", "generation_config.json"):
        shutil.copyfile(source / name, folder / name)
    settings = json.loads((folder / "config.json").read_text()) | {"use_cache": True}
    settings.pop("_name_or_path", None)
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    _tokenizer(source, config.prompts).save_pretrained(folder)
    _without(folder / "tokenizer_config.json", "is_local", "local_files_only", "name_or_path")
    (folder / "response_parts.json").write_text(json.dumps(response.PARTS, indent=2) + "\n")
    (folder / "README.md").write_text(str(card(run, record, config)), encoding="utf-8")


def finished(run: Path) -> bool:
    """Whether a run has a final student; UserError where there is no such run."""
    there = records.stage_folders(run)
    done = run / STAGE in there and records.result(run / STAGE) is not None
    return done and (run / STAGE / "checkpoints" / "student" / "config.json").is_file()


def checkpoint(run: Path) -> Path:
    """The folder of the final student's weights; UserError where there is none."""
    if not finished(run):
        raise UserError(
            f"Run '{run.name}' has no finished student of stage 05; run: "
            f"katlab run --run {run.name}"
        )
    return run / STAGE / "checkpoints" / "student"


def card(run: Path, record: dict, config: Any) -> ModelCard:
    """The model card: what holds and what does not, where it comes from, how it is used."""
    own, *named = config.model.student, config.model.teacher_off, config.model.teacher_on
    models = [own, *(own if name == "parent" else name for name in named)]
    base, *teachers = map(origin.base, models)
    data = ModelCardData(
        license=base.license,
        base_model=base.hub_id,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["katlab", "auto-think", "reasoning", "step-srpo"],
    )
    rows = claims(run)
    parameters = record["parameters"]
    return ModelCard.from_template(
        data,
        template_path=str(Path(__file__).with_name("card.md.jinja")),
        run=run.name,
        base=base,
        teachers=teachers,
        unknown=origin.UNKNOWN,
        held={title: [r for r in rows if r["kind"] == kind] for kind, title in KINDS.items()},
        counted=_counted(rows),
        profile=Path(parameters["profile"]).name,
        seed=parameters["seed"],
        overrides=parameters["overrides"],
        git=record["git"],
        versions=record["versions"],
        ended=record.get("ended", "")[:10],
        evaluation=vars(config.evaluation),
        toy=origin.made_here(config.model.teacher_off),
        all_made_here=all(map(origin.made_here, models)),
        tried=TRIED,
    )


def claims(run: Path) -> list[dict]:
    """The rows of all verdicts that are about the model: claims of the report and own targets."""
    return [
        {"kind": "report", "stage": folder.name[:2]} | row
        for folder in records.stage_folders(run)
        if section(folder.name) not in OF_THE_BENCH
        for row in verdicts(folder)
        if row.get("kind", "report") in KINDS
    ]


def _counted(rows: list[dict]) -> str:
    asked = [row["held"] for row in rows if row["held"] is not None]
    return f"{sum(asked)} of {len(asked)}"


def _tokenizer(source: Path, words: SimpleNamespace) -> PreTrainedTokenizerBase:
    """The student's tokenizer with both templates of an exported model."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    judges = {mode: "<judge>\n" + arms.forced(words, mode) for mode in template.MODES}
    asked = tokenizer.chat_template
    if TRIGGER not in asked:
        raise UserError(f"{source} has a chat template of its own; take kat.jinja's for an export.")
    tokenizer.chat_template = asked.replace(TRIGGER, f"{{{{- {json.dumps(judges)}[mode] -}}}}")
    tokenizer.response_template = response.SERVED
    return tokenizer


def _without(path: Path, *keys: str) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value for key, value in values.items() if key not in keys}
    path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
