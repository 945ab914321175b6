"""The parts of the check: each goes through a stage's own function and returns its figures.

python -m katlab.gpu_check.parts FOLDER PROFILE weights full   # a line per part in parts.jsonl
"""

import gc
import json
import statistics
import sys
import time
import traceback
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch

from katlab import UserError, models, speed, template
from katlab.cold_start import stage as cold_start
from katlab.generation import engines, vllm_engine
from katlab.gpu_check import planned
from katlab.gpu_check.bench import Bench
from katlab.gpu_check.busy import Busy
from katlab.lab import StageRun, write_jsonl
from katlab.mtp_distillation import dataset, signals
from katlab.mtp_distillation import stage as distillation
from katlab.scaling_plan import planner
from katlab.sizes import parameters
from katlab.step_srpo import stage as step_srpo
from katlab.step_srpo.trainer import PHASES
from katlab.tasks.nano import world

FOUND = "parts.jsonl"


def weights(bench: Bench) -> dict[str, Any]:
    """Make what the other parts work on."""
    bench.write()
    shape = bench.shapes[1]
    return {
        "device": speed.device(),
        "layers": shape["num_hidden_layers"],
        "parameters": parameters(shape)["total"],
    }


def variant(bench: Bench, kind: str) -> dict[str, Any]:
    """A step of fine-tuning in full, with LoRA or QLoRA, beside what the planner expects of it.

    Rows of one length, layers checkpointed, as the planner has it; an error is (measured - planned)
    / planned. The planned seconds are the planner's at the profile's [scaling_plan] mfu.
    """
    sizes = bench.sizes
    given = {
        "lora__enabled": kind != "full",
        "model__quantize": "4bit" if kind == "qlora" else "none",
        "model__gradient_checkpointing": True,
        "cold_start__batch_size": sizes.rows,
        "cold_start__trainer.per_device_train_batch_size": sizes.rows,
        "cold_start__replay_share": 0.0,
    }
    stage = bench.stage(kind, "04_cold_start", **given)
    shown = world.queries(sizes.steps * sizes.rows, seed=1, split="stage_2")
    cold_start.train(stage, [bench.row(row, sizes.length) for row in shown])
    return trained(bench, stage)


def sft(bench: Bench) -> dict[str, Any]:
    """The cold start's fine-tuning, as the profile has it."""
    stage = bench.stage("sft", "04_cold_start")
    cold_start.train(stage, bench.rows())
    return trained(bench, stage)


def distil(bench: Bench) -> dict[str, Any]:
    """MTP distillation from the parent, which reads along, as the profile has it."""
    stage = bench.stage("distillation", "03_mtp_distillation")
    rows, _ = signals.split(stage)
    tokenizer = models.tokenizer(distillation.start(stage))
    template.add_tags(tokenizer)
    along = signals.readers(stage, tokenizer)
    columns, tables, _ = dataset.build(rows, tokenizer, None, stage.settings.max_length, along)
    distillation.train_arm(stage, distillation.MTP_KD, columns, tables, along)
    more = {"reader": bench.shapes[0], "modules": stage.settings.mtp_depth}
    return trained(bench, stage, chunk=stage.settings.head_chunk, **more)


def trained(bench: Bench, stage: StageRun, chunk: int = 0, **more: Any) -> dict[str, Any]:
    """What a stage noted of its training, per step but the first, beside what was planned for it.

    `chunk` and `more` are the planner's, of what is beside the student in a step.
    """
    noted, rows = speed.of(stage.dir)["training"], stage.settings.batch_size
    steps = max(1, stage.settings.steps - 1)
    found = {
        "step_s": round(noted["seconds"] / steps, 3),
        "tokens_per_step": round(noted["tokens"] / steps, 1),
        "rows_per_step": rows,
        "tokens_per_s": noted["tokens_per_s"],
        "mfu": noted["mfu"],
        "peak_gib": _memory(),
    }
    time = planned.seconds(bench, stage, found["step_s"], found["tokens_per_step"], rows, **more)
    return found | time | planned.memory(bench, stage, found, chunk=chunk, **more)


def rollouts(bench: Bench) -> dict[str, Any]:
    """Replies of half the length of Step-SRPO's, by vLLM (tiny: transformers), drawn twice."""
    engine = "transformers" if bench.tiny else "vllm"
    stage = bench.stage("rollouts", "05_step_srpo", model__engine=engine)
    folder = stage.upstream("04_cold_start") / "checkpoints" / "student"
    model, tokenizer = models.load_from(folder, stage.config.model)
    shown = world.queries(bench.sizes.prompts, seed=2, split="rl")
    asked = [template.prompt(tokenizer, row["messages"]) for row in shown]
    for seed in range(2):  # the first time warms up
        begun = speed.now()
        replies = engines.sample(
            stage.config.model, model, tokenizer, asked,
            max_new_tokens=max(1, bench.sizes.reply // 2), seed=seed,
        )  # fmt: skip
        took = speed.now() - begun
    tokens = sum(map(len, replies))
    return {
        "engine": engine,
        "tokens_per_s": round(tokens / took),
        "prompts": len(asked),
        "tokens": tokens,
        "seconds": round(took, 2),
        "start_s": round(vllm_engine.starts(), 1),
    }


def reinforce(bench: Bench) -> dict[str, Any]:
    """A step of Step-SRPO by phase, and the share of the time that the GPU is busy in it."""
    sizes, given = bench.sizes, {}
    if bench.tiny:
        given = {"step_srpo__prompts_per_step": 2, "step_srpo__trainer.num_generations": 4}
        given |= {"step_srpo__trainer.per_device_train_batch_size": 4}
    stage = bench.stage(
        "step_srpo", "05_step_srpo",
        step_srpo__steps=sizes.rl_steps,
        **{
            "step_srpo__trainer.use_vllm": not bench.tiny,
            "step_srpo__trainer.max_completion_length": sizes.reply,
            **given,
        },
    )  # fmt: skip
    shown = world.queries(40, seed=3, split="rl")
    candidates = [row | {"correct": i % 2 == 0} for i, row in enumerate(shown)]
    write_jsonl(stage.dir / "candidates.jsonl", candidates)
    source = stage.upstream("04_cold_start") / "checkpoints" / "student"
    begun = time.perf_counter()
    with Busy(stage) as busy:
        step_srpo.train(stage, source)
    took = time.perf_counter() - begun
    steps = [row for row in stage.metrics() if "seconds/training" in row]
    phases = {
        f"{phase}_s": round(statistics.mean(row[f"seconds/{phase}"] for row in steps[1:]), 2)
        for phase in PHASES
    }
    noted = speed.of(stage.dir)
    whole = sum(phases.values())
    drawn = stage.settings.prompts_per_step * stage.settings.trainer.num_generations
    tokens = noted["training"]["tokens"] / max(1, len(steps) - 1)
    told = planned.seconds(bench, stage, phases["training_s"], tokens, drawn, scored=True)
    return {
        "step_s": round(whole, 2),
        **phases,
        "planned_training_s": told["planned_step_s"],
        "training_error": told["step_error"],
        "rollouts": drawn,
        "tokens_each": round(steps[-1]["completions/mean_length"], 1),
        "rollout_tokens_per_s": noted["sampling"]["rollouts"]["tokens_per_s"],
        "mfu": noted["training"]["mfu"],
        "gpu_busy": busy.share,
        "start_s": round(took - whole * len(steps), 1),
        "peak_gib": _memory(),
    }


PARTS = {
    "weights": weights,
    "full": lambda bench: variant(bench, "full"),
    "lora": lambda bench: variant(bench, "lora"),
    "qlora": lambda bench: variant(bench, "qlora"),
    "sft": sft,
    "distillation": distil,
    "rollouts": rollouts,
    "step_srpo": reinforce,
}


def measure(bench: Bench, name: str) -> dict[str, Any]:
    """A part's figures and its seconds, or its `error` in one sentence; the log has the rest."""
    begun = time.perf_counter()
    _forget()
    try:
        with redirect_stdout(sys.stderr):  # what is printed is the check's own
            found = PARTS[name](bench)
    except Exception as error:  # whatever it is, the other parts go on
        traceback.print_exc()
        told = (str(error).strip().splitlines() or ["no message"])[0]
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        found = {"error": kind + told}
    bench.remove(name)
    return found | {"part_s": round(time.perf_counter() - begun, 1)}


def _forget() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _memory() -> float | None:
    """GiB that torch had allocated at most since the part began; None on a CPU."""
    if not torch.cuda.is_available():
        return None
    return round(torch.cuda.max_memory_allocated() / planner.GIB, 2)


def main(folder: Path, profile: str, names: list[str]) -> None:
    """Measure these parts on the bench in a folder; each is written as soon as it is known."""
    bench = Bench(folder, profile)
    for name in names:
        print(f"-- {name}", flush=True)
        found = measure(bench, name)
        with (folder / FOUND).open("a", encoding="utf-8") as file:
            file.write(json.dumps({name: found}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
