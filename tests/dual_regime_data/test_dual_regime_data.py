"""Stage 02: tags in the profile's words, routing, the exact composition, a killed stage."""

import pytest
import torch
from conftest import CHECKOUT
from hypothesis import given
from hypothesis import strategies as st
from responders import Scripted
from transformers import AutoTokenizer, GenerationConfig

from katlab import UserError, lab, teachers
from katlab.dual_regime_data import stage as dual_regime_data
from katlab.dual_regime_data.composition import compose
from katlab.dual_regime_data.routing import route
from katlab.dual_regime_data.tagging import tag
from katlab.generation import local
from katlab.lab import StageRun
from katlab.tasks.nano import world

ROWS = world.queries(120, seed=7, split="stage_1")
WORDS = lab.load_profile("tiny").prompts


def tagged(level_of=lambda row: row["difficulty"]):
    return [r | {"tags": {"domain": r["category"], "level": level_of(r)}} for r in ROWS]


def test_tagger_reads_domain_and_level_and_drops_what_it_cannot_read():
    replies = iter(["math, level 3", "code, level 9", "poetry, level 1", "no idea"])
    tagger = Scripted(lambda row, k: next(replies))
    got = tag(ROWS[:4], tagger, WORDS.tag, WORDS.tag_pattern)
    assert [row["tags"] for row in got] == [{"domain": "math", "level": 3}]


def test_tags_are_asked_for_and_read_in_the_profiles_words():
    asked = []

    def say(row, k):
        asked.append(row["messages"][-1]["content"])
        return "Let me see. Domain: math. Difficulty: 3"

    pattern = r"Domain: (?P<domain>\w+)\. Difficulty: (?P<level>\d)"
    got = tag(ROWS[:2], Scripted(say), "Which domain, and how hard is it?", pattern)
    assert [row["tags"] for row in got] == [{"domain": "math", "level": 3}] * 2
    assert all(text.endswith("\nWhich domain, and how hard is it?") for text in asked)
    assert got[0]["messages"] == ROWS[0]["messages"], "the query stays what it is"


def test_without_a_request_the_labels_are_the_tags_and_nobody_is_asked():
    def refuse(row, k):
        raise AssertionError("the tagger was asked")

    got = tag(ROWS[:3], Scripted(refuse), "", WORDS.tag_pattern)
    labels = [{"domain": row["category"], "level": row["difficulty"]} for row in ROWS[:3]]
    assert [row["tags"] for row in got] == labels


def test_the_words_for_real_models_read_what_they_write():
    """Large models emphasise, capitalise and explain; both halves must be there."""
    words = lab.load_profile("proxy-1.5b").prompts
    said = [
        "Domain: science. Difficulty: 2",
        "**Domain:** Math\n**Difficulty:** 5",
        "Sure! Domain: tool_use, Difficulty: 1.",
        "Domain: cooking. Difficulty: 2",
        "It is a hard one. Difficulty: 4",
    ]
    replies = iter(said)
    got = tag(ROWS[:5], Scripted(lambda row, k: next(replies)), words.tag, words.tag_pattern)
    assert [tuple(row["tags"].values()) for row in got] == [
        ("science", 2), ("math", 5), ("tool_use", 1),
    ]  # fmt: skip


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


@given(st.integers(5, 200), st.integers(5, 200), st.floats(0.1, 0.9))
def test_compose_is_exact_to_one_row(n_off, n_on, share):
    off = [{"mode": "off", "i": i} for i in range(n_off)]
    on = [{"mode": "on", "i": i} for i in range(n_on)]
    rows = compose(off, on, share, seed=0)
    assert abs(sum(row["mode"] == "on" for row in rows) - share * len(rows)) <= 1


class Oracle:
    """A teacher that knows the world: tags, direct answers (a third of them wrong), thoughts."""

    name_or_path, device, generation_config = "oracle", torch.device("cpu"), GenerationConfig()
    until, calls, rows = None, 0, 0  # of both teachers together

    def __init__(self, stage: StageRun, mode: str):
        self.mode = mode
        self.tok = AutoTokenizer.from_pretrained(CHECKOUT / "data_samples/nano" / f"teacher_{mode}")
        known = world.queries(stage.settings.queries, stage.seed, "stage_1")
        self.plain = {self.ids(row): row for row in known}
        self.tags = {self.ids(teachers.ask(row, WORDS.tag)): row for row in known}

    def ids(self, row: dict) -> tuple[int, ...]:
        prompt = self.tok.apply_chat_template(
            row["messages"], tools=row["tools"], tokenize=False, add_generation_prompt=True
        )
        return tuple(self.tok(prompt, add_special_tokens=False)["input_ids"])

    def eval(self):
        return self

    def say(self, ids: tuple[int, ...]) -> str:
        if ids in self.tags:
            return world.tags(self.tags[ids])
        row, wrong = self.plain[ids], float(torch.rand(())) < 1 / 3
        answer = "nothing" if wrong else row["direct"]
        return answer if self.mode == "off" else f"<think>\n{row['thought']}\n</think>\n\n{answer}"

    def generate(self, input_ids, attention_mask, generation_config):
        Oracle.calls, Oracle.rows = Oracle.calls + 1, Oracle.rows + len(input_ids)
        if Oracle.calls == Oracle.until:
            raise KeyboardInterrupt
        prompts = [
            tuple(ids[mask.bool()].tolist())
            for ids, mask in zip(input_ids, attention_mask, strict=True)
        ]
        said = [self.tok(self.say(ids) + self.tok.eos_token)["input_ids"] for ids in prompts]
        padded = self.tok.pad({"input_ids": said}, padding_side="right", return_tensors="pt")
        return torch.cat([input_ids, padded["input_ids"]], dim=1)


def test_a_killed_stage_asks_one_batch_again_and_makes_the_same_corpus(tmp_path, monkeypatch):
    def begin(name: str, until: int | None) -> StageRun:
        Oracle.until, Oracle.calls, Oracle.rows = until, 0, 0
        return StageRun.create(tmp_path, name, "02_dual_regime_data", profile="tiny")

    whole = begin("whole", until=None)
    teacher = {mode: Oracle(whole, mode) for mode in ("off", "on")}
    monkeypatch.setattr(
        teachers.models, "load_teacher", lambda config, mode: (teacher[mode], teacher[mode].tok)
    )
    figures, asked, calls = dual_regime_data.run(whole), Oracle.rows, Oracle.calls
    assert figures["tag_agreement"] == 1 and 0 < figures["kept_on"] <= 1
    cut = begin("cut", until=calls // 2)
    with pytest.raises(KeyboardInterrupt):
        dual_regime_data.run(cut)
    begun, Oracle.until = Oracle.rows, None
    assert 0 < begun < asked
    assert dual_regime_data.run(StageRun.open(cut.dir)) == figures
    assert Oracle.rows - asked <= local.SMALLEST_BATCH
    made, again = ((stage.dir / "corpus.jsonl").read_bytes() for stage in (whole, cut))
    assert made == again


def test_a_tagger_that_cannot_be_read_is_one_sentence(tmp_path, monkeypatch):
    stage = StageRun.create(tmp_path, "r", "02_dual_regime_data", profile="tiny")
    monkeypatch.setattr(teachers, "load", lambda *_: Scripted(lambda row, k: "It is easy."))
    with pytest.raises(UserError, match=r"readable tags; correct prompts\.tag and \S+pattern\.$"):
        dual_regime_data.run(stage)


def test_a_tagger_that_finds_nothing_hard_is_one_sentence(tmp_path, monkeypatch):
    stage = StageRun.create(tmp_path, "r", "02_dual_regime_data", profile="tiny")
    monkeypatch.setattr(teachers, "load", lambda *_: Scripted(lambda row, k: "math, level 1"))
    with pytest.raises(
        UserError, match=r"^One side of level 4 has none of the 240 tagged queries; give .*\.$"
    ):
        dual_regime_data.run(stage)


def test_queries_in_english_are_not_for_nanos_models(tmp_path):
    asked = [
        {
            "id": str(i), "category": "math", "difficulty": 1 + i % 5, "verifier": "math",
            "messages": [{"role": "user", "content": f"Tom has {i} pears."}], "reference": "1",
        }
        for i in range(16)
    ]  # fmt: skip
    lab.write_jsonl(tmp_path / "mine.jsonl", asked)
    given = {"model.queries": str(tmp_path / "mine.jsonl"), "dual_regime_data.queries": "all"}
    stage = StageRun.create(tmp_path, "r", "02_dual_regime_data", profile="tiny", overrides=given)
    with pytest.raises(UserError, match="own wording only .* such as proxy-1.5b or real-0.5b"):
        dual_regime_data.run(stage)
