"""real-0.5b on the CPU: every stage of the profile in order, on a parent of a few thousand weights.

The parent cannot answer, so a stand-in speaks for every model where text is sampled; what is asked,
how replies are read, what is trained, merged, packed and reported is the profile's own.
"""

import json
import re
from pathlib import Path

import decoder
import pandas as pd
import pytest
import torch

from katlab import adapters, template
from katlab.case_studies import stage as case_studies
from katlab.cold_start import stage as cold_start
from katlab.dual_regime_data import stage as dual_regime_data
from katlab.evaluation import sets, systems, verdict
from katlab.evaluation import stage as evaluation
from katlab.export import travel
from katlab.generation import local
from katlab.lab import StageRun, load_profile, read_jsonl
from katlab.layer_saturation import stage as layer_saturation
from katlab.mtp_distillation import stage as mtp_distillation
from katlab.step_srpo import stage as step_srpo
from katlab.tasks import queries
from katlab.tasks.nano import build

STAGES = {
    "01_layer_saturation": layer_saturation,
    "02_dual_regime_data": dual_regime_data,
    "03_mtp_distillation": mtp_distillation,
    "04_cold_start": cold_start,
    "05_step_srpo": step_srpo,
    "06_evaluation": evaluation,
    "07_case_studies": case_studies,
}
SMALL = {
    "lora.r": 4,
    "layer_saturation.tokens": 384,
    "layer_saturation.length": 64,
    "layer_saturation.recovery_steps": 1,
    "dual_regime_data.queries": 80,
    "dual_regime_data.samples": 1,
    "mtp_distillation.steps": 2,
    "mtp_distillation.batch_size": 8,
    "mtp_distillation.held_out": 4,
    "mtp_distillation.max_length": 2000,
    "mtp_distillation.eval_prompts": 10,
    "mtp_distillation.trainer.per_device_train_batch_size": 4,
    "mtp_distillation.trainer.logging_steps": 1,
    "cold_start.queries": 40,
    "cold_start.vote_samples": 1,
    "cold_start.steps": 2,
    "cold_start.batch_size": 4,
    "cold_start.max_length": 2000,
    "cold_start.eval_prompts": 10,
    "cold_start.trainer.per_device_train_batch_size": 4,
    "cold_start.trainer.logging_steps": 1,
    "step_srpo.steps": 1,
    "step_srpo.candidates": 20,
    "step_srpo.prompts_per_step": 2,
    "step_srpo.eval_prompts": 20,
    "step_srpo.trainer.per_device_train_batch_size": 4,
    "step_srpo.trainer.num_generations": 2,
    "step_srpo.trainer.use_vllm": False,
    "step_srpo.trainer.max_completion_length": 8,
    "evaluation.prompts": 60,
    "evaluation.forced_samples": 2,
    "case_studies.prompts": 10,
    "case_studies.agents": 4,
}


class StandIn:
    """Answers as a model that knows difficulties 1 and 2 at a glance, the others by thought."""

    def __init__(self, rows: list[dict]):
        self.rows = {row["messages"][-1]["content"]: row for row in rows}
        self.asked: list[str] = []

    def row(self, prompt: str) -> dict:
        return self.rows[max((text for text in self.rows if text in prompt), key=len)]

    def reply(self, prompt: str) -> str:
        if "`read FILE`" in prompt or "in a Python block" in prompt:  # an agent that reads alone
            body = template.body("off", "read money.py")
            return template.judged("off", "Requires think-off mode.") + body + template.END
        row = self.row(prompt)
        reference, easy = row["reference"], row["difficulty"] <= 2
        right = reference if isinstance(reference, str) else " ".join(reference.get("all", "0"))
        if "Do not solve this" in prompt:
            return f"Domain: math. Difficulty: {row['difficulty']}"
        if "Do not answer the question above" in prompt:
            mode = re.findall("Requires think-(on|off) mode", prompt)[-1]
            return f"It asks for one thing. Requires think-{mode} mode."
        thought, direct = "We go step by step.", right if easy else "-7"
        if "think step by step" in prompt:
            return f"{thought}\n\n**Answer:** {right}"
        if "Reply with the final answer only" in prompt:
            return direct
        if prompt.endswith("<judge>\n"):
            mode = "off" if easy else "on"
            return template.judged(mode, f"Requires think-{mode} mode.") + self.rest(
                mode, thought, right, direct
            )
        if found := re.search(r"<think_(on|off)>\n$", prompt):
            return self.rest(found[1], thought, right, direct)
        return direct  # the query alone

    def rest(self, mode: str, thought: str, right: str, direct: str) -> str:
        answer = right if mode == "on" else direct
        return template.body(mode, answer, thought if mode == "on" else None) + template.END

    def sample(self, model, tokenizer, prompts, **how) -> list[list[int]]:
        self.asked += prompts
        return [tokenizer(self.reply(p), add_special_tokens=False)["input_ids"] for p in prompts]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, StandIn]:
    """Stages 01 to 07 of profile real-0.5b, on procedural queries and a local GSM8K."""
    root = tmp_path_factory.mktemp("real")
    for name, first in (("train", 0), ("test", 90)):
        worded = [
            {"question": f"Ann has {n} pens and buys {n + 3}. How many?", "answer": f"#### {2*n+3}"}
            for n in range(first, first + 90)
        ]  # fmt: skip
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in worded))
    local_map = f'extends = "gsm8k"\ntrain = "{root}/train.jsonl"\ntest = "{root}/test.jsonl"\n'
    (root / "gsm8k.toml").write_text(local_map)
    given = SMALL | {"model.student": str(root / "parent")}
    given["model.queries"] = f"procedural:0.8 + hub:{root}/gsm8k.toml:0.2"
    config = load_profile("real-0.5b", given)
    if hasattr(config.model, "engine"):
        given["model.engine"] = "transformers"
        config = load_profile("real-0.5b", given)
    rows = [
        row
        for split, settings in queries.COUNTS.items()
        for seed in (0, 1)
        for row in queries.load(config, max(_value(config, s) for s in settings), seed, split)
    ]
    tokenizer = build.tokenizer("student", [row["messages"][-1]["content"] for row in rows])
    parent = decoder.tiny(vocab_size=len(tokenizer), tie_word_embeddings=True, num_hidden_layers=4)
    parent.to(torch.bfloat16).save_pretrained(root / "parent")
    tokenizer.save_pretrained(root / "parent")
    stand_in = StandIn(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "sample", stand_in.sample)
        for name, module in STAGES.items():
            stage = StageRun.create(root / "outputs", "r", name, "real-0.5b", overrides=given)
            module.run(stage)
            stage.close("done")
    return root / "outputs" / "r", stand_in


def _value(config, dotted: str) -> int:
    section, name = dotted.split(".")
    return getattr(getattr(config, section), name)


pytestmark = pytest.mark.slow


def test_a_quarter_of_the_layers_is_added_and_both_modes_are_asked_in_their_words(run):
    folder, stand_in = run
    config = json.loads(
        (folder / "03_mtp_distillation" / travel.STUDENT / "config.json").read_text()
    )
    assert config["num_hidden_layers"] == 5
    corpus = read_jsonl(folder / "02_dual_regime_data" / "corpus.jsonl")
    assert {row["mode"] for row in corpus} == {"on", "off"}
    thought = next(row for row in corpus if row["mode"] == "on")
    assert thought["thought"] == "We go step by step." and "**Answer:**" in thought["reply"]
    assert {row["set"] for row in corpus} == {"procedural", "gsm8k"}
    assert any("Reply with the final answer only" in prompt for prompt in stand_in.asked)


def test_the_parent_reads_along_and_no_signal_is_stored(run):
    folder, _ = run
    stage = StageRun.open(folder / "03_mtp_distillation")
    assert [row["kl"] for row in stage.metrics() if "kl" in row]
    assert not (stage.dir / "teacher_signal.safetensors").exists()
    voted = read_jsonl(folder / "04_cold_start" / "votes.jsonl")
    assert all(row["mode"] == ("off" if row["difficulty"] <= 2 else "on") for row in voted)
    taught = read_jsonl(folder / "04_cold_start" / "corpus.jsonl")
    assert any(row["teacher"] == "student" for row in taught)
    assert read_jsonl(folder / "05_step_srpo" / "rollouts.jsonl")


def test_each_set_is_reported_apart(run):
    folder, _ = run
    arms, summary = evaluation.load(folder / "06_evaluation")
    table = sets.table(systems.ways(arms, summary["final"]["rule"]))
    assert set(table.index.get_level_values("set")) == {"procedural", "gsm8k"}
    told = {claim.claim: claim for claim in verdict.rows(arms, summary)}
    assert told["Think-on on GSM8K is at least 90%"].held
    assert told["Think-on on one-digit sums is at most 30%"].held
    right = arms.groupby(["system", "arm"])["correct"].mean()
    assert right["teacher off", "off"] == right["distilled", "off"] < right["teacher on", "on"] == 1
    assert pd.read_json(folder / "07_case_studies" / "cases.jsonl", lines=True)["set"].notna().all()
    steps = pd.read_json(folder / "07_case_studies" / "steps.jsonl", lines=True)
    assert len(steps) == 4 * 4 and not steps[steps["step"] > 1]["reached"].any()


def test_the_run_travels_as_adapters(run, tmp_path):
    folder, _ = run
    packed = travel.pack(folder, "05_step_srpo", tmp_path / "r.zip")
    again, differ = travel.unpack(packed, tmp_path)
    assert differ == []
    assert adapters.file(again / "05_step_srpo" / travel.STUDENT).is_file()
