"""Stage 05: Step-SRPO on TRL's GRPOTrainer (report section 4.2).

`StepSRPOTrainer` overrides two methods: the rewards, already gathered over ranks, are kept, and the
(B,) advantages are replaced by (B, T) ones built from the judge's and the answer's token spans
(`katlab.segment_advantages` has the formulas and our deviations). The loss is TRL's.

    metrics = step_srpo.train(stage)
"""

import json
import os
import random
from itertools import islice
from pathlib import Path

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from katlab import UserError, batching, evaluation, models, template
from katlab.lab import latest_checkpoint
from katlab.lab.runs import StageRun
from katlab.rewards import backends, grade
from katlab.segment_advantages import advantages, combine, spread
from katlab.synthesis import load_queries, read_jsonl, write_jsonl


class StepSRPOTrainer(GRPOTrainer):
    """GRPO with segment advantages; `settings` has omega, gamma, std_floor, judge_weight and
    format_mode. Its reward functions must be those of `rewards_for`, in their order."""

    def __init__(self, *args, settings, rollouts: Path, **kwargs):
        super().__init__(*args, **kwargs)
        self.settings, self.rollouts = settings, rollouts
        self.tags = template.Tags.of(self.processing_class)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        self._columns = super()._calculate_rewards(
            inputs, prompts, completions, completion_ids_list
        )  # (world x B, 3), gathered, in group order
        return self._columns

    def _generate_and_score_completions(self, inputs):
        out = super()._generate_and_score_completions(inputs)
        accuracy, form, think_on = self._columns.unbind(1)
        s = self.settings
        judge, answer = advantages(
            combine(accuracy, form, s.format_mode),
            think_on,
            self.num_generations if self.model.training else self.num_generations_eval,
            s.omega,
            s.gamma,
            s.std_floor,
        )
        rank, size = self.accelerator.process_index, len(inputs)
        mine = slice(rank * size, (rank + 1) * size)
        ids, mask = out["completion_ids"], out["completion_mask"].bool()
        rows = [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)]
        parsed = [template.parse(row, self.tags) for row in rows]
        out["advantages"] = spread(
            judge[mine], answer[mine], parsed, ids.shape[1], s.judge_weight
        ).to(out["advantages"].dtype)
        columns = torch.stack([accuracy, judge, answer], dim=1)[mine].tolist()
        self._write_rollouts(inputs, rows, parsed, columns)
        return out

    def _write_rollouts(self, inputs, rows, parsed, columns) -> None:
        """Append this rank's rollouts: the query, the mode, the verdict, both advantages."""
        texts = self.processing_class.batch_decode(rows)
        lines = []
        for row, text, one, (right, judge, answer) in zip(
            inputs, texts, parsed, columns, strict=True
        ):
            record = {
                "step": self.state.global_step,
                **{key: row[key] for key in ("id", "category", "difficulty")},
                "mode": one.mode,
                "problem": one.problem,
                "correct": None if right != right else bool(right),
                "tokens": one.length,
                "advantage_judge": round(judge, 4),
                "advantage_answer": round(answer, 4),
                "completion": text,
            }
            lines.append(json.dumps(record) + "\n")
        with self.rollouts.open("a", encoding="utf-8") as file:
            file.write("".join(lines))  # one write: ranks append to the same file


def rewards_for(tokenizer: PreTrainedTokenizerBase) -> list:
    """The three columns StepSRPOTrainer reads: accuracy, well-formedness, and the mode chosen.

    The mode is no reward (its weight is 0); as a column it is gathered over ranks with the others.
    """
    tags = template.Tags.of(tokenizer)

    def accuracy(completion_ids, verifier, reference, difficulty, log_metric, **_):
        parsed = [template.parse(ids, tags) for ids in completion_ids]
        spans = [one.answer or (0, 0) for one in parsed]
        answers = [
            tokenizer.decode(ids[start:end]).strip()
            for ids, (start, end) in zip(completion_ids, spans, strict=True)
        ]
        rows = zip(verifier, answers, map(json.loads, reference), strict=True)
        verdicts = [verdict.correct for verdict in grade(rows)]
        for level in (1, 2, 3, 4, 5):
            here = [one for one, d in zip(parsed, difficulty, strict=True) if d == level]
            if here:
                log_metric(f"think_on/level_{level}", sum(p.mode == "on" for p in here) / len(here))
        return [None if correct is None else float(correct) for correct in verdicts]

    def well_formed(completion_ids, **_):
        return [float(template.parse(ids, tags).problem is None) for ids in completion_ids]

    def think_on(completion_ids, **_):
        modes = [template.parse(ids, tags).mode for ids in completion_ids]
        return [None if mode is None else float(mode == "on") for mode in modes]

    return [accuracy, well_formed, think_on]


def choose_queries(stage: StageRun, model, tokenizer) -> list[dict]:
    """Pick the RL queries by what the model can do now without thinking (section 4.2.3).

    Each candidate is answered once with thinking forced off; `lay_out` draws from those it misses
    and those it gets right, which teach when not to think.
    """
    s = stage.settings
    candidates = load_queries(stage.config, s.candidates, stage.seed + 2, "train")
    bar = stage.bar(len(candidates), "what the model misses")
    frame = evaluation.run_arm(
        model,
        tokenizer,
        candidates,
        "off",
        max_new_tokens=s.max_completion_length,
        temperature=s.temperature,
        top_p=1.0,
        seed=stage.seed,
        batch_size=stage.config.model.sample_batch,
        on_batch=lambda done, total: bar.to(done),
    )
    bar.close()
    right = frame["correct"].eq(True).tolist()
    stage.record(**{f"{kind}_verifier": name for kind, name in backends().items()})
    stage.record(missed_without_thinking=right.count(False) / len(right))
    missed = [row for row, ok in zip(candidates, right, strict=True) if not ok]
    known = [row for row, ok in zip(candidates, right, strict=True) if ok]
    return lay_out(missed, known, s.hard_share, s.steps, s.prompts_per_step, stage.seed)


def lay_out(
    missed: list[dict], known: list[dict], hard_share: float, steps: int, size: int, seed: int
) -> list[dict]:
    """`steps * size` queries in order; every step has the same share of missed ones.

    A step of hard queries alone pushes every decision to think-on, one of easy ones to think-off:
    with few queries a step that swing is larger than what is learned. No query comes again before
    all of its kind have.
    """
    rng = random.Random(seed)
    hard = round(hard_share * size)
    if not (missed and known):  # one kind fills the places of both
        hard = size if missed else 0
    missed, known = batching.passes(missed, rng), batching.passes(known, rng)
    rows = []
    for _ in range(steps):
        rows += islice(missed, hard)
        rows += islice(known, size - hard)
    return rows


def train(stage: StageRun) -> dict[str, float]:
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
        models.save(trainer.model, tokenizer, stage.checkpoints / "student")
    return {"steps": result.global_step, "train_loss": result.training_loss}


def forget_rollouts(path: Path, step: int) -> None:
    """Drop the rollouts of `step` and later: a resumed training writes them again."""
    if path.is_file():
        write_jsonl(path, [row for row in read_jsonl(path) if row["step"] < step])


SHOWN = ("rewards/accuracy/mean", "rewards/think_on/mean", "completions/mean_length")
