"""Stage 02: the dual-regime Stage-1 corpus (report section 3.2).

A tagger gives every query a domain and a difficulty. Easy queries get think-off answers by
generate-and-reject; hard ones go through solver -> thinker -> critic rounds and only verified
thoughts are kept. The corpus is then composed to 34.8 % think-on / 65.2 % think-off *by tag*.

Who speaks is a `katlab.teachers.Responder`, in the words of the profile's [prompts].

Deviations: (1) one model, the think-off teacher, is tagger and solver; (2) `cross_share` of each
regime comes from the other side's difficulties, otherwise a trigger token would say nothing beyond
the difficulty. Those of thinker and critic stand in `katlab.teachers`.

    figures = stage.run(stage)
"""

from katlab import UserError, teachers
from katlab.dual_regime_data.composition import compose
from katlab.dual_regime_data.routing import route
from katlab.dual_regime_data.tagging import agreement, tag
from katlab.lab import StageRun, work, write_jsonl
from katlab.rewards import backends
from katlab.tasks import queries


@work
def run(stage: StageRun) -> dict[str, float]:
    """Write corpus.jsonl; returns its size, its share of think-on, and how much was kept."""
    s, words = stage.settings, stage.config.prompts
    off, on = (teachers.load(stage, mode) for mode in ("off", "on"))
    asked = queries.load(stage.config, s.queries, stage.seed, "stage_1")
    stage.log(phase="queries", queries=len(asked))
    tagged = tag(asked, off, words.tag, words.tag_pattern)
    stage.log(phase="tagged", queries=len(tagged))
    _some(tagged, "readable tags", "correct prompts.tag and prompts.tag_pattern")
    easy, hard = route(tagged, s.think_on_share, s.cross_share, s.think_on_level, stage.seed)
    rows_off = teachers.direct(easy, off, s.samples, stage.seed)
    stage.log(phase="think-off", asked=len(easy), kept=len(rows_off))
    rows_on = teachers.with_thought(hard, off, on, s.rounds, stage.seed)
    stage.log(phase="think-on", asked=len(hard), kept=len(rows_on))
    for rows, mode in ((rows_off, "off"), (rows_on, "on")):
        _some(rows, f"verified think-{mode} replies", f"try model.teacher_{mode} on a few queries")
    corpus = compose(rows_off, rows_on, s.think_on_share, stage.seed)
    if stage.writes:
        write_jsonl(stage.dir / "corpus.jsonl", corpus)
    stage.record(**{f"{kind}_verifier": name for kind, name in backends().items()})
    return {
        "rows": len(corpus),
        "think_on_share": sum(row["mode"] == "on" for row in corpus) / len(corpus),
        "tag_agreement": agreement(tagged),
        "kept_off": len(rows_off) / len(easy),
        "kept_on": len(rows_on) / len(hard),
    }


def _some(rows: list[dict], what: str, remedy: str) -> None:
    if not rows:
        raise UserError(f"None of the queries has {what}; {remedy}.")
