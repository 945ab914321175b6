"""Stage 02: routing, rejection, the critic, and the exact composition, with scripted responders."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from katlab import UserError, lab, teachers
from katlab.dual_regime_data.composition import compose
from katlab.dual_regime_data.routing import route
from katlab.dual_regime_data.tagging import tag
from katlab.lab.rows import write_jsonl
from katlab.tasks import queries
from katlab.tasks.nano import world


@dataclass
class Scripted:
    """A Responder that answers by a function of (row, sample index); counts what it was asked."""

    reply: object
    name: str = "scripted"
    asked: list = field(default_factory=list)

    def respond(self, requests, n=1, temperature=0.0, seed=0):
        self.asked.append(len(requests))
        return [[self.reply(row, k) for k in range(n)] for row in requests]


ROWS = world.queries(120, seed=7, split="train")


def tagged(level_of=lambda row: row["difficulty"]):
    return [r | {"tags": {"domain": r["category"], "level": level_of(r)}} for r in ROWS]


def test_tagger_reads_domain_and_level_and_drops_what_it_cannot_read():
    replies = iter(["math, level 3", "code, level 9", "poetry, level 1", "no idea"])
    got = tag(ROWS[:4], Scripted(lambda row, k: next(replies)))
    assert [row["tags"] for row in got] == [{"domain": "math", "level": 3}]


def test_route_keeps_the_share_and_the_sides():
    off, on = route(tagged(), 0.348, 0.0, on_level=4, seed=0)
    assert len(on) / (len(on) + len(off)) == pytest.approx(0.348, abs=0.02)
    assert all(row["tags"]["level"] < 4 for row in off)
    assert all(row["tags"]["level"] >= 4 for row in on)
    assert not {r["id"] for r in off} & {r["id"] for r in on}


def test_cross_share_puts_both_regimes_on_both_sides():
    off, on = route(tagged(), 0.348, 0.25, on_level=4, seed=0)
    crossing = sum(row["tags"]["level"] >= 4 for row in off) / len(off)
    assert crossing == pytest.approx(0.25, abs=0.05)
    assert any(row["tags"]["level"] < 4 for row in on)


@given(st.floats(0.1, 0.9), st.floats(0.0, 0.5), st.integers(2, 5))
def test_route_never_uses_a_row_twice(share, cross, level):
    off, on = route(tagged(), share, cross, level, seed=1)
    ids = [row["id"] for row in off + on]
    assert len(ids) == len(set(ids)) <= len(ROWS)


def test_think_off_rejects_wrong_answers_and_keeps_the_most_frequent_right_one():
    rows = [row for row in ROWS if row["category"] == "math"][:3]
    replies = {0: ["{}", "{}", "0.5"], 1: ["no", "no", "no"], 2: ["{}.0", "x", "{}"]}
    responder = Scripted(
        lambda row, k: replies[[r["id"] for r in rows].index(row["id"])][k].format(row["direct"])
    )
    kept = teachers.think_off(rows, responder, samples=3, seed=0)
    assert [row["id"] for row in kept] == [rows[0]["id"], rows[2]["id"]]
    assert kept[0]["answer"] == rows[0]["direct"] and kept[0]["mode"] == "off"
    assert kept[0]["pass_rate"] == pytest.approx(2 / 3)


def test_critic_names_what_is_wrong():
    row = next(r for r in ROWS if r["category"] == "math")
    good = f"<think>\n{row['thought']}\n</think>\n\n{row['direct']}"
    assert teachers.criticize([row], [good]) == [None]
    assert teachers.criticize([row], [row["direct"]]) == ["there is no thought"]
    lie = f"<think>\n2+2=5\n</think>\n\n{row['direct']}"
    assert teachers.criticize([row], [lie]) == ["2+2=5 does not hold"]
    wrong = f"<think>\n2+2=4\n</think>\n\n{int(row['direct']) + 1}"
    assert teachers.criticize([row], [wrong]) == ["the answer is not verified"]


def test_thinker_is_asked_again_only_where_the_critic_refused():
    rows = [r for r in ROWS if r["category"] == "math"][:4]
    tries = {row["id"]: 0 for row in rows}

    def think(row, k):
        tries[row["id"]] += 1
        right = row["id"] == rows[0]["id"] or tries[row["id"]] == 2
        answer = row["direct"] if right else "99999"
        return f"<think>\n1+1=2\n</think>\n\n{answer}"

    thinker = Scripted(think)
    kept = teachers.think_on(rows, Scripted(lambda row, k: "0"), thinker, rounds=3, seed=0)
    assert thinker.asked == [4, 3]
    assert [row["rounds"] for row in kept] == [1, 2, 2, 2]
    assert all(row["draft"] == "0" for row in kept)


@given(st.integers(5, 200), st.integers(5, 200), st.floats(0.1, 0.9))
def test_compose_is_exact_to_one_row(n_off, n_on, share):
    off = [{"mode": "off", "i": i} for i in range(n_off)]
    on = [{"mode": "on", "i": i} for i in range(n_on)]
    rows = compose(off, on, share, seed=0)
    assert abs(sum(row["mode"] == "on" for row in rows) - share * len(rows)) <= 1


def test_missing_query_file_and_missing_teacher_name_the_mend(tmp_path):
    config = lab.load_profile("nano", {"model.queries": str(tmp_path / "none.jsonl")})
    with pytest.raises(UserError, match="model.queries"):
        queries.load(config, 10, 0, "train")
    with pytest.raises(UserError, match="katlab nano build"):
        teachers.LocalResponder(tmp_path)


def test_queries_come_from_the_users_file(tmp_path):
    path = tmp_path / "mine.jsonl"
    write_jsonl(path, ROWS[:20])
    config = lab.load_profile("nano", {"model.queries": str(path)})
    rows = queries.load(config, 5, 0, "train")
    assert len(rows) == 5 and all(row in ROWS for row in rows)
    with pytest.raises(UserError, match="20 train rows"):
        queries.load(config, 21, 0, "train")
