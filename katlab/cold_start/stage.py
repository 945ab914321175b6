"""Stage 04: the model learns to choose a mode by itself (report section 4.1).

Votes (`cold_start.votes`) say for every query whether thinking pays. The teacher of that mode
writes the response, the think-off teacher writes a rationale for the mode, 1 % of the queries get a
random mode, and TRL's SFTTrainer learns Table 2's layout.

Deviations: (1) a rationale that does not name its mode, or names the other one, is dropped and
counted; (2) a share of queries carries a directive in words ("Do not think."), whose mode is obeyed
(section 6.4); (3) a share of the rows trained on replays Stage 1's direct answers behind a given
decision, or a small model forgets how to answer directly; (4) under LoRA the tags' embedding rows
stay as stage 03 trained them: TRL's fused head takes no wrapped `lm_head`. How the votes differ
stands in `cold_start.votes`.

    metrics = stage.run(stage)
"""

import random
from pathlib import Path

from datasets import Dataset
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

from katlab import UserError, batching, models
from katlab.cold_start.corpus import direct, encode, mix, randomize, respond
from katlab.cold_start.rationale import rationalize
from katlab.cold_start.votes import choose_voter, stratify, vote
from katlab.lab import StageRun, latest_checkpoint
from katlab.lab.rows import read_jsonl, write_jsonl
from katlab.rewards import backends
from katlab.tasks import queries
from katlab.teachers import LocalResponder


def build_corpus(stage: StageRun) -> None:
    """Vote, stratify, randomise, answer and explain; writes votes.jsonl and corpus.jsonl."""
    s, config = stage.settings, stage.config
    asked = queries.load(config, s.queries, stage.seed + 1, "train")  # unseen in Stage 1
    voter = choose_voter(stage, asked[: s.voter_probe])
    model, tokenizer = models.load_from(voter, config.model)
    voted = vote(stage, asked, model, tokenizer)
    write_jsonl(stage.dir / "votes.jsonl", voted)
    stage.log(phase="votes", queries=len(voted))
    weights = stratify(voted, s.think_on_share)
    rng = random.Random(stage.seed)
    n = min(s.rows, *(_available(voted, d, w) for d, w in weights.items() if w > 0.01))
    chosen = []
    for difficulty, weight in weights.items():
        pool = [row for row in voted if row["difficulty"] == difficulty]
        chosen += rng.sample(pool, min(len(pool), round(n * weight)))
    rng.shuffle(chosen)
    chosen = randomize(chosen, s.random_share, stage.seed)
    chosen = direct(chosen, s.directive_share, s.think_on_share, stage.seed)
    off = LocalResponder(Path(config.model.teacher_off), s.max_new_tokens, stage)
    on = LocalResponder(Path(config.model.teacher_on), s.max_new_tokens, stage)
    answered = respond(chosen, off, on, stage.seed)
    stage.log(phase="responses", asked=len(chosen), kept=len(answered))
    corpus, contradictions = rationalize(answered, off)
    rng.shuffle(corpus)
    write_jsonl(stage.dir / "corpus.jsonl", corpus)
    n_on = sum(row["mode"] == "on" for row in corpus)
    stage.record(
        **{f"{kind}_verifier": name for kind, name in backends().items()},
        rows=len(corpus),
        on_to_off=n_on / max(1, len(corpus) - n_on),
        random_mode_share=sum("random_mode" in row for row in corpus) / len(corpus),
        contradictions=contradictions / len(answered),
    )


def _available(rows: list[dict], difficulty: int, weight: float) -> int:
    return int(sum(row["difficulty"] == difficulty for row in rows) / weight)


def run(stage: StageRun) -> dict[str, float]:
    """Build the corpus (if it is not there) and fine-tune the student on it."""
    if not (stage.dir / "corpus.jsonl").is_file():
        build_corpus(stage)
    return train(stage)


def train(stage: StageRun) -> dict[str, float]:
    """Fine-tune the distilled student on corpus.jsonl; saves checkpoints/student.

    Resumes from the last complete checkpoint of a run that was cut off.
    """
    s, config = stage.settings, stage.config
    source = stage.upstream("03_mtp_distillation") / "checkpoints" / "student"
    model, tokenizer = models.load_from(source, config.model)
    corpus = read_jsonl(stage.dir / "corpus.jsonl")
    stage_1 = read_jsonl(stage.upstream("02_dual_regime_data") / "corpus.jsonl")
    direct_answers = [row for row in stage_1 if row["mode"] == "off"]
    if s.replay_share and not direct_answers:
        raise UserError("Stage 1 has no direct answers; set cold_start.replay_share to 0.")
    per_step = s.batch_size * s.gradient_accumulation
    mixed = mix(corpus, direct_answers, s.replay_share, s.steps * per_step, stage.seed)
    rows = [encode(tokenizer, row) for row in mixed]
    rows = batching.by_length(rows, s.steps, per_step, stage.seed)
    arguments = SFTConfig(
        output_dir=str(stage.checkpoints / "sft"),
        max_steps=s.steps,
        per_device_train_batch_size=s.batch_size,
        gradient_accumulation_steps=s.gradient_accumulation,
        learning_rate=s.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=s.warmup,
        adam_beta2=s.adam_beta2,
        max_length=s.max_length,
        completion_only_loss=True,  # the default looks for a column "prompt" and finds none
        train_sampling_strategy="sequential",
        gradient_checkpointing=config.model.gradient_checkpointing,
        bf16=config.model.bf16,
        logging_steps=s.logging_steps,
        save_steps=s.save_steps,
        save_total_limit=1,
        report_to=stage.report_to,
        seed=stage.seed,
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=models.attach_lora(model, config.lora),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[stage.callback("cold start", show=("loss", "mean_token_accuracy"))],
    )
    trainer.remove_callback(PrinterCallback)  # the stage's own callback shows the progress
    result = trainer.train(resume_from_checkpoint=latest_checkpoint(stage.checkpoints / "sft"))
    if trainer.is_world_process_zero():
        models.save(trainer.model, tokenizer, stage.checkpoints / "student")
    return {"train_loss": result.training_loss, "steps": result.global_step}
