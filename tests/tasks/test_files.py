"""Query files as people save them: read, or one sentence with the line; and what `check` prints.

Each table is one kind of case; a further case is one more row.
"""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from katlab import UserError
from katlab.tasks import files, queries
from katlab.tasks.nano import world

ASK = {"role": "user", "content": "Compute 4+9."}
ROW = {
    "id": "m1", "category": "math", "difficulty": 1, "messages": [ASK], "tools": None,
    "verifier": "math", "reference": "13", "split": "train",
}  # fmt: skip
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "get"}}]}


def line(**changed) -> str:
    return json.dumps(ROW | changed, ensure_ascii=False)


def says(content, role: str = "user") -> str:
    """A row whose first message has this content."""
    return line(messages=[{"role": role, "content": content}, ASK])


def without(*keys: str) -> str:
    return json.dumps({key: value for key, value in ROW.items() if key not in keys})


SAVED = {  # how a file is saved -> its bytes; each has two rows, of which one says "é\u2028"
    "plainly": lambda text: text.encode(),
    "with a byte order mark": lambda text: text.encode("utf-8-sig"),
    "with CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "without a last line end": lambda text: text.rstrip("\n").encode(),
    "with blank lines": lambda text: ("\n  \n" + text.replace("\n", "\n\t\n")).encode(),
    "in UTF-16": lambda text: text.encode("utf-16"),
    "in big-endian UTF-16": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "in UTF-32": lambda text: text.encode("utf-32"),
}


@pytest.mark.parametrize("how", SAVED)
def test_a_file_is_read_however_it_is_saved(how, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(SAVED[how](says("é\u2028") + "\n" + line() + "\n"))
    assert [row["messages"][0]["content"] for row in files.read(path)] == [
        "é\u2028",
        "Compute 4+9.",
    ]


def test_a_row_in_the_stated_form_is_left_as_it_is(tmp_path):
    rows = world.queries(60, 3, "train")
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert files.read(path) == rows


READ = {  # another form of a row -> what it changes
    without("tools", "split"): {"tools": None, "split": None},
    line(id=7): {"id": "7"},
    line(difficulty=3.0): {"difficulty": 3},
    line(source="AIME", year=2024): {"source": "AIME", "year": 2024},
    line(verifier="roman"): {"verifier": "roman"},  # named under the profile's [rewards]
    line(reference={"a": None}): {"reference": {"a": None}},
    line(messages=[{"role": "user", "content": ["a", {"type": "text", "text": "a"}]}]): {
        "messages": [{"role": "user", "content": "aa"}]
    },
    line(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}] * 2}]): {
        "messages": [{"role": "user", "content": "aa"}]
    },
    line(messages=[ASK, CALL, {"role": "tool", "content": {"t": "9°"}}]): {
        "messages": [ASK, CALL, {"role": "tool", "content": '{"t": "9°"}'}]
    },
    line(messages=[ASK, {"role": "assistant", "content": "4"}, ASK]): {
        "messages": [ASK, {"role": "assistant", "content": "4"}, ASK]
    },
    line(messages=[{"role": "user", "content": "x", "name": "Ann"}]): {
        "messages": [{"role": "user", "content": "x", "name": "Ann"}]
    },
}


@pytest.mark.parametrize("text", READ)
def test_other_forms_of_a_row_are_read(text, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(text)
    [row] = files.read(path, own={"roman": "verifiers/roman.py"})
    assert {"split": None} | row == ROW | READ[text]


BAD = {  # a second line -> what is said of it
    b"{": "is not JSON",
    b"not JSON": "is not JSON (Expecting value at character 1)",
    b"3": "is no JSON object",
    says("café").encode("latin-1"): "is not UTF-8 (byte 0xe9); save the file as UTF-8",
    line(reference=9).replace("9", "9" * 5000).encode(): "too many digits; write it as text",
    b"[" * 100_000: "is nested too deeply",
    without("verifier").encode(): "lacks verifier",
    without("id", "reference").encode(): "lacks id, reference",
    line(reference=None).encode(): "reference is null",
    line(difficulty=9).encode(): "difficulty is 9, but should be less than or equal to 5",
    line(difficulty="hard").encode(): "difficulty is 'hard', but should be a valid integer",
    line(category="maths").encode(): "category is 'maths', but should be 'code', 'math'",
    line(split="test").encode(): "split is 'test', but should be 'train' or 'eval'",
    line(verifier="mth").encode(): "verifier 'mth' is none of choice, code",
    line(verifier="gone.py").encode(): "verifier 'gone.py' is none of choice, code",
    line(messages=[]).encode(): "messages is []",
    line(
        messages="Compute 4+9."
    ).encode(): "messages is 'Compute 4+9.', but should be a valid list",
    line(messages=[{"content": "x"}]).encode(): "lacks role",
    says("x", "critic").encode(): "messages.0.role is 'critic'",
    says(None).encode(): "messages.0 content is missing",
    says([{"type": "image"}]).encode(): "messages.0 content must be text or a list of parts",
    says({"text": "x"}).encode(): "messages.0 content must be text",
    says(r"\ud83d").replace(r"\\u", r"\u").encode(): "half a surrogate pair",
    line(messages=[ASK, {"role": "assistant", "content": "4"}]).encode(): "not one to answer",
    line(messages=[CALL | {"tool_calls": [{}]}, ASK]).encode(): "each tool call needs a name",
    line(messages=[CALL | {"tool_calls": [{"function": "get"}]}, ASK]).encode(): (
        "each tool call needs a name"
    ),
    line(tools={"name": "get"}).encode(): "tools is {'name': 'get'}, but should be a valid list",
    line(split="eval").encode(): "repeats the problem of line 1 under another split",
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_a_bad_line_is_one_sentence_with_file_and_line(text, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(line().encode() + b"\n" + text + b"\n")
    with pytest.raises(UserError) as refused:
        files.read(path)
    message = str(refused.value)
    assert message.startswith(f"{path}, line 2: ") and BAD[text] in message
    assert "\n" not in message and len(message) < 400


UNREAD = {  # bytes of a whole file -> what is said of it
    b"": "holds no row",
    b"\xef\xbb\xbf\n \n": "holds no row",
    b"[1]\n" + line().encode(): "line 1: is no JSON object",
    json.dumps([ROW, ROW], indent=1).encode(): "line 1, begins a JSON list",
    line().encode("utf-16")[:-1]: "line 1, is no UTF-16; save it as UTF-8",
    f"{line()}\n{line()}".encode("utf-16") + b"\x00\xd8": "line 2, is no UTF-16",
    json.dumps(ROW, indent=1).encode(): "is no JSONL of query rows: line 1 is not JSON",
    line().encode("utf-16-le"): "is no JSONL of query rows: line 1 is not JSON",
}


@pytest.mark.parametrize("content", UNREAD, ids=range(len(UNREAD)))
def test_a_file_that_is_no_jsonl_is_one_sentence(content, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=UNREAD[content]) as refused:
        files.read(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("call", [files.read, files.check])
def test_a_missing_file_is_one_sentence(call, tmp_path):
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(
            UserError, match="(does not exist|Is a directory.); give a JSONL file of query"
        ):
            call(path)


def test_a_stage_refuses_a_file_with_a_bad_line_before_it_loads_anything(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(f"{line(split='eval')}\n\n{without('reference')}\n{without('id')}\n")
    config = SimpleNamespace(model=SimpleNamespace(queries=str(path)), rewards=SimpleNamespace())
    with pytest.raises(UserError, match="line 3: lacks reference .*check.* lists 2 such lines"):
        queries.load(config, 1, 0, "eval")


def test_check_counts_by_category_difficulty_split_and_verifier(tmp_path, capsys):
    path = tmp_path / "[b]mine.jsonl"  # brackets are no markup
    other = [ASK | {"content": "B?"}]
    path.write_text(
        f"{line()}\n{line(difficulty=5, id='m2')}\n"
        f"{line(category='science', verifier='choice', split='eval', messages=other, id='s1')}\n"
    )
    assert files.check(path) == 0
    shown = [row.split() for row in capsys.readouterr().out.splitlines()]
    assert shown[0] == [f"{path}:", "3", "rows"]
    assert ["math", "2", "1", "0", "0", "0", "1", "2", "0", "0", "math", "2"] in shown
    assert ["science", "1", "1", "0", "0", "0", "0", "0", "1", "0", "choice", "1"] in shown
    assert [
        "all",
        "3",
        "2",
        "0",
        "0",
        "0",
        "1",
        "2",
        "1",
        "0",
        "math",
        "2,",
        "choice",
        "1",
    ] in shown


def test_check_lists_every_bad_line_and_ids_that_come_again(tmp_path, capsys):
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join([line(), "{", line(), without("id"), *["3"] * 40]))
    assert files.check(path) == 1
    shown = capsys.readouterr().out.splitlines()
    assert "line 3 has the id of line 1" in shown
    assert "line 4: lacks id" in shown
    assert [row for row in shown if row.startswith("line 44: ")] == ["line 44: is no JSON object"]


def test_check_knows_the_verifiers_of_a_profile(tmp_path):
    path = tmp_path / "mine.jsonl"
    (tmp_path / "roman.py").write_text("")
    path.write_text(line(verifier="roman") + "\n" + line(verifier=str(tmp_path / "roman.py")))
    assert files.check(path) == 1
    assert files.check(path, own={"roman": "verifiers/roman.py"}) == 0


def test_the_files_that_ship_are_sound(capsys):
    assert files.check("data_samples/queries.jsonl") == 0
    assert "60 rows" in capsys.readouterr().out


def test_checking_a_file_needs_no_torch():
    code = (
        "import sys; from katlab.tasks import files, queries;"
        "files.check('data_samples/queries.jsonl');"
        "print({'torch', 'transformers', 'reasoning_gym', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
