"""Stage 05: Step-SRPO, one advantage for the decision and one for the answer (report section 4.2).

The report names two rewards and leaves the formulas to its companion paper HiPO (arXiv
2509.23967); `advantages` is our reading of both. `StepSRPOTrainer` overrides two methods of TRL's
GRPOTrainer: the rewards, already gathered over ranks, are kept, and the (B,) advantages are
replaced by (B, T) ones built from the judge's and the answer's token spans. The loss is TRL's.

Deviations: (1) the mode with too few samples in a group is not compared; (2) the normaliser has a
floor, so that a group in which every answer is right still prefers the cheaper mode, gently;
(3) accuracy is gated by the format (`format_mode = "gate"`), HiPO adds 0.2 x format
(`"additive"`): under group normalisation the bonus rewards well-formed wrong answers;
(4) SRPO's advantage of 0 for truncated responses follows from the gate: they cannot be right.

    metrics = step_srpo.train(stage)
"""

import json
import os
import random
from pathlib import Path

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from katlab import UserError, evaluation, models, template
from katlab.lab import latest_checkpoint
from katlab.lab.runs import Stage
from katlab.rewards import backends, grade
from katlab.synthesis import load_queries, read_jsonl, write_jsonl

FORMAT_MODES = ("gate", "additive", "off")


def combine(accuracy: torch.Tensor, form: torch.Tensor, format_mode: str) -> torch.Tensor:
    """One reward per completion from accuracy and format, both (N,) in {0, 1}; NaN stays NaN."""
    if format_mode not in FORMAT_MODES:
        raise ValueError(f"format_mode is {format_mode!r}, not one of {FORMAT_MODES}")
    if format_mode == "additive":
        return accuracy + 0.2 * form
    return accuracy * form if format_mode == "gate" else accuracy


def advantages(
    rewards: torch.Tensor,
    think_on: torch.Tensor,
    group_size: int,
    omega: float,
    gamma: float,
    std_floor: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Judge and answer advantages, both (N,), of N = groups x `group_size` completions.

    `rewards` is NaN where a completion is unscorable (both advantages 0, left out of all means),
    `think_on` is 1, 0, or NaN where no mode was chosen. With m_on, m_off the mean rewards of the
    modes in a group, b = omega m_on and m'_off = m_off + b if 0 <= m_on - m_off <= b:

        A_judge(i)  = (m'_M(i) - mean m' + gamma (r_i - mean r)) / max(std r, std_floor)
        A_answer(i) = (r_i - m_M(i)) / std(r | M(i))         (0 where the mode's rewards agree)

    (HiPO, our reading.) The first difference is 0 in a group that tried one mode only.
    """
    r = rewards.view(-1, group_size)  # (groups, G)
    known = ~r.isnan()
    on = (think_on.view(-1, group_size) == 1) & known
    off = (think_on.view(-1, group_size) == 0) & known
    r = r.nan_to_num()
    mean_on, mean_off, mean_all = _mean(r, on), _mean(r, off), _mean(r, known)  # (groups, 1)
    boost = omega * mean_on
    behind = mean_on - mean_off
    raised = torch.where((behind >= 0) & (behind <= boost), mean_off + boost, mean_off)
    compared = on.any(1, keepdim=True) & off.any(1, keepdim=True)
    value = torch.where(on, mean_on, raised) * (on | off)
    value = (value - _mean(value, on | off)) * (on | off) * compared
    spread = _std(r, known, mean_all).clamp(min=std_floor)
    judge = (value + gamma * (r - mean_all)) / spread * known
    within = torch.where(on, mean_on, torch.where(off, mean_off, mean_all))
    deviation = torch.where(on, _std(r, on, mean_on), _std(r, off, mean_off))
    answer = torch.where(deviation > 0, (r - within) / deviation.clamp(min=1e-6), 0.0) * (on | off)
    return judge.flatten(), answer.flatten()


def _mean(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (x * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)


def _std(x: torch.Tensor, mask: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    return _mean((x - mean) ** 2, mask).sqrt()


def spread(
    judge: torch.Tensor,
    answer: torch.Tensor,
    parsed: list[template.Parsed],
    length: int,
    judge_weight: float,
) -> torch.Tensor:
    """Token advantages (B, T): the judge's through the decision token, the answer's after it.

    `judge_weight` multiplies the judge's part, because the default loss divides by all tokens of
    the batch and the judge has few of them. A completion without a decision is all judge.
    """
    out = answer.unsqueeze(1).repeat(1, length)  # (B, T)
    for i, one in enumerate(parsed):
        out[i, : one.judge[1]] = judge_weight * judge[i]
    return out


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


def choose_queries(stage: Stage, model, tokenizer) -> list[dict]:
    """Pick the RL queries by what the model can do now without thinking (section 4.2.3).

    Each candidate is answered once with thinking forced off; those it misses are drawn with
    `hard_share` of the places, the rest keeps easy ones, which teach when not to think.
    """
    s = stage.settings
    total = s.steps * s.prompts_per_step
    candidates = load_queries(stage.config, s.candidates, stage.seed + 2, "train")
    bar = stage.bar(len(candidates), "what the model misses")
    frame = evaluation.run_arm(
        model,
        tokenizer,
        candidates,
        "off",
        max_new_tokens=s.max_completion_length,
        seed=stage.seed,
        on_batch=lambda done, total: bar.to(done),
    )
    bar.close()
    right = frame["correct"].eq(True).tolist()
    rng = random.Random(stage.seed)
    missed = right.count(False)
    each_hard, each_easy = s.hard_share / max(missed, 1), (1 - s.hard_share) / max(sum(right), 1)
    weights = [each_easy if ok else each_hard for ok in right]
    rows = rng.choices(candidates, weights=weights, k=total)
    stage.record(**{f"{kind}_verifier": name for kind, name in backends().items()})
    stage.record(missed_without_thinking=missed / len(candidates))
    return rows


def train(stage: Stage) -> dict[str, float]:
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
        max_completion_length=s.max_completion_length,
        temperature=s.temperature,
        learning_rate=s.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=s.warmup,
        adam_beta2=0.95,
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
