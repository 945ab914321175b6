"""Rows on disk: whole files, the line of a mistake, journals that survive a kill."""

import errno
import json
import os

import pytest

from katlab import UserError
from katlab.lab import read_jsonl, rows, write_jsonl
from katlab.lab.rows import Journal


def test_rows_come_back_and_blank_lines_do_not_count(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"a": 1, "text": "é\u2028\ud800"}, {"a": [2, None]}])
    assert read_jsonl(path) == [{"a": 1, "text": "é\u2028\ud800"}, {"a": [2, None]}]
    assert list(tmp_path.iterdir()) == [path]
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"a": 2}')  # as Windows editors save
    assert read_jsonl(path) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"a": 1}\n\n{"a": \n', "rows.jsonl, line 3, is not JSON"),
        (b'{"a": 1}\n[1]\n', "line 2, must be a JSON object"),
        (b'{"a": "\xff"}\n', "line 1, is not JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path, content, words):
    (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=words) as mistake:
        read_jsonl(tmp_path / "rows.jsonl")
    assert "\n" not in str(mistake.value)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="There is no file .*none.jsonl"):
        read_jsonl(tmp_path / "none.jsonl")


def test_a_write_cut_off_leaves_the_old_rows(tmp_path, monkeypatch):
    write_jsonl(tmp_path / "rows.jsonl", [{"a": 1}])

    def cut(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", cut)
    with pytest.raises(KeyboardInterrupt):
        write_jsonl(tmp_path / "rows.jsonl", [{"a": 2}])
    assert read_jsonl(tmp_path / "rows.jsonl") == [{"a": 1}]


def test_a_journal_keeps_what_came_and_drops_a_torn_line(tmp_path):
    path = tmp_path / "replies.jsonl"
    journal = Journal(path)
    journal.put("q1", ["yes"])
    journal.put(["q2", 0], "no")
    assert path.read_text().count("\n") == 2  # on disk with every put
    with path.open("a") as file:
        file.write('["q3", "may')
    again = Journal(path)
    assert (again.get("q1"), again.get(["q2", 0]), again.get("q3")) == (["yes"], "no", None)
    assert len(again) == 2 and "q1" in again and "q3" not in again
    again.put("q3", "maybe")
    again.put("q1", ["yes", "again"])
    assert [json.loads(line)[0] for line in path.read_text().splitlines()] == [
        "q1",
        ["q2", 0],
        "q3",
        "q1",
    ]
    assert Journal(path).get("q1") == ["yes", "again"]


def test_a_journal_with_a_bad_line_says_which(tmp_path):
    (tmp_path / "j.jsonl").write_text('["a", 1]\nnothing\n["b", 2]\n')
    with pytest.raises(UserError, match="line 2"):
        Journal(tmp_path / "j.jsonl")


def test_a_journal_of_another_rank_writes_nothing(tmp_path):
    Journal(tmp_path / "j.jsonl").put("a", 1)
    with (tmp_path / "j.jsonl").open("a") as file:
        file.write("[torn")
    before = (tmp_path / "j.jsonl").read_bytes()
    other = Journal(tmp_path / "j.jsonl", writes=False)
    other.put("b", 2)
    assert (other.get("a"), other.get("b")) == (1, 2)
    assert (tmp_path / "j.jsonl").read_bytes() == before


def test_replace_takes_text_and_bytes(tmp_path):
    rows.replace(tmp_path / "a", "é")
    rows.replace(tmp_path / "b", b"\x89")
    assert (tmp_path / "a").read_bytes() == "é".encode()
    assert (tmp_path / "b").read_bytes() == b"\x89"


def test_a_file_that_cannot_be_replaced_leaves_no_part(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a.json").write_text("old")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        rows.replace(tmp_path / "a.json", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"
