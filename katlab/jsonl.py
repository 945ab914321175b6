"""JSONL from anywhere: read whole, every bad line named, no line an end to the rest.

UTF-8 with or without a byte order mark, or UTF-16 or UTF-32 with one; lines end in LF or CRLF, and
blank ones are skipped. Queries and answers are read by this one function.

    jsonl.lines("mine.jsonl")  # {1: {"id": ...}, 2: "is not JSON (Expecting value at character 1)"}
"""

import codecs
import json
from pathlib import Path

from katlab import UserError

MARKS = {  # the longer first: UTF-32's begins with UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def lines(path: str | Path, holds: str) -> dict[int, dict | str]:
    """{line: its JSON object, or what is wrong with it}; `holds` names the rows in messages.

    Raises UserError when the file is missing, unreadable, in another encoding, a JSON list, empty,
    or no JSONL at all: not one line of it is a JSON object.
    """
    path = Path(path)
    found: dict[int, dict | str] = {}
    for number, line in enumerate(_text(path, holds).split("\n"), start=1):
        if line.strip():
            found[number] = _row(line)
    if not found:
        raise UserError(f"The file {path} holds no row; write one JSON object per line ({holds}).")
    if all(isinstance(row, _NoObject) for row in found.values()):
        number, reason = next(iter(found.items()))
        raise UserError(
            f"{path} is no JSONL of {holds}: line {number} {reason}; "
            "write one JSON object per line."
        )
    return found


class _NoObject(str):
    """What is wrong with a line that holds no JSON object."""


def _row(line: str) -> dict | str:
    if alien := next((c for c in line if "\udc80" <= c <= "\udcff"), None):
        return f"is not UTF-8 (byte 0x{ord(alien) - 0xDC00:x}); save the file as UTF-8"
    try:
        row = json.loads(line)
    except RecursionError:
        return "is nested too deeply"
    except json.JSONDecodeError as error:
        return _NoObject(f"is not JSON ({error.msg} at character {error.pos + 1})")
    except ValueError:  # Python reads no number of more digits than sys.get_int_max_str_digits()
        return "has a number of too many digits; write it as text"
    return row if isinstance(row, dict) else _NoObject("is no JSON object")


def _text(path: Path, holds: str) -> str:
    """A file's text; a byte that is no UTF-8 stays half a surrogate pair, which `_row` names."""
    if not path.exists():
        raise UserError(f"The file {path} does not exist; give a JSONL file of {holds}.")
    try:
        data = path.read_bytes()
        encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), "utf-8")
        text = data.decode(encoding, "surrogateescape" if "8" in encoding else "strict")
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); give a JSONL file of {holds}."
        ) from error
    except UnicodeDecodeError as error:
        line = data[: error.start].decode(encoding, "ignore").count("\n") + 1
        raise UserError(
            f"{path}, line {line}, is no {encoding.upper()}; save it as UTF-8."
        ) from error
    first, _, rest = text.strip().partition("\n")
    if first.startswith("[") and not (rest and "is no JSON object" == _row(first)):
        raise UserError(f"{path}, line 1, begins a JSON list; write one JSON object per line.")
    return text
