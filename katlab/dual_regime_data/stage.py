"""Stage 02: the dual-regime Stage-1 corpus (report section 3.2).

A tagger gives every query a domain and a difficulty. Easy queries get think-off answers by
generate-and-reject; hard ones go through solver -> thinker -> critic rounds and only verified
thoughts are kept. The corpus is then composed to 34.8 % think-on / 65.2 % think-off *by tag*.

Who speaks is a `katlab.teachers.Responder`, in the words of the profile's [prompts].

Deviations: (1) one model, the think-off teacher, is tagger and solver; where `prompts.tag` is "",
nobody tags and the queries' own labels serve; (2) `cross_share` of each regime comes from the other
side's difficulties, otherwise a trigger token would say nothing beyond the difficulty. Those of
thinker and critic stand in `katlab.teachers`.

    figures = stage.run(stage)
"""

from katlab import UserError, teachers
from katlab.dual_regime_data.composition import compose
from katlab.dual_regime_data.routing import route
from katlab.dual_regime_data.tagging import agreement, tag
from katlab.lab import StageRun, work
from katlab.rewards import backends
from katlab.tasks import checks, queries


@work
def run(stage: StageRun) -> dict[str, float]:
    """Tag, route, ask the teachers, compose; returns the corpus's size and shares in 0..1.

    Leaves tagged.jsonl, think_off.jsonl and think_on.jsonl (verified rows) and corpus.jsonl.
    Started again, it continues. Raises UserError where a step leaves nothing.
    """
    s, words, seed = stage.settings, stage.config.prompts, stage.seed
    off, on = teachers.pair(stage)

    def tags() -> list[dict]:
        asked = queries.load(stage.config, s.queries, seed, "stage_1")
        if alien := checks.unread(stage.config, asked):
            raise UserError(alien)
        remedy = "correct prompts.tag and prompts.tag_pattern"
        return _some(tag(asked, off, words.tag, words.tag_pattern), "readable tags", remedy)

    tagged = stage.kept("tagged.jsonl", tags)
    easy, hard = route(tagged, s.think_on_share, s.cross_share, s.think_on_level, seed)
    if not (easy and hard):
        raise UserError(
            f"One side of level {s.think_on_level} has none of the {len(tagged)} tagged queries; "
            "give queries of both sides or change dual_regime_data.think_on_level."
        )
    rows_off = stage.kept(
        "think_off.jsonl",
        lambda: _verified(teachers.direct(easy, off, s.samples, seed, words.solve), "off"),
    )
    asked = (words.solve, words.think, words.reply_patterns)
    rows_on = stage.kept(
        "think_on.jsonl",
        lambda: _verified(teachers.with_thought(hard, off, on, s.rounds, seed, *asked), "on"),
    )
    corpus = stage.kept("corpus.jsonl", lambda: compose(rows_off, rows_on, s.think_on_share, seed))
    stage.record(**{f"{kind}_verifier": name for kind, name in backends().items()})
    read = {
        "tags_read": len(tagged) / queries.number(stage.config, s.queries, "stage_1"),
        "tag_agreement": agreement(tagged),
    }
    return {
        "rows": len(corpus),
        "think_on_share": sum(row["mode"] == "on" for row in corpus) / len(corpus),
        **(read if words.tag else {}),
        "kept_off": len(rows_off) / len(easy),
        "kept_on": len(rows_on) / len(hard),
    }


def _verified(rows: list[dict], mode: str) -> list[dict]:
    return _some(rows, f"verified think-{mode} replies", f"try model.teacher_{mode} on a few")


def _some(rows: list[dict], what: str, remedy: str) -> list[dict]:
    if not rows:
        raise UserError(f"None of the queries has {what}; {remedy}.")
    return rows
