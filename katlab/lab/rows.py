"""Files of rows: JSONL read with the line of a mistake, written whole, or kept as rows come.

Usage:  rows = read_jsonl(path);  write_jsonl(path, rows)
        replies = Journal(folder / "replies.jsonl");  replies.put(key, text);  replies.get(key)
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from katlab import UserError


def replace(path: Path, content: str | bytes) -> None:
    """Write a whole file so that a reader or a kill sees the old one or the new one."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)  # what a full disk cut off


def read_jsonl(path: str | Path) -> list[dict]:
    """The rows of a JSONL file; blank lines are skipped.

    Raises UserError if the file is missing, or names the line that is no JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no file {path}; give a JSONL file with one row per line.")
    return _parse(path, path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), dict)


def write_jsonl(path: str | Path, rows: Iterable[dict]) -> None:
    """Replace a JSONL file atomically, one row per line."""
    lines = (json.dumps(row, default=scalar) + "\n" for row in rows)
    replace(Path(path), "".join(lines))


def scalar(value: Any) -> object:
    """numpy and zero-dimensional torch values as JSON scalars, paths as text."""
    return str(value) if isinstance(value, Path) else value.item()


class Journal:
    """Values kept by key as they come: one JSON line per `put`, flushed, so a kill costs nothing.

    A last line that a kill cut off is dropped. Keys are any JSON value; a later value of a key
    replaces the earlier one. With `writes=False` (another rank) values stay in memory.
    """

    def __init__(self, path: str | Path, writes: bool = True):
        self.path, self.writes = Path(path), writes
        content = self.path.read_bytes() if self.path.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        pairs = _parse(self.path, whole.split(b"\n"), list)
        self._values = {_key(key): value for key, value in pairs}
        if writes and whole != content:
            os.truncate(self.path, len(whole))

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return _key(key) in self._values

    def get(self, key: object, default: Any = None) -> Any:
        """The value last put under `key`, else `default`."""
        return self._values.get(_key(key), default)

    def put(self, key: object, value: object) -> None:
        """Keep a value under a key, in memory and at the end of the file."""
        line = json.dumps([key, value], default=scalar)
        if self.writes:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        self._values[_key(key)] = json.loads(line)[1]


def _key(key: object) -> str:
    return json.dumps(key, sort_keys=True)


def _parse(path: Path, lines: Iterable[bytes], kind: type) -> list:
    parsed = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:  # JSONDecodeError or UnicodeDecodeError
            raise UserError(f"{path}, line {number}, is not JSON ({error}); correct it.") from error
        if not isinstance(row, kind):
            raise UserError(
                f"{path}, line {number}, must be a JSON {'object' if kind is dict else 'list'}."
            )
        parsed.append(row)
    return parsed
