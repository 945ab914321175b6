"""Stage 05: Step-SRPO on TRL's GRPOTrainer (report section 4.2), and what it changed.

figures = stage.run(stage)
"""

import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from datasets import Dataset
from transformers import set_seed

from katlab import adapters, arms, models, speed, template
from katlab.generation import vllm_engine
from katlab.intervals import paired_difference
from katlab.lab import StageRun, latest_checkpoint, read_jsonl, training, work, write_jsonl
from katlab.rewards import backends
from katlab.step_srpo.alarm import JudgeAlarm
from katlab.step_srpo.config import OWN, StepSRPOConfig
from katlab.step_srpo.queries import ask, counts, lay_out
from katlab.step_srpo.trainer import PHASES, StepSRPOTrainer
from katlab.tasks import queries

SHOWN = {  # while it trains
    "reward": "reward",
    "rewards/think_on/mean": "think-on rate",
    "completions/mean_length": "tokens per reply",
    "judge_agreement": "judge names its mode",
}


@work
def run(stage: StageRun) -> dict[str, float]:
    """Train from the cold-start student, then sample both students on held-out queries.

    Makes candidates.jsonl (what the cold start gets right without thinking), rollouts.jsonl,
    checkpoints/student, evaluation.jsonl and forced.jsonl (`arms.run_arm`'s columns, `cluster` and
    `student`: before or after), the model deciding and both modes forced. Returns the headline
    figures.
    """
    source = stage.upstream("04_cold_start") / "checkpoints" / "student"
    trained = train(stage, source)
    held_out = stage.kept("evaluation.jsonl", lambda: evaluate(stage, source))
    stage.kept("forced.jsonl", lambda: evaluate(stage, source, ("on", "off")))
    stage.record(**{f"{kind}_verifier": name for kind, name in backends().items()})
    return trained | changes(pd.DataFrame(held_out))


def train(stage: StageRun, source: Path) -> dict[str, float]:
    """Run Step-SRPO; saves checkpoints/student and every rollout.

    An optimizer step takes prompts_per_step x num_generations rollouts over all ranks. All queries
    fit one epoch and checkpoints fall on generation boundaries, so a run that was cut off continues
    bitwise from its last complete checkpoint.
    """
    s, settings = stage.settings, arguments(stage)  # mistakes show before anything is sampled
    model, tokenizer = models.load_for_training(source, stage.config.model, stage.config.lora)
    candidates = stage.kept("candidates.jsonl", lambda: ask(stage, model, tokenizer))
    seed = stage.seed + s.seed_offset
    chosen = lay_out(candidates, s.hard_share, s.steps, s.prompts_per_step, seed)
    rows = [
        {
            "prompt": template.prompt(tokenizer, row["messages"], row["tools"]),
            "reference": json.dumps(row["reference"]),
            **{key: row[key] for key in ("id", "category", "difficulty", "verifier")},
        }
        for row in chosen
    ]
    set_seed(seed)  # adapters are drawn, whether or not candidates were sampled before
    trained = adapters.attach(model, stage.config.lora)
    if settings.use_vllm:  # TRL starts its vLLM from here, and finds what vLLM compiled before
        model.name_or_path = vllm_engine.steady(model)
        own_port()
    trainer = StepSRPOTrainer(
        trained,
        settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[stage.callback("Step-SRPO", show=SHOWN), JudgeAlarm()],
        rollouts=stage.dir / "rollouts.jsonl",
        names_mode=stage.config.prompts.rationale_pattern,
    )
    checkpoint = latest_checkpoint(settings.output_dir)
    if trainer.is_world_process_zero():
        forget_rollouts(trainer.rollouts, int(checkpoint.rpartition("-")[2]) if checkpoint else 0)
    trainer.accelerator.wait_for_everyone()
    steps = training.train(trainer).global_step
    note_speed(stage, trainer)
    if trainer.is_world_process_zero():
        models.save(trainer.model, tokenizer, stage.checkpoints / "student", stage.config.model)
    return {"steps": steps, **counts(candidates)}


def own_port() -> None:
    """Give the process group of TRL's vLLM a port that the system has free, unless one is set.

    TRL tries the same few ports in every process, so of two runs that start on one machine, a GPU
    each, the second would fail ("address already in use").
    """
    if "MASTER_PORT" not in os.environ:  # a launcher sets it
        with socket.socket() as free:
            free.bind(("", 0))
            os.environ["MASTER_PORT"] = str(free.getsockname()[1])


def arguments(stage: StageRun) -> StepSRPOConfig:
    """The trainer's arguments: ours from [step_srpo], TRL's own from [step_srpo.trainer]."""
    s = stage.settings
    return training.arguments(
        stage,
        StepSRPOConfig,
        batch_size=s.prompts_per_step * s.trainer.num_generations,
        seed=stage.seed + s.seed_offset,
        output_dir=str(stage.checkpoints / "rl"),
        shuffle_dataset=False,  # `lay_out` has ordered the queries
        logging_steps=1,
        **{name: value for name, value in vars(s).items() if name in OWN},
    )


def note_speed(stage: StageRun, trainer: StepSRPOTrainer) -> None:
    """Note the rollouts and the training of the steps just made, the first left out if it can be.

    Tokens are those of this rank times the ranks.
    """
    done, ranks = trainer.steps[:-1], trainer.accelerator.num_processes
    steps = done[1:] or done
    if not steps or not stage.writes:
        return
    spent = {phase: sum(step[phase] for step in steps) for phase in PHASES}
    drawn = ranks * sum(step["drawn"] for step in steps)
    speed.note(stage.dir, "sampling", "rollouts", drawn, spent["generation"])
    lengths = ranks * [length for step in steps for length in step["lengths"]]
    speed.trained(stage, "step_srpo", trainer.model, lengths, spent["training"])


def forget_rollouts(path: Path, step: int) -> None:
    """Drop the rollouts of `step` and later: a resumed training writes them again."""
    if path.is_file():
        write_jsonl(path, [row for row in read_jsonl(path) if row["step"] < step])


def evaluate(stage: StageRun, source: Path, modes: Sequence[str] = ("auto",)) -> list[dict]:
    """Both students' samples in each arm, on held-out queries of which stage 06 has none."""
    s, config = stage.settings, stage.config
    held_out = queries.load(config, s.eval_prompts, stage.seed, "validation")
    problems = {row["id"]: queries.kin(config, row) for row in held_out}
    frames = []
    for student, folder in (("before", source), ("after", stage.checkpoints / "student")):
        model, tokenizer = models.load_from(folder, config.model)
        for arm in modes:
            told = "on held-out queries" if arm == "auto" else f"forced {arm}"
            frame = arms.run_arm(
                stage,
                model,
                tokenizer,
                held_out,
                arm,
                max_new_tokens=s.trainer.max_completion_length,
                title=f"{student}, {told}",
            )
            frames.append(frame.assign(student=student, cluster=frame["id"].map(problems)))
    return json.loads(pd.concat(frames).to_json(orient="records"))


def changes(evaluation: pd.DataFrame) -> dict[str, float]:
    """What training changed on the held-out queries; the last figures are the ones to look at."""
    before, after = students(evaluation)
    by_difficulty = after.groupby("difficulty")["thinks"].mean()
    return {
        "well_formed": after["well_formed"].mean(),
        "think_on_easiest": by_difficulty.iloc[0],
        "think_on_hardest": by_difficulty.iloc[-1],
        "accuracy": after["correct"].astype(float).mean(),
        "accuracy_change": paired_difference(after, before, "correct")[0],
        "think_on_rate": after["thinks"].mean(),
        "tokens_saved": 1 - after["tokens"].mean() / before["tokens"].mean(),
    }


def students(evaluation: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The samples before and after, with the columns of `arms.with_flags`."""
    rows = arms.with_flags(evaluation)
    return rows[rows["student"] == "before"], rows[rows["student"] == "after"]
