"""`katlab verify`: a file is graded, its bad rows are listed."""

import json

import pytest
from conftest import CHECKOUT
from rewards.examples import ABCD

from katlab import UserError
from katlab import cli as command
from katlab.rewards import cli, kinds


def test_a_file_is_graded_and_bad_rows_are_listed_by_line(tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    rows = [
        json.dumps({"kind": "math", "answer": "12", "reference": "12"}),
        "{broken",
        "",
        json.dumps({"kind": "math", "answer": "12", "reference": "13"}),
        json.dumps({"verifier": "choice", "answer": "B", "reference": {"answer": "B"}}),
        json.dumps({"kind": "maths", "answer": "12", "reference": "12"}),
        json.dumps({"kind": "math", "reference": "12"}),
        json.dumps([1]),
        json.dumps({"kind": "choice", "answer": "B", "reference": {"answer": "Z", **ABCD}}),
    ]
    file.write_text("\n".join(rows))
    assert cli.verify_file(file, tmp_path / "out.jsonl") == 1
    out, err = capsys.readouterr()
    table = {line.split()[0]: line.split()[1:5] for line in out.splitlines()}
    assert table["math"] == ["2", "1", "1", "0"]
    assert table["choice"] == ["2", "1", "0", "1"]
    assert table["total"] == ["4", "2", "1", "1"]
    assert [line.split(":")[0] for line in err.splitlines()] == [
        "line 2",
        "line 6",
        "line 7",
        "line 8",
        "line 9",
    ]
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [w["line"] for w in written] == [1, 4, 5, 9]
    assert [w["verdict"] for w in written] == ["correct", "wrong", "correct", "unscorable"]


def test_rows_that_would_end_the_file_are_listed(tmp_path, capsys):
    (tmp_path / "fails.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "odd.py").write_text(
        "from katlab.rewards import Verdict\n"
        "def verify(answer, reference):\n    return Verdict(True, 'odd', detail={(1,): object()})\n"
    )
    rows = [
        '{"kind": "math", "answer": "12", "reference": ' + "9" * 5000 + "}",
        json.dumps({"kind": str(tmp_path / "fails.py"), "answer": "1", "reference": "1"}),
        json.dumps({"kind": str(tmp_path / "odd.py"), "answer": "1", "reference": "1"}),
        "[" * 100_000,
        '{"kind": "math", "answer": "12", "reference": NaN}',
        '{"kind": "keywords", "answer": "\\udcff", "reference": {"all": ["\\udcff"]}}',
        json.dumps({"kind": "math", "answer": "12", "reference": "12"}),
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(rows))
    assert cli.verify_file(file, tmp_path / "out.jsonl") == 1
    err = capsys.readouterr().err
    assert [line.split(":")[0] for line in err.splitlines()] == [
        "line 1",
        "line 4",
        "line 2",
        "line 5",
    ]
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {w["line"]: w["verdict"] for w in written} == {
        2: "unscorable",
        3: "correct",
        5: "unscorable",
        6: "correct",
        7: "correct",
    }


def test_the_sample_file_holds_every_kind(capsys):
    assert cli.verify_file(CHECKOUT / "data_samples" / "verify" / "answers.jsonl") in (0, 1)
    out = capsys.readouterr().out
    assert all(kind in out for kind in kinds())


def test_a_byte_order_mark_is_no_fault(tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    row = json.dumps({"kind": "choice", "answer": "B", "reference": "B"})
    file.write_text(row, encoding="utf-8-sig")
    assert cli.verify_file(file) == 0


def test_a_missing_or_empty_file_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        cli.verify_file(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="holds no row"):
        cli.verify_file(tmp_path / "empty.jsonl")


def test_the_command_writes_each_verdict_with_its_reason(tmp_path, capsys):
    file, out = tmp_path / "rows.jsonl", tmp_path / "verdicts.jsonl"
    rows = [{"kind": "choice", "answer": a, "reference": "B"} for a in "BC"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert command.main(["verify", str(file), "--out", str(out)]) == 0
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["line"], row["verdict"]) for row in written] == [(1, "correct"), (2, "wrong")]
    assert all(row["reason"] for row in written)
    assert command.main(["verify", str(file), "--out", str(tmp_path / "none" / "v.jsonl")]) == 2
    assert "no folder" in capsys.readouterr().err


SAVED = {  # how an answer file is saved -> its bytes
    "with a byte order mark": lambda text: text.encode("utf-8-sig"),
    "with CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "with blank lines": lambda text: ("\n \n" + text.replace("\n", "\n\t\n")).encode(),
    "in UTF-16": lambda text: text.encode("utf-16"),
    "in UTF-32": lambda text: text.encode("utf-32"),
}


@pytest.mark.parametrize("how", SAVED)
def test_answers_are_read_however_they_are_saved(how, tmp_path, capsys):
    rows = [
        {"kind": "keywords", "answer": a, "reference": {"all": ["é"]}} for a in ("é\u2028", "e")
    ]
    file = tmp_path / "rows.jsonl"
    file.write_bytes(SAVED[how]("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)))
    assert cli.verify_file(file) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[1:4] == ["2", "1", "1"]


def test_a_byte_of_another_encoding_is_one_line_of_the_list(tmp_path, capsys):
    good = json.dumps({"kind": "math", "answer": "12", "reference": "12"})
    file = tmp_path / "rows.jsonl"
    file.write_bytes('{"kind": "choice", "answer": "café"}\n'.encode("latin-1") + good.encode())
    assert cli.verify_file(file) == 1
    assert capsys.readouterr().err == (
        "line 1: not graded, is not UTF-8 (byte 0xe9); save the file as UTF-8\n"
    )
