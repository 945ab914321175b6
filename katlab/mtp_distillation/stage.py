"""Stage 1: distil a think-on and a think-off teacher into one student, with and without MTP.

Report sections 3.1 and 3.3. The trigger tokens `<think_on>` and `<think_off>` end the prompt and
are outside the loss. Each teacher reads the reply in its own chat layout and its own tokens, once,
before training (`uld`); two arms then see the same rows in the same order for the same
number of steps, and differ by the MTP modules (`mtp`) alone:

    KD       L = CE + a ULD + b chunks
    MTP+KD   L + lambda / D * sum_k (CE_k + a ULD_k)

A teacher with the student's own tokenizer reads along in training instead, and c KL(teacher,
student) on all logits takes the place of ULD and chunks: nothing is cut off, nothing is stored.

Every sum runs over reply tokens and is divided by their number in the whole batch, so the split
into micro-batches does not matter.

Deviations: (1) chunks (n student tokens against m teacher tokens) are matched by the main head
alone; (2) under LoRA the MTP modules are trained in full and the adapters are merged into the
student that is saved.

    metrics = stage.run(stage)
"""

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig

from katlab import adapters, batching, lab, models, speed, template
from katlab.arms import run_arm
from katlab.mtp_distillation import dataset, mtp
from katlab.mtp_distillation.dataset import Collator, Tables
from katlab.mtp_distillation.settings import Settings
from katlab.mtp_distillation.signals import Reader, readers, split, teacher_signals
from katlab.mtp_distillation.trainer import Arm, DistillationTrainer
from katlab.tasks import queries

KD = Arm("kd", "KD", uld=True, mtp=False)
MTP_KD = Arm("student", "MTP+KD", uld=True, mtp=True)
CE = Arm("ce", "CE only", uld=False, mtp=False)
SHOWN = {  # while it trains
    "ce": "cross-entropy",
    "kl": "KL",
    "uld": "ULD",
    "token_accuracy": "tokens right",
}


def arms(settings: Settings) -> list[Arm]:
    """The arms to train: KD, MTP+KD, and CE alone where `ce_control` asks for it."""
    return [KD, MTP_KD, *([CE] if settings.ce_control else [])]


@lab.work
def run(stage: lab.StageRun) -> dict[str, float]:
    """Capture the teachers, train the arms, write the students, compare them on held-out queries.

    Reads 01's student and 02's corpus; writes checkpoints/student (MTP+KD), kd, mtp, (ce),
    teacher_signal.safetensors, evaluation.jsonl and acceptance.jsonl. Started again, it continues:
    finished arms are skipped, an unfinished one resumes from its last complete checkpoint. Returns
    shares in 0..1 and how many rows of the corpus were trained on and left out.
    """
    settings = stage.settings
    arguments(stage)  # its mistakes show before the teachers read
    rows, held = split(stage)
    tokenizer = AutoTokenizer.from_pretrained(start(stage))
    template.add_tags(tokenizer)
    along = readers(stage, tokenizer)
    signals = teacher_signals(stage, rows, along)
    columns, tables, left_out = dataset.build(rows, tokenizer, signals, settings.max_length, along)
    counts = {"rows_trained": len(columns), "rows_too_long": 0, "rows_respelled": 0} | left_out
    stage.forget_after(-1, "rows")
    stage.log(step=0, phase="rows", **counts)
    for arm in arms(settings):
        train_arm(stage, arm, columns, tables, along)
    if not stage.writes:
        return {}
    return counts | compare(stage) | draft_acceptance(stage, held)


def start(stage: lab.StageRun) -> Path:
    """The folder of 01's student."""
    return stage.upstream("01_layer_saturation") / "checkpoints" / "student"


def student(stage: lab.StageRun) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """01's student with the tags in its tokenizer, rows for new ones, and LoRA if so profiled.

    A new row of embedding and head is the mean of the rows that spelled the tag until now, plus
    noise of the matrix's own spread: `<think_on>` and `<think_off>` are spelled almost alike, and
    equal rows would leave the trigger unread for half of a short training. A tag that the tokenizer
    has already (`<think>` of reasoning models) keeps its row.
    """
    model, tokenizer = models.load_for_training(start(stage), stage.config.model, stage.config.lora)
    speller = copy.deepcopy(tokenizer)
    new = template.add_tags(tokenizer)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=8)
    ids = tokenizer.convert_tokens_to_ids(new)
    matrices = [model.get_input_embeddings().weight]
    if not model.config.tie_word_embeddings:
        matrices.append(model.get_output_embeddings().weight)
    with torch.no_grad():
        for matrix in matrices:
            spread = matrix.std(0)
            for row, tag in zip(ids, new, strict=True):
                spelled = speller(tag, add_special_tokens=False)["input_ids"]
                matrix[row] = matrix[spelled].mean(0) + spread * torch.randn_like(spread)
    return adapters.attach(model, stage.config.lora, ids), tokenizer


def arguments(stage: lab.StageRun, arm: Arm = KD) -> SFTConfig:
    """TRL's arguments from the profile; checkpoints lie in checkpoints/<arm>.training."""
    return lab.training.arguments(
        stage,
        SFTConfig,
        batch_size=stage.settings.batch_size,
        output_dir=str(stage.checkpoints / f"{arm.name}.training"),
        max_length=None,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="sequential",
    )


def train_arm(
    stage: lab.StageRun,
    arm: Arm,
    columns: list[dict],
    tables: Tables,
    along: Mapping[str, Reader],
) -> None:
    """Train one arm and write its folder; nothing to do if the folder is there already."""
    if (stage.checkpoints / arm.name).is_dir():
        return
    torch.manual_seed(stage.seed)  # embedding rows beyond the tags are drawn, then the modules
    model, tokenizer = student(stage)
    made = arguments(stage, arm)
    if arm.mtp:
        mtp.attach(model, stage.settings.mtp_depth)
    # laid down before training: both arms see the same batches, a resumed run the same remainder
    laid = batching.by_length(columns, stage.settings.steps, stage.settings.batch_size, stage.seed)
    read = [*{reader.place: reader.model for reader in along.values()}.values()]
    timed = speed.Timed(stage, arm.name, laid, stage.settings.batch_size, read if arm.uld else ())
    trainer = DistillationTrainer(
        model,
        made,
        data_collator=Collator(tables, stage.settings.mtp_depth if arm.mtp else 0),
        train_dataset=Dataset.from_list(laid),
        processing_class=tokenizer,
        callbacks=[stage.callback(arm.title, SHOWN, phase=arm.name), timed],
        arm=arm,
        settings=stage.settings,
        readers=read,
    )
    lab.training.train(trainer)
    if stage.writes:
        if arm.mtp:
            mtp.save(model.mtp, stage.checkpoints / "mtp")
        publish(stage, model, tokenizer, arm.name)
        shutil.rmtree(made.output_dir)
    trainer.accelerator.wait_for_everyone()


def publish(
    stage: lab.StageRun,
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
) -> None:
    """Write checkpoints/<name> whole or not at all: no MTP modules, adapters merged."""
    folder = stage.checkpoints / name
    part = folder.with_name(f".{folder.name}.part")
    mtp.detach(model)
    models.save(model, tokenizer, part, stage.config.model)
    part.rename(folder)


def compare(stage: lab.StageRun) -> dict[str, float]:
    """Forced think-on and think-off of every arm on the same held-out queries.

    Writes evaluation.jsonl (one row per sample, as `arms.run_arm`, and `student`, the arm's
    name). Returns accuracy by arm, mode and difficulty, and what MTP adds in points of accuracy.
    """
    settings = stage.settings
    rows = queries.load(stage.config, settings.eval_prompts, stage.seed, "eval")
    frames, figures = [], {}
    for arm in arms(settings):
        folder = stage.checkpoints / arm.name
        model, tokenizer = models.load_from(folder, stage.config.model)
        for mode in template.MODES:
            frame = run_arm(
                stage,
                model,
                tokenizer,
                rows,
                mode,
                style="trigger",
                max_new_tokens=settings.max_new_tokens,
                temperature=settings.eval_temperature,
                title=f"{arm.title}, forced think-{mode}",
            )
            frames.append(frame.assign(student=arm.name))
            right = frame["correct"].eq(True)
            levels = right.groupby(frame["difficulty"]).mean()
            figures[f"{arm.name}_{mode}"] = float(levels.mean())
            figures |= {f"{arm.name}_{mode}_{level}": float(v) for level, v in levels.items()}
    path = stage.dir / "evaluation.jsonl"
    pd.concat(frames).to_json(path, orient="records", lines=True)
    means = [figures[f"{a.name}_on"] + figures[f"{a.name}_off"] for a in (MTP_KD, KD)]
    return figures | {"mtp_gain": (means[0] - means[1]) / 2}


def draft_acceptance(stage: lab.StageRun, held: list[dict]) -> dict[str, float]:
    """Share of reply tokens on which the MTP modules and the student agree, on rows held out.

    What is counted says `mtp.acceptance`. Writes acceptance.jsonl: depth, mode, tokens, accepted.
    """
    settings = stage.settings
    model, tokenizer = models.load_from(stage.checkpoints / MTP_KD.name, stage.config.model)
    mtp.load(mtp.attach(model, settings.mtp_depth), stage.checkpoints / "mtp")
    counts, size = [], settings.capture_batch_size
    for mode in sorted({row["mode"] for row in held}, reverse=True):
        chosen = [row for row in held if row["mode"] == mode]
        columns, tables, _ = dataset.build(chosen, tokenizer, None, settings.max_length)
        columns.sort(key=lambda row: len(row["input_ids"]))
        for at in stage.progress(range(0, len(columns), size), f"drafts, think-{mode}"):
            batch = Collator(tables)(columns[at : at + size])
            found = mtp.acceptance(model, batch, settings.head_chunk)
            for depth, table in enumerate(found, start=1):
                tokens, accepted = int((table >= 0).sum()), int((table == 1).sum())
                counts.append(
                    {"depth": depth, "mode": mode, "tokens": tokens, "accepted": accepted}
                )
    frame = pd.DataFrame(counts).groupby(["depth", "mode"], as_index=False, sort=False).sum()
    frame.to_json(stage.dir / "acceptance.jsonl", orient="records", lines=True)
    share = frame.groupby("depth")["accepted"].sum() / frame.groupby("depth")["tokens"].sum()
    return {f"acceptance_{depth}": float(value) for depth, value in share.items()}
