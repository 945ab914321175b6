"""Finished runs of made-up systems, without models and notebooks, for what reads several runs."""

from functools import cache
from pathlib import Path

import gates
import pandas as pd

from katlab.evaluation.routing import summarize
from katlab.evaluation.stage import QUERY
from katlab.lab import profiles, records, write_jsonl
from katlab.lab.runs import StageRun
from katlab.tasks import queries
from katlab.tasks.nano import world

COLD, FINAL = (f"{name} (own votes)" for name in ("cold start", "final"))
STAGES = ("03_mtp_distillation", "04_cold_start", "05_step_srpo", "06_evaluation")
FALLS = {"claim": "Tokens fall", "reported": "-19 %", "kind": "report"}
ASIDE = ("notebook.ipynb", "kernel.log")  # never copied
PROMPTS = gates.PROMPTS


@cache
def asked() -> tuple[dict, ...]:
    """The prompts that every such run was asked, whole."""
    rows = world.queries(PROMPTS, seed=0, split="eval")
    return tuple(row | {"id": f"q{i}"} for i, row in enumerate(rows))


def samples() -> pd.DataFrame:
    """`gates.gated` with a distilled student, on these prompts."""
    told = [
        gates.sample("distilled", mode, i, mode == "on")
        for i in range(PROMPTS)
        for mode in ("on", "off")
    ]
    frame = pd.concat([gates.gated(), gates.arms.with_flags(pd.DataFrame(told))])
    category = {row["id"]: row["category"] for row in asked()}
    problem = {row["id"]: kin(row) for row in asked()}
    frame = frame.assign(category=frame["id"].map(category), cluster=frame["id"].map(problem))
    return frame.reset_index(drop=True)


def kin(row: dict) -> str:
    """What a query shares with its twins."""
    return queries.kin(profiles.load("nano"), row)


def make(outputs: Path, name: str, seed: int, held: bool | None = True, **given) -> Path:
    """A finished run of the good gate of `gates`."""
    for stage in STAGES:
        one = StageRun.create(outputs, name, stage, seed=seed, **given)
        if stage == "04_cold_start":
            record = records.read(one.dir)
            one.write("run.json", record | {"settings": record["settings"] | {"votes": "own"}})
        one.write("verdict.json", [])
        one.close("done")
    arms = samples()
    arms.drop(columns=["thinks", "well_formed"]).to_json(
        one.dir / "arms.jsonl", orient="records", lines=True
    )
    how = {"names_mode": gates.NAMES_MODE, "t_max": 128}
    judged = {
        name: summarize(arms, name, **how) | {"rule": "length"} for name in ("cold start", "final")
    }
    one.write("summary.json", judged)
    write_jsonl(one.dir / "queries.jsonl", [{key: row[key] for key in QUERY} for row in asked()])
    fact = {"claim": "Prompts", "measured": "300", "held": None, "kind": "fact"}
    one.write("verdict.json", [FALLS | {"measured": f"-2{seed} %", "held": held}, fact])
    (one.dir / "report.html").write_text(
        '<a class="x" href="../index.html#a">all</a> <a href="figures/gone.svg">SVG</a>'
        '<a href="#top">up</a> <a href="https://x.org/a">out</a>'
    )
    (one.figures / "a.csv").write_text("x\n1\n")
    for aside in ASIDE:
        (one.dir / aside).write_text("{}")
    (one.checkpoints / "model.safetensors").write_text("weights")
    (outputs / name / "index.html").write_text('<a href="06_evaluation/report.html">06</a>')
    return outputs / name
