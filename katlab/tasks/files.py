"""Files of queries: read whole and checked row by row before anything is loaded.

JSONL as `katlab.jsonl` reads it. A row is a `Query`; other keys stay as they are.

    rows = files.read("mine.jsonl")      # or UserError with the first bad line
    status = files.check("mine.jsonl")   # prints what the file holds and every bad line
"""

import json
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from katlab import UserError, jsonl, rewards
from katlab.lab.stages import root

TOOL = ("tool", "function")
TEXT = ("text", "input_text", "output_text")  # types of a part that is text


class Message(BaseModel, extra="allow"):
    """One message of a chat, in any form that chat templates take; its content becomes text."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | None = None
    tool_calls: list[dict] | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_text(cls, message: Any) -> Any:
        if not isinstance(message, dict) or isinstance(message.get("content"), str | None):
            return message
        content = message["content"]
        parts = content if isinstance(content, list) and content else [None]
        tool = message.get("role") in TOOL
        parts = [
            {"type": "text", "text": p} if isinstance(p, str) and not tool else p for p in parts
        ]
        if all(isinstance(part, dict) and part.get("type") in TEXT for part in parts):
            return message | {"content": "".join(str(part.get("text", "")) for part in parts)}
        if tool:
            return message | {"content": json.dumps(content, ensure_ascii=False)}
        raise ValueError("content must be text or a list of parts of type text")

    @model_validator(mode="after")
    def _says_something(self) -> "Message":
        calls = [call.get("function") or call for call in self.tool_calls or []]
        if not all(isinstance(c, dict) and isinstance(c.get("name"), str) for c in calls):
            raise ValueError("each tool call needs a name")
        said = {"tool_calls", "function_call", "reasoning_content", "thinking", "reasoning"}
        apart = self.role == "assistant" and any(getattr(self, key, None) for key in said)
        if self.content is None and not apart and self.role not in TOOL:
            raise ValueError("content is missing")
        return self


def _text_of_id(value: Any) -> Any:
    return str(value) if isinstance(value, int) else value


class Query(BaseModel, extra="allow"):
    """A query row (data_samples/README.md)."""

    id: Annotated[str, BeforeValidator(_text_of_id)]
    category: Literal["code", "math", "science", "general", "multi_turn", "tool_use"]
    difficulty: int = Field(ge=1, le=5)
    messages: list[Message] = Field(min_length=1)
    tools: list[dict] | None = None
    verifier: str
    reference: Any
    split: Literal["train", "eval"] | None = None

    @model_validator(mode="after")
    def _asks(self) -> "Query":
        if self.messages[-1].role not in ("user", *TOOL):
            raise ValueError(
                f"the last message is of role {self.messages[-1].role}, not one to answer"
            )
        if self.reference is None:
            raise ValueError("reference is null")
        return self


def problem(row: dict) -> str:
    """What makes two rows the same problem: their turns and tools."""
    return json.dumps([row["messages"], row.get("tools")], sort_keys=True)


def read(path: str | Path, own: Collection[str] = ()) -> list[dict]:
    """The rows of a query file; `own` are verifiers' names that the profile's [rewards] knows.

    Raises UserError with file and line of the first row that is none.
    """
    rows, bad = _scan(Path(path), own)
    for line, reason in bad.items():
        more = f" (`katlab check {path}` lists {len(bad)} such lines)" if len(bad) > 1 else ""
        raise UserError(f"{path}, line {line}: {reason}{more}.")
    return list(rows.values())


def check(path: str | Path, own: Collection[str] = ()) -> int:
    """Print what a query file holds by category, and every bad line; 1 where there is one, else 0.

    Raises UserError when the file is missing, is no JSONL, or holds no row.
    """
    from rich.table import Column

    from katlab.lab.console import plural, table

    rows, bad = _scan(Path(path), own)
    splits = ("train", "eval", None)
    numbers = ("rows", *map(str, range(1, 6)), "train", "eval", "either")
    shown, categories = [], sorted({row["category"] for row in rows.values()})
    for name in [*categories, "all"]:
        of = [row for row in rows.values() if name in (row["category"], "all")]
        levels = Counter(int(row["difficulty"]) for row in of)
        said = Counter(row.get("split") for row in of)
        counts = [len(of), *(levels[n] for n in range(1, 6)), *(said[split] for split in splits)]
        verifiers = Counter(row["verifier"] for row in of)
        told = ", ".join(f"{kind} {n}" for kind, n in verifiers.most_common())
        shown.append((name, *map(str, counts), told))
    counted = [Column(name, justify="right") for name in numbers]
    print(f"{path}: {plural(len(rows), 'row')}\n(1 to 5: levels of difficulty)\n")
    print(table(["category", *counted, "verifiers"], shown))
    first: dict[str, int] = {}
    for line, row in rows.items():
        if (same := first.setdefault(row["id"], line)) != line:
            print(f"line {line} has the id of line {same}")
    for line, reason in bad.items():
        print(f"line {line}: {reason}")
    return 1 if bad else 0


def _scan(path: Path, own: Collection[str]) -> tuple[dict[int, dict], dict[int, str]]:
    """({line: row}, {line: what is wrong with it}) of a whole file."""
    rows: dict[int, dict] = {}
    bad: dict[int, str] = {}
    problems: dict[str, int] = {}
    for number, found in jsonl.lines(path, "query rows").items():
        if isinstance(found, str):
            bad[number] = found
            continue
        try:
            json.dumps(found, ensure_ascii=False).encode()
            row = _row(found, own)
            first = problems.setdefault(problem(row), number)
            if row.get("split") != rows.get(first, row).get("split"):
                raise ValueError(f"repeats the problem of line {first} under another split")
            rows[number] = row
        except ValidationError as error:
            bad[number] = _reason(error)
        except UnicodeEncodeError:
            bad[number] = "has half a surrogate pair, which is no character"
        except ValueError as error:
            bad[number] = str(error)
    return rows, bad


def _row(row: dict, own: Collection[str]) -> dict:
    """A row with its messages as text. ValueError says what is wrong with it."""
    query = Query.model_validate(row)
    if reason := no_verifier(query.verifier, own):
        raise ValueError(reason)
    messages = [message.model_dump(exclude_unset=True) for message in query.messages]
    return row | {
        "id": query.id, "difficulty": query.difficulty, "messages": messages, "tools": query.tools
    }  # fmt: skip


def no_verifier(kind: str, own: Collection[str]) -> str:
    """Why a kind names no verifier, "" where it does."""
    there = kind.endswith(".py") and (Path(kind).is_file() or (root() / kind).is_file())
    if there or kind in (*rewards.kinds(), *own):
        return ""
    return (
        f"verifier {kind!r} is none of {', '.join(rewards.kinds())}, no file, and not named "
        "under the profile's [rewards]"
    )


def _reason(error: ValidationError) -> str:
    """What breaks the schema, in one line."""
    faults = error.errors()
    if lacking := [str(fault["loc"][-1]) for fault in faults if fault["type"] == "missing"]:
        return f"lacks {', '.join(lacking)}"
    where = ".".join(map(str, faults[0]["loc"]))
    message = faults[0]["msg"].removeprefix("Value error, ").replace("Input should", "should")
    given = "" if faults[0]["type"] == "value_error" else f" is {faults[0]['input']!r:.40}, but"
    return f"{where}{given} {message}".strip()
