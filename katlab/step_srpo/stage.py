"""Stage 05: Step-SRPO on TRL's GRPOTrainer (report section 4.2).

`StepSRPOTrainer` overrides two methods: the rewards, already gathered over ranks, are kept, and the
(B,) advantages are replaced by (B, T) ones built from the judge's and the answer's token spans
(`katlab.segment_advantages` has the formulas and our deviations). The loss is TRL's.

    metrics = stage.run(stage)
"""

import json
import os
from pathlib import Path

from datasets import Dataset
from transformers import PrinterCallback
from trl import GRPOConfig

from katlab import UserError, models, template
from katlab.lab import StageRun, latest_checkpoint, work
from katlab.lab.rows import read_jsonl, write_jsonl
from katlab.step_srpo.queries import choose_queries
from katlab.step_srpo.trainer import StepSRPOTrainer, rewards_for


@work
def run(stage: StageRun) -> dict[str, float]:
    """Run Step-SRPO from the cold-start student; saves checkpoints/student and rollouts.jsonl.

    All queries fit one epoch and checkpoints fall on generation boundaries, so a run that was cut
    off continues bitwise from its last complete checkpoint.
    """
    s, config = stage.settings, stage.config.model
    source = stage.upstream("04_cold_start") / "checkpoints" / "student"
    model, tokenizer = models.load_from(source, config)
    tokenizer.padding_side = "left"
    queries = stage.dir / "queries.json"
    if not queries.is_file():
        queries.write_text(json.dumps(choose_queries(stage, model, tokenizer)))
    rows = [
        {
            "prompt": template.prompt(tokenizer, row["messages"], row["tools"]),
            "reference": json.dumps(row["reference"]),
            **{key: row[key] for key in ("id", "category", "difficulty", "verifier")},
        }
        for row in json.loads(queries.read_text())
    ]
    rollouts = s.prompts_per_step * s.num_generations
    together = s.batch_size * int(os.environ.get("WORLD_SIZE", "1"))
    if rollouts % together:
        raise UserError(
            f"{rollouts} rollouts a step do not divide into batches of {together} over all ranks; "
            "change step_srpo.batch_size"
        )
    arguments = GRPOConfig(
        output_dir=str(stage.checkpoints / "rl"),
        max_steps=s.steps,
        per_device_train_batch_size=s.batch_size,
        gradient_accumulation_steps=rollouts // together,
        num_generations=s.num_generations,
        shuffle_dataset=False,  # `lay_out` has ordered the queries
        max_completion_length=s.max_completion_length,
        temperature=s.temperature,
        learning_rate=s.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=s.warmup,
        adam_beta2=s.adam_beta2,
        beta=s.beta,
        epsilon=s.epsilon,
        loss_type=s.loss_type,
        reward_weights=[1.0, 0.2, 0.0],
        use_vllm=s.use_vllm,
        gradient_checkpointing=config.gradient_checkpointing,
        bf16=config.bf16,
        logging_steps=1,
        save_steps=s.save_steps,
        save_total_limit=1,
        report_to=stage.report_to,
        seed=stage.seed,
        disable_tqdm=True,
    )
    trainer = StepSRPOTrainer(
        model=models.attach_lora(model, stage.config.lora),
        args=arguments,
        reward_funcs=rewards_for(tokenizer),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[stage.callback("Step-SRPO", show=SHOWN)],
        settings=s,
        rollouts=stage.dir / "rollouts.jsonl",
    )
    trainer.remove_callback(PrinterCallback)  # the stage's own callback shows the progress
    checkpoint = latest_checkpoint(stage.checkpoints / "rl")
    if trainer.is_world_process_zero():
        forget_rollouts(trainer.rollouts, int(checkpoint.rpartition("-")[2]) if checkpoint else 0)
    trainer.accelerator.wait_for_everyone()
    result = trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.is_world_process_zero():
        models.save(trainer.model, tokenizer, stage.checkpoints / "student", config)
    return {"steps": result.global_step, "train_loss": result.training_loss}


def forget_rollouts(path: Path, step: int) -> None:
    """Drop the rollouts of `step` and later: a resumed training writes them again."""
    if path.is_file():
        write_jsonl(path, [row for row in read_jsonl(path) if row["step"] < step])


SHOWN = ("rewards/accuracy/mean", "rewards/think_on/mean", "completions/mean_length")
