"""Stage 02: the dual-regime Stage-1 corpus (report section 3.2).

A tagger gives every query a domain and a difficulty. Easy queries get think-off answers by
generate-and-reject; hard ones go through solver -> thinker -> critic rounds and only verified
thoughts are kept. The corpus is then composed to 34.8 % think-on / 65.2 % think-off *by tag*.

Who speaks is a `katlab.teachers.Responder`; the functions below see only its `respond`.

Deviations: (1) the thinker does not read the solver's draft, it is kept beside the thought and
tells how often thinking changed the answer; (2) the critic is a program: the verifier of the final
answer plus a check of every equation in the thought; (3) `cross_share` of each regime comes from
the other side's difficulties, otherwise a trigger token would say nothing beyond the difficulty.

    figures = stage.run(stage)
"""

from pathlib import Path

from katlab.dual_regime_data.composition import compose
from katlab.dual_regime_data.routing import route
from katlab.dual_regime_data.tagging import agreement, tag
from katlab.lab import StageRun
from katlab.lab.rows import write_jsonl
from katlab.rewards import backends
from katlab.tasks import queries
from katlab.teachers import LocalResponder, think_off, think_on


def run(stage: StageRun) -> dict[str, float]:
    """Write corpus.jsonl; returns its size, its share of think-on, and how much was kept."""
    s, model = stage.settings, stage.config.model
    teachers = Path(model.teacher_off), Path(model.teacher_on)
    off, on = (LocalResponder(folder, s.max_new_tokens, stage) for folder in teachers)
    asked = queries.load(stage.config, s.queries, stage.seed, "train")
    stage.log(phase="queries", queries=len(asked))
    tagged = tag(asked, off)
    stage.log(phase="tagged", queries=len(tagged))
    easy, hard = route(tagged, s.think_on_share, s.cross_share, s.think_on_level, stage.seed)
    rows_off = think_off(easy, off, s.samples, stage.seed)
    stage.log(phase="think-off", asked=len(easy), kept=len(rows_off))
    rows_on = think_on(hard, off, on, s.rounds, stage.seed)
    stage.log(phase="think-on", asked=len(hard), kept=len(rows_on))
    corpus = compose(rows_off, rows_on, s.think_on_share, stage.seed)
    write_jsonl(stage.dir / "corpus.jsonl", corpus)
    stage.record(**{f"{kind}_verifier": name for kind, name in backends().items()})
    figures = {
        "rows": len(corpus),
        "think_on_share": sum(row["mode"] == "on" for row in corpus) / len(corpus),
        "tag_agreement": agreement(tagged),
        "kept_off": len(rows_off) / len(easy),
        "kept_on": len(rows_on) / len(hard),
    }
    stage.record(**figures)
    return figures
