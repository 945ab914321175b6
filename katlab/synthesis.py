"""Stage 02: the dual-regime Stage-1 corpus (report section 3.2).

A tagger gives every query a domain and a difficulty. Easy queries get think-off answers by
generate-and-reject; hard ones go through solver -> thinker -> critic rounds and only verified
thoughts are kept. The corpus is then composed to 34.8 % think-on / 65.2 % think-off *by tag*.

Who speaks is a `katlab.responders.Responder`; the functions below see only its `respond`.

Deviations: (1) the thinker does not read the solver's draft, it is kept beside the thought and
tells how often thinking changed the answer; (2) the critic is a program: the verifier of the final
answer plus a check of every equation in the thought; (3) `cross_share` of each regime comes from
the other side's difficulties, otherwise a trigger token would say nothing beyond the difficulty.

    corpus = synthesis.synthesize(stage)
"""

import json
import random
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from katlab import UserError
from katlab.lab.runs import StageRun
from katlab.lab.stages import root
from katlab.nano import world
from katlab.responders import LocalResponder, Responder, ask, split_thought
from katlab.rewards import backends, grade

TAG = re.compile(r"(code|math|science|general|multi_turn|tool_use), level ([1-5])")
EQUATION = re.compile(r"(-?\d+)([+-]\d+)=(-?\d+)")


def load_queries(config, n: int, seed: int, split: str) -> list[dict]:
    """`n` query rows: from the nano world, or from the profile's JSONL file (`queries`).

    A verifier's name that stands under the profile's [rewards] becomes the path written there.
    """
    if config.model.queries == "nano":
        return world.queries(n, seed, split)
    path = root() / config.model.queries  # an absolute path stays what it is
    if not path.is_file():
        raise UserError(f"the query file {path} does not exist; set model.queries to a JSONL file")
    rows = [json.loads(line) for line in path.read_text().splitlines() if line]
    own = vars(config.rewards)
    rows = [
        row | {"verifier": own.get(row["verifier"], row["verifier"])}
        for row in rows
        if row.get("split", split) == split
    ]
    if len(rows) < n:
        raise UserError(
            f"{path} has {len(rows)} {split} rows and {n} are asked for; lower the count"
        )
    return random.Random(seed).sample(rows, n)


def tag(rows: list[dict], tagger: Responder) -> list[dict]:
    """Add `tags` {domain, level} to each row as the tagger reads it; unreadable tags drop a row."""
    tagged = []
    for row, (reply,) in zip(rows, tagger.respond([ask(r, "Tag it.") for r in rows]), strict=True):
        found = TAG.fullmatch(reply)
        if found:
            tagged.append(row | {"tags": {"domain": found[1], "level": int(found[2])}})
    return tagged


def route(rows: list[dict], share_on: float, cross_share: float, on_level: int, seed: int):
    """Split tagged rows into (think-off, think-on) so that think-on is `share_on` of their sum.

    Rows tagged `on_level` or harder are think-on's own, easier ones think-off's; `cross_share` of
    each regime is drawn from the other side.
    """
    rng = random.Random(seed)
    easy = [row for row in rows if row["tags"]["level"] < on_level]
    hard = [row for row in rows if row["tags"]["level"] >= on_level]
    rng.shuffle(easy)
    rng.shuffle(hard)
    # own side of think-off is easy: total*(1-share_on)*(1-cross) + total*share_on*cross <= easy
    from_easy = (1 - share_on) * (1 - cross_share) + share_on * cross_share
    total = int(min(len(easy) / from_easy, len(hard) / (1 - from_easy)))
    off_easy, off_hard = _parts(total * (1 - share_on), cross_share)
    on_hard, on_easy = _parts(total * share_on, cross_share)
    off = easy[:off_easy] + hard[:off_hard]
    on = hard[off_hard : off_hard + on_hard] + easy[off_easy : off_easy + on_easy]
    return off, on


def _parts(count: float, cross_share: float) -> tuple[int, int]:
    other = int(count * cross_share)
    return int(count) - other, other


def think_off(rows: list[dict], responder: Responder, samples: int, seed: int) -> list[dict]:
    """Generate `samples` answers a query, reject wrong ones, keep the one most often given."""
    replies = responder.respond(rows, n=samples, temperature=0.7, seed=seed)
    verdicts = _verify(rows, replies)
    kept = []
    for row, texts, right in zip(rows, replies, verdicts, strict=True):
        good = Counter(text for text, ok in zip(texts, right, strict=True) if ok)
        if good:
            answer = good.most_common(1)[0][0]
            rate = sum(right) / samples
            kept.append(row | _record("off", None, answer, responder.name) | {"pass_rate": rate})
    return kept


def think_on(
    rows: list[dict], solver: Responder, thinker: Responder, rounds: int, seed: int
) -> list[dict]:
    """Solver drafts, thinker reasons, critic accepts or sends back, up to `rounds` times.

    Kept rows carry the draft, the number of rounds and whether thinking corrected the draft.
    """
    drafts = [reply for (reply,) in solver.respond(rows)]
    right = [ok for (ok,) in _verify(rows, [[draft] for draft in drafts])]
    kept: dict[int, dict] = {}
    waiting = list(range(len(rows)))
    for attempt in range(rounds):
        asked = [rows[i] for i in waiting]
        heat = 0.0 if attempt == 0 else 0.8  # a critic's refusal calls for another thought
        replies = [r for (r,) in thinker.respond(asked, temperature=heat, seed=seed + attempt)]
        reasons = criticize(asked, replies)
        for i, reply, reason in zip(waiting, replies, reasons, strict=True):
            if reason is None:
                thought, answer = split_thought(reply)
                kept[i] = rows[i] | _record("on", thought, answer, thinker.name)
                kept[i] |= {
                    "draft": drafts[i],
                    "rounds": attempt + 1,
                    "corrected": answer != drafts[i] and not right[i],
                }
        waiting = [i for i in waiting if i not in kept]
        if not waiting:
            break
    return [kept[i] for i in sorted(kept)]


def criticize(rows: list[dict], replies: list[str]) -> list[str | None]:
    """The critic: None accepts a reply, a sentence says why it is refused."""
    parts = [split_thought(reply) for reply in replies]
    verdicts = _verify(rows, [[answer] for _, answer in parts])
    reasons: list[str | None] = []
    for (thought, _), (ok,) in zip(parts, verdicts, strict=True):
        wrong = [
            m[0] for m in EQUATION.finditer(thought or "") if int(m[1]) + int(m[2]) != int(m[3])
        ]
        if thought is None:
            reasons.append("there is no thought")
        elif wrong:
            reasons.append(f"{wrong[0]} does not hold")
        else:
            reasons.append(None if ok else "the answer is not verified")
    return reasons


def synthesize(stage: StageRun) -> pd.DataFrame:
    """Run the stage: write corpus.jsonl and return its rows with what was rejected counted."""
    s, model = stage.settings, stage.config.model
    teachers = Path(model.teacher_off), Path(model.teacher_on)
    off, on = (LocalResponder(folder, s.max_new_tokens, stage) for folder in teachers)
    queries = load_queries(stage.config, s.queries, stage.seed, "train")
    stage.log(phase="queries", queries=len(queries))
    tagged = tag(queries, off)
    stage.log(phase="tagged", queries=len(tagged))
    easy, hard = route(tagged, s.think_on_share, s.cross_share, s.think_on_level, stage.seed)
    rows_off = think_off(easy, off, s.samples, stage.seed)
    stage.log(phase="think-off", asked=len(easy), kept=len(rows_off))
    rows_on = think_on(hard, off, on, s.rounds, stage.seed)
    stage.log(phase="think-on", asked=len(hard), kept=len(rows_on))
    corpus = compose(rows_off, rows_on, s.think_on_share, stage.seed)
    write_jsonl(stage.dir / "corpus.jsonl", corpus)
    stage.record(
        **{f"{kind}_verifier": name for kind, name in backends().items()},
        rows=len(corpus),
        think_on_share=sum(row["mode"] == "on" for row in corpus) / len(corpus),
        tag_agreement=_agreement(tagged),
        kept_off=len(rows_off) / len(easy),
        kept_on=len(rows_on) / len(hard),
    )
    return pd.DataFrame(corpus)


def compose(off: list[dict], on: list[dict], share_on: float, seed: int) -> list[dict]:
    """As many rows as keep think-on at exactly `share_on` (to one row), shuffled."""
    total = int(min(len(off) / (1 - share_on), len(on) / share_on))
    n_on = round(total * share_on)
    rng = random.Random(seed)
    rows = rng.sample(off, total - n_on) + rng.sample(on, n_on)
    rng.shuffle(rows)
    return rows


def write_jsonl(path: Path, rows: Iterable[dict]) -> None:
    """Write rows as JSON lines; the file appears whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(row) + "\n" for row in rows))
    part.replace(path)


def read_jsonl(path: Path) -> list[dict]:
    """Read rows from JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def _record(mode: str, thought: str | None, answer: str, teacher: str) -> dict:
    return {"mode": mode, "thought": thought, "answer": answer, "teacher": teacher}


def _verify(rows: list[dict], replies: list[list[str]]) -> list[list[bool]]:
    """Verdicts of several replies a row; unscorable counts as not verified."""
    asked = [
        (row["verifier"], text, row["reference"])
        for row, texts in zip(rows, replies, strict=True)
        for text in texts
    ]
    verdicts = iter([verdict.correct is True for verdict in grade(asked)])
    return [[next(verdicts) for _ in texts] for texts in replies]


def _agreement(rows: list[dict]) -> float:
    """Share of tags that equal the generator's own labels (the nano world knows them)."""
    same = [r["tags"] == {"domain": r["category"], "level": r["difficulty"]} for r in rows]
    return sum(same) / len(same)
