"""What this machine's GPU makes of a profile: rollouts, training steps, Step-SRPO; prints JSON.

A random model of the profile's shape, deepened as stage 01 deepens it, goes through the stages' own
training functions in a folder of no run; no weights are fetched. MFU counts the matrices of the
model, not those of the MTP modules, and is of a whole training, its first steps and its saving
included. Without a GPU it runs all the same, and what only a GPU has is null.

    make gpu-check PROFILE=proxy-1.5b
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from types import SimpleNamespace

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from katlab import UserError, batching, models, template
from katlab.cold_start import stage as cold_start
from katlab.generation import engines
from katlab.lab import StageRun, write_jsonl
from katlab.mtp_distillation import stage as distillation
from katlab.mtp_distillation.signals import examples
from katlab.scaling_plan import planner
from katlab.sizes import flops_per_token, parameters
from katlab.step_srpo import stage as step_srpo
from katlab.tasks.nano import world

ROOT = Path(__file__).parents[1]
TOKENIZER = ROOT / "data_samples" / "nano" / "base"  # any will do: its ids are among the model's


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="proxy-1.5b")
    parser.add_argument("--steps", type=int, default=12, help="of each training")
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=256, help="of a rollout, at most")
    parser.add_argument("--length", type=int, default=512, help="of a training row, at most")
    options = parser.parse_args(given)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(check(Path(folder), options)))


def check(root: Path, options: argparse.Namespace) -> dict:
    """All figures, one phase after the other in a run of no project."""
    _, shape = planner.architecture(options.profile)
    first = _stage(root, "01_layer_saturation", options)
    student = first.checkpoints / "student"
    _write_random(shape, student, first.config.model)
    first.finish()
    found: dict = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "profile": options.profile,
        "parameters": parameters(shape)["total"],
        "rollout_tokens_per_s": rollouts(student, first.config.model, options),
    }
    found["training"] = {
        "03_mtp_distillation": _measured(shape, _distil(root, options), options),
        "04_cold_start": _measured(shape, _cold_start(root, options), options),
    }
    found["05_step_srpo"] = reinforce(root, options)
    return found


def rollouts(folder: Path, config: SimpleNamespace, options: argparse.Namespace) -> dict:
    """Tokens per second of each engine, the second time; a sentence where there is no engine."""
    model, tokenizer = models.load_from(folder, config)
    asked = [template.prompt(tokenizer, row["messages"]) for row in _rows(options.prompts, "eval")]
    found: dict = {}
    for engine in ("transformers", "vllm"):
        how = SimpleNamespace(**vars(config) | {"engine": engine})
        try:
            for seed in range(2):
                begun = time.perf_counter()
                replies = engines.sample(
                    how, model, tokenizer, asked, max_new_tokens=options.tokens, seed=seed
                )
                took = time.perf_counter() - begun
            found[engine] = round(sum(map(len, replies)) / took)
        except UserError as lack:
            found[engine] = str(lack)
    return found


def _distil(root: Path, options: argparse.Namespace) -> tuple[StageRun, float, list[int]]:
    """(stage, seconds, lengths of the rows trained on) of MTP+KD's training, teachers left out."""
    corpus = _stage(root, "02_dual_regime_data", options)
    rows = _answered(options)
    write_jsonl(corpus.dir / "corpus.jsonl", rows)
    corpus.finish()
    stage = _stage(root, "03_mtp_distillation", options)
    tokenizer = models.tokenizer(distillation.start(stage))
    columns, tables, _ = examples(rows, tokenizer, None, stage.settings.max_length)
    with _timed() as took:
        distillation.train_arm(stage, distillation.MTP_KD, columns, tables)
    stage.finish()
    s = stage.settings
    laid = batching.by_length(columns, s.steps, s.batch_size, stage.seed)
    return stage, took[0], [len(row["input_ids"]) for row in laid]


def _cold_start(root: Path, options: argparse.Namespace) -> tuple[StageRun, float, list[int]]:
    """The same of the cold start's fine-tuning."""
    stage = _stage(root, "04_cold_start", options)
    rows = [row | {"judge": world.rationale(row, row["mode"])} for row in _answered(options)]
    with _timed() as took:
        cold_start.train(stage, rows)
    stage.finish()
    s, tokenizer = stage.settings, models.tokenizer(stage.checkpoints / "student")
    lengths = [
        len(cold_start.encode(tokenizer, r, stage.config.prompts)["input_ids"]) for r in rows
    ]
    return stage, took[0], list(islice(cycle(lengths), s.steps * s.batch_size))


def _measured(shape: dict, trained: tuple, options: argparse.Namespace) -> dict:
    """Seconds per step, tokens per second, the share of the GPU's peak, memory at most."""
    stage, took, lengths = trained
    scheme = planner.SCHEMES[4 if stage.config.lora.enabled else 0]
    flops = scheme.backward * sum(n * flops_per_token(shape, n) for n in lengths)
    peak = _peak()
    return {
        "seconds_per_step": round(took / options.steps, 3),
        "tokens_per_s": round(sum(lengths) / took),
        "mfu": round(flops / took / peak, 4) if peak else None,
        "peak_gib": _memory(),
    }


def reinforce(root: Path, options: argparse.Namespace) -> dict:
    """Step-SRPO: seconds of a step (the median, the first left out), the GPU's busy share then."""
    stage = _stage(root, "05_step_srpo", options)
    candidates = [row | {"correct": i % 2 == 0} for i, row in enumerate(_rows(60, "rl"))]
    write_jsonl(stage.dir / "candidates.jsonl", candidates)
    busy = Busy(stage)
    busy.start()
    step_srpo.train(stage, stage.upstream("04_cold_start") / "checkpoints" / "student")
    busy.stop.set()
    seconds = [row["step_time"] for row in stage.metrics() if "step_time" in row]
    shares = [share for done, share in busy.seen if 0 < done < options.steps and share is not None]
    return {
        "seconds_per_step": round(statistics.median(seconds[1:] or seconds), 3),
        "rollouts_per_step": stage.settings.prompts_per_step
        * stage.settings.trainer.num_generations,
        "gpu_busy": round(statistics.mean(shares) / 100, 3) if shares else None,
        "peak_gib": _memory(),
    }


class Busy(threading.Thread):
    """Twice a second: how many steps are done, and the GPU's utilisation in per cent."""

    def __init__(self, stage: StageRun):
        super().__init__(daemon=True)
        self.stage, self.stop = stage, threading.Event()
        self.seen: list[tuple[int, float | None]] = []

    def run(self) -> None:
        asked = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while torch.cuda.is_available() and not self.stop.wait(0.5):
            done = sum("step_time" in row for row in self.stage.metrics())
            said = subprocess.run([*asked, "--id=0"], capture_output=True, text=True).stdout.strip()
            self.seen.append((done, float(said) if said.isdecimal() else None))


def _stage(root: Path, name: str, options: argparse.Namespace) -> StageRun:
    """A stage of the check's run: a few steps, nothing saved on the way."""
    values: dict = {}
    for section in ("mtp_distillation", "cold_start", "step_srpo"):
        values |= {f"{section}.steps": options.steps, f"{section}.trainer.save_steps": 10**6}
    values["mtp_distillation.voter_steps"] = [options.steps]
    values["step_srpo.trainer.max_completion_length"] = options.tokens
    return StageRun.create(root, "check", name, profile=options.profile, overrides=values)


def _write_random(shape: dict, folder: Path, config: SimpleNamespace) -> None:
    """A folder with random weights of a shape."""
    tokenizer = models.tokenizer(TOKENIZER)
    rest = {key: value for key, value in shape.items() if key not in ("model_type", "dtype")}
    rest["layer_types"] = ["full_attention"] * shape["num_hidden_layers"]
    rest |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    made = AutoConfig.for_model(shape["model_type"], **rest)
    models.save(AutoModelForCausalLM.from_config(made), tokenizer, folder, config)


def _rows(number: int, split: str) -> list[dict]:
    return world.queries(number, seed=0, split=split)


def _answered(options: argparse.Namespace) -> list[dict]:
    """Rows with answers, every other one with a thought, up to about `length` tokens."""
    found = []
    for i, row in enumerate(_rows(512, "stage_2")):
        thought = "\n".join([row["thought"]] * (1 + i % 8 * options.length // 512))
        mode = "on" if i % 2 else "off"
        spoken = {"thought": thought if mode == "on" else None, "answer": row["direct"]}
        found.append(row | spoken | {"mode": mode})
    return found


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Seconds of a block, in a list when it ends; the GPU's memory is counted from here."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    took, begun = [], time.perf_counter()
    yield took
    took.append(time.perf_counter() - begun)


def _memory() -> float | None:
    used = torch.cuda.max_memory_allocated() / planner.GIB if torch.cuda.is_available() else None
    return used and round(used, 1)


def _peak() -> float | None:
    """This GPU's FLOP/s in bfloat16, if the planner knows it."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    kinds = {kind.partition("-")[0]: gpu.peak for kind, gpu in planner.GPUS.items()}
    return next((peak for kind, peak in kinds.items() if kind in name), None)


if __name__ == "__main__":
    sys.exit(main())
