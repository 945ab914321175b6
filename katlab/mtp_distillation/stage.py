"""Stage 1: distil a think-on and a think-off teacher into one student, with and without MTP.

Report sections 3.1 and 3.3. The trigger tokens `<think_on>` and `<think_off>` end the prompt and
are outside the loss. Each teacher reads the reply in its own chat layout and its own tokens, once,
before training (`uld`); two arms then see the same rows in the same order for the same
number of steps, and differ by the MTP modules (`mtp`) alone:

    KD       L = CE + a ULD + b chunks
    MTP+KD   L + lambda / D * sum_k (CE_k + a ULD_k)

Every sum runs over reply tokens and is divided by their number in the whole batch, so the split
into micro-batches does not matter.

Deviations: (1) chunks (n student tokens against m teacher tokens) are matched by the main head
alone; (2) under LoRA the MTP modules are trained in full and the adapters are merged into the
student that is saved.

    metrics = stage.run(stage)
"""

import copy
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
)
from trl import SFTConfig

from katlab import UserError, batching, lab, models, template
from katlab.arms import run_arm
from katlab.mtp_distillation import mtp, uld
from katlab.mtp_distillation.signals import Collator, examples, split, teacher_signals
from katlab.mtp_distillation.trainer import Arm, DistillationTrainer
from katlab.tasks import queries

KD = Arm("kd", "KD", uld=True, mtp=False)
MTP_KD = Arm("student", "MTP+KD", uld=True, mtp=True)
CE = Arm("ce", "CE only", uld=False, mtp=False)


def arms(settings: SimpleNamespace) -> list[Arm]:
    """The arms to train: KD, MTP+KD, and CE alone where `ce_control` asks for it."""
    return [KD, MTP_KD, *([CE] if settings.ce_control else [])]


@lab.work
def run(stage: lab.StageRun) -> dict[str, float]:
    """Capture the teachers, train the arms, write the students, compare them on held-out queries.

    Reads 01's student and 02's corpus; writes checkpoints/student (MTP+KD), kd, voters, mtp, (ce)
    and evaluation.jsonl, acceptance.jsonl. Started again, it continues: finished arms are skipped,
    an unfinished one resumes from its last complete checkpoint. Returns shares in 0..1.
    """
    settings = stage.settings
    if not all(0 < step <= settings.steps for step in settings.voter_steps or [0]):
        raise UserError(f"Set mtp_distillation.voter_steps within 1..{settings.steps}, the steps.")
    arguments = training_arguments(stage, "capture")  # also joins the process group
    rows, held = split(stage)
    with arguments.main_process_first(local=False):
        signals = teacher_signals(stage, rows)
    for arm in arms(settings):
        train_arm(stage, arm, rows, signals)
    if not stage.writes:
        return {}
    return compare(stage) | draft_acceptance(stage, held)


def student(stage: lab.StageRun) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """01's student with the tags in its tokenizer, rows for them, and LoRA if the profile says so.

    A new row of embedding and head is the mean of the rows that spelled the tag until now, plus
    noise of the matrix's own spread: `<think_on>` and `<think_off>` are spelled almost alike, and
    equal rows would leave the trigger unread for half of a short training.
    """
    folder = stage.upstream("01_layer_saturation") / "checkpoints" / "student"
    model, tokenizer = models.load_from(folder, stage.config.model)
    spelled = {tag: tokenizer(tag, add_special_tokens=False)["input_ids"] for tag in template.TAGS}
    template.add_tags(tokenizer)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=8)
    ids = tokenizer.convert_tokens_to_ids(list(template.TAGS))
    matrices = [model.get_input_embeddings().weight]
    if not model.config.tie_word_embeddings:
        matrices.append(model.get_output_embeddings().weight)
    with torch.no_grad():
        for matrix in matrices:
            spread = matrix.std(0)
            for new, tag in zip(ids, template.TAGS, strict=True):
                matrix[new] = matrix[spelled[tag]].mean(0) + spread * torch.randn_like(spread)
    return models.attach_lora(model, stage.config.lora, ids), tokenizer


def training_arguments(stage: lab.StageRun, folder: str) -> SFTConfig:
    """TRL's arguments from the profile; batch_size counts rows of all ranks and accumulations."""
    settings = stage.settings
    arguments = SFTConfig(
        output_dir=str(stage.checkpoints / folder),
        max_steps=settings.steps,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        adam_beta2=settings.adam_beta2,
        max_grad_norm=1.0,
        logging_steps=settings.logging_steps,
        save_steps=settings.save_steps,
        save_total_limit=2,
        gradient_checkpointing=stage.config.model.gradient_checkpointing,
        seed=stage.seed,
        report_to=stage.report_to,
        use_cpu=not torch.cuda.is_available(),
        bf16=stage.config.model.bf16,
        disable_tqdm=True,
        max_length=None,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="sequential",
    )
    share = arguments.gradient_accumulation_steps * arguments.world_size
    if settings.batch_size % share:
        raise UserError(
            f"batch_size {settings.batch_size} does not divide into {share} parts (ranks times "
            "accumulation); choose a multiple."
        )
    arguments.per_device_train_batch_size = settings.batch_size // share
    return arguments


class Voters(TrainerCallback):
    """Keep the student as it is at some early steps: stage 04 chooses its voter among them."""

    def __init__(self, steps: list[int], folder: Path, config: SimpleNamespace):
        self.steps, self.folder, self.config = steps, folder, config

    def on_step_end(self, args, state, control, model, processing_class, **kwargs):
        if state.global_step in self.steps and state.is_world_process_zero:
            publish(model, processing_class, self.folder / str(state.global_step), self.config)


def train_arm(stage: lab.StageRun, arm: Arm, rows: list[dict], signals: list[uld.Signal]) -> None:
    """Train one arm and write its folder; nothing to do if the folder is there already."""
    folder, work = stage.checkpoints / arm.name, f"{arm.name}.training"
    if folder.is_dir():
        return
    torch.manual_seed(stage.seed)  # embedding rows beyond the tags are drawn, then the modules
    model, tokenizer = student(stage)
    arguments = training_arguments(stage, work)
    if arm.mtp:
        mtp.attach(model, stage.settings.mtp_depth)
    dataset, tables = examples(rows, tokenizer, signals, stage.settings.max_length)
    # laid down before training: both arms see the same batches, a resumed run the same remainder
    laid = batching.by_length(
        list(dataset), stage.settings.steps, stage.settings.batch_size, stage.seed
    )
    show = ("ce", "uld", "token_accuracy")
    callbacks = [stage.callback(arm.title, show, phase=arm.name)]
    if arm.mtp:
        callbacks.append(
            Voters(stage.settings.voter_steps, stage.checkpoints / "voters", stage.config.model)
        )
    trainer = DistillationTrainer(
        model,
        arguments,
        data_collator=Collator(tables, tokenizer.pad_token_id),
        train_dataset=Dataset.from_list(laid),
        processing_class=tokenizer,
        callbacks=callbacks,
        arm=arm,
        settings=stage.settings,
    )
    trainer.remove_callback(PrinterCallback)  # the stage's own callback shows the progress
    trainer.train(resume_from_checkpoint=lab.latest_checkpoint(arguments.output_dir))
    if stage.writes:
        if arm.mtp:
            mtp.save(model.mtp, stage.checkpoints / "mtp")
        publish(model, tokenizer, folder, stage.config.model)
        shutil.rmtree(arguments.output_dir)
    trainer.accelerator.wait_for_everyone()


def publish(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    config: SimpleNamespace,
) -> None:
    """Write a plain `from_pretrained` folder: no MTP modules, adapters merged; all or nothing."""
    if folder.is_dir():
        return
    part = folder.with_name(f".{folder.name}.part")
    plain = copy.deepcopy(model)  # training goes on with the original
    mtp.detach(plain)
    models.save(plain, tokenizer, part, config)
    part.rename(folder)


def compare(stage: lab.StageRun) -> dict[str, float]:
    """Forced think-on and think-off of every arm on the same held-out queries.

    Writes evaluation.jsonl (one row a sample, as `arms.run_arm`, and `student`, the arm's
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
    """Share of the MTP modules' drafts that the student would accept, on rows not trained on.

    Writes acceptance.jsonl: depth, mode, tokens, accepted.
    """
    model, tokenizer = models.load_from(stage.checkpoints / MTP_KD.name, stage.config.model)
    mtp.load(mtp.attach(model, stage.settings.mtp_depth), stage.checkpoints / "mtp")
    counts = []
    for mode in template.MODES:
        chosen = [row for row in held if row["mode"] == mode]
        dataset, tables = examples(chosen, tokenizer, None, stage.settings.max_length)
        batch = Collator(tables, tokenizer.pad_token_id)(list(dataset))
        tables = mtp.acceptance(model, batch["input_ids"], batch["attention_mask"], batch["labels"])
        for depth, table in enumerate(tables, start=1):
            tokens, accepted = int((table >= 0).sum()), int((table == 1).sum())
            counts.append({"depth": depth, "mode": mode, "tokens": tokens, "accepted": accepted})
    frame = pd.DataFrame(counts)
    frame.to_json(stage.dir / "acceptance.jsonl", orient="records", lines=True)
    share = frame.groupby("depth")["accepted"].sum() / frame.groupby("depth")["tokens"].sum()
    return {f"acceptance_{depth}": float(value) for depth, value in share.items()}
