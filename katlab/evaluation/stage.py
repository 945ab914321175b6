"""Does the model know when to think? Three arms, paired by prompt, with intervals and controls.

Report sections 4.3.2 and 5 (Figures 7-9, Table 4). Every prompt is sampled in three arms: auto (the
model decides), forced on and forced off. p_on, p_off are the pass rates of the forced arms.

Deviations: (1) the report gives points, this gives 95 % bootstrap intervals over prompts; (2) a
base before any stage, controls that any gate should beat (a coin, a threshold on P(on), a rule of
one feature, an oracle), regret, leakage and failures by kind are added (definitions at the
functions); (3) tokens are counted by part (judge, thought, answer) and include the judge.

    headline = evaluation.run(stage);  arms, summary = evaluation.load(stage.dir)
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from katlab import models, template
from katlab.arms import ARMS, run_arm, teacher_arm, with_flags
from katlab.evaluation import controls, judges
from katlab.evaluation.probes import base_arm, p_on
from katlab.evaluation.routing import summarize
from katlab.lab import StageRun, read_jsonl, work, write_jsonl
from katlab.tasks import queries

SYSTEMS = {  # name: (stage that wrote checkpoints/student, style, arms)
    "distilled": ("03_mtp_distillation", "trigger", ("on", "off")),
    "cold start": ("04_cold_start", "judge", ARMS),
    "final": ("05_step_srpo", "judge", ARMS),
}
JUDGED = ("cold start", "final")
QUERY = ("id", "messages", "tools", "verifier", "reference")
HEADLINE = (  # what it comes down to stands last, where the console and the index look
    "regret_accuracy",
    "hybrid_accuracy",
    "decision_f1",
    "gain_over_random",
    "well_formed",
    "auto_accuracy",
    "auto_tokens",
    "think_on",
)


@work
def run(stage: StageRun) -> dict[str, float]:
    """Sample every system in its arms on the held-out queries; write arms.jsonl, queries.jsonl,
    judges.jsonl (`judges.probe` of the final system) and summary.json.

    Settings [evaluation]: prompts, samples, forced_samples (of the judging students), temperature,
    max_new_tokens, delta. Returns figures of the final system and of the cold start.
    """
    s, config = stage.settings, stage.config
    rows = queries.load(config, s.prompts, stage.seed, "test")
    counts = {  # only what is routed needs the forced arms' second sample
        (name, arm): s.forced_samples if name in JUDGED and arm != "auto" else s.samples
        for name, (_, _, arms) in SYSTEMS.items()
        for arm in arms
    }
    stage.forget_after(-1, "arms")
    frames = [base_arm(stage, rows)]
    for system, (source, style, arms) in SYSTEMS.items():
        folder = stage.upstream(source) / "checkpoints" / "student"
        model, tok = models.load_from(folder, config.model)
        for arm in arms:
            frame = run_arm(
                stage,
                model,
                tok,
                rows,
                arm,
                style,
                max_new_tokens=s.max_new_tokens,
                temperature=s.temperature,
                samples=counts[system, arm],
                title=f"{system}, {arm if arm == 'auto' else f'forced {arm}'}",
            )
            frame["p_on"] = p_on(model, tok, rows, frame) if arm == "auto" else None
            if (system, arm) == ("final", "auto"):
                exchanged = judges.probe(model, tok, rows, frame, config.prompts, stage.seed)
            frames.append(with_flags(frame.assign(system=system)))
            means = frames[-1][["correct", "tokens", "thinks"]].astype(float).mean()
            figures = dict(zip(("accuracy", "tokens", "think_on"), means, strict=True))
            stage.log(phase="arms", system=system, arm=arm, **figures)
    frames += [teacher_arm(stage, rows, mode, tok) for mode in template.MODES]
    arms = pd.concat(frames, ignore_index=True)
    arms["cluster"] = arms["id"].map({row["id"]: queries.kin(config, row) for row in rows})
    rules, best = _rules(stage, rows)
    arms = arms.join(rules, on="id")
    if stage.writes:
        arms.drop(columns=["thinks", "well_formed"]).to_json(
            stage.dir / "arms.jsonl", orient="records", lines=True
        )
        exchanged.to_json(stage.dir / "judges.jsonl", orient="records", lines=True)
        asked = [{key: row[key] for key in QUERY} for row in rows]  # without anyone's solution
        write_jsonl(stage.dir / "queries.jsonl", asked)
    names_mode = config.prompts.rationale_pattern
    how = {"names_mode": names_mode, "t_max": s.max_new_tokens}
    judged = {name: summarize(arms, name, s.delta, **how) | {"rule": best} for name in JUDGED}
    stage.write("summary.json", judged)
    return {
        f"{name.replace(' ', '_')}_{key}": np.atleast_1d(judged[name][key])[0].item()
        for name in JUDGED
        for key in HEADLINE
    }


def _rules(stage: StageRun, rows: list[dict]) -> tuple[pd.DataFrame, str]:
    """What each one-feature rule says of the queries, and which rule fits best.

    They are fitted on the queries that stage 05 tried without thinking, none of which is here.
    """
    tried = read_jsonl(stage.upstream("05_step_srpo") / "candidates.jsonl")
    seen, asked = controls.features(tried), controls.features(rows)
    outcome = {row["id"]: None if row["correct"] is None else not row["correct"] for row in tried}
    missed = pd.Series(outcome, dtype=object)
    fitted = controls.fit(seen, missed)
    return controls.score(asked, fitted).add_prefix("by "), controls.best(seen, missed, fitted)


def load(folder: Path) -> tuple[pd.DataFrame, dict]:
    """The samples of all arms and the summary that `run` left in a stage's folder."""
    arms = pd.read_json(folder / "arms.jsonl", lines=True, dtype=False)
    return with_flags(arms), json.loads((folder / "summary.json").read_text())
