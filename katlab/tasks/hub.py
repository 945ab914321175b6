"""Any set of questions with answers, of the Hub or a local file, as query rows.

A map says which columns hold what (`Map`); those of GSM8K, MATH-500 and MBPP are in maps/, one of
your own is a TOML or JSON file, or begins with `extends = "gsm8k"` and says what differs. Local
files are JSONL, JSON (a list) or Parquet.

    rows = hub.read("gsm8k")        # query rows, each "split": "train", "test" or None
    rows = hub.read("mine.toml")
"""

import json
import re
import tomllib
import urllib.error
import urllib.request
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from katlab import UserError, jsonl
from katlab.lab.settings import Section, did_you_mean, sentences
from katlab.lab.stages import root
from katlab.rewards import text as texts

FOLDER = Path(__file__).parent
SHIPPED = ("maps/gsm8k.toml", "maps/math500.toml", "maps/mbpp.toml")  # named, so fingerprinted
LOCAL = (".jsonl", ".json", ".parquet")


class Map(Section):
    """Where a set lies and what its columns mean."""

    data: str = ""
    """Its id on the Hub; or a local file, whose rows are dealt to all splits by problem."""

    config: str = ""
    revision: str = ""
    """Of a set on the Hub; "": its own default, the newest."""

    train: str = ""
    test: str = ""
    """Which split of the set trains, and which stage 06 alone may read; or a local file each."""

    prompt: str
    """The question over a row's columns, as in "{question}"."""

    answer: str
    """The column of the answer."""

    read: Literal["text", "hashes", "boxed", "asserts", "reference"]
    r"""How: as it is, after the last "####", in the last \boxed{}, as the tests of code, or as what
    `verifier` takes."""

    setup: str = ""
    """With asserts: the column of code that they need first."""

    verifier: str = ""
    """"": math, and code for asserts."""

    category: Literal["code", "math", "science", "general"]
    difficulty: int = Field(default=3, ge=1, le=5)
    level: str = ""
    levels: dict[str, Literal[1, 2, 3, 4, 5]] = {}
    """The difficulty of all rows; or its column, and what that column's values mean if they are not
    the digits 1 to 5 ("Level 3" is 3)."""

    @model_validator(mode="after")
    def _whole(self) -> "Map":
        named = [where for where in (self.train, self.test) if where]
        whole = _is_local(self.data) and not named
        of_set = bool(self.data) and not any(map(_is_local, [self.data, *named]))
        apart = not self.data and named and all(map(_is_local, named))
        if not (whole or of_set or apart):
            raise ValueError(
                "a map has data = a Hub id (with the names of its splits as train and test), "
                "data = a local file, or a local file each as train and test"
            )
        if self.read == "reference" and not self.verifier:
            raise ValueError('read = "reference" needs the verifier that takes it')
        return self


def load_map(name: str) -> Map:
    """A shipped map by name, or one's own by its path (from the project folder).

    Raises UserError for a map that is not there or holds what no map holds.
    """
    values = _table(name, ())
    try:
        return Map(**values)
    except ValidationError as error:
        raise UserError("\n".join(sentences(error, Map, lambda _: f"Map {name}"))) from None


def read(name: str) -> list[dict]:
    """The query rows of a set, in its own order; each names its `set` and its `split`.

    A row of `train` has the split "train", one of `test` "test"; of a file or a set without these
    None. Raises UserError for a set out of reach, a column that is missing, the first row that
    cannot be read.
    """
    found = load_map(name)
    short = Path(name).stem
    rows = []
    for split, where in _parts(found):
        for index, raw in enumerate(_raw(found, where)):
            try:
                row = _query(found, raw)
            except KeyError as error:
                has = ", ".join(map(str, raw))
                raise UserError(
                    f"Map {name}: row {index + 1} of {where} has no column {error}; it has {has}."
                ) from None
            except (ValueError, IndexError) as error:
                raise UserError(f"Map {name}: row {index + 1} of {where}: {error}.") from None
            label = f"{short}-{split}-{index:05d}" if split else f"{short}-{index:05d}"
            rows.append({"id": label, "set": short, "split": split} | row)
    if not rows:
        raise UserError(f"Map {name}: {found.data or found.train or found.test} holds no row.")
    return rows


def files(name: str) -> list[Path]:
    """The local files that a map's rows come from."""
    return [root() / where for _, where in _parts(load_map(name)) if _is_local(where)]


def _is_local(where: str) -> bool:
    return where.endswith(LOCAL)


def _parts(found: Map) -> list[tuple[str | None, str]]:
    """(our split, the file or the set's split) of all that is read."""
    named = [("train", found.train), ("test", found.test)]
    parts: list[tuple[str | None, str]] = [(split, where) for split, where in named if where]
    return parts or [(None, found.data if _is_local(found.data) else "train")]


def _table(name: str, seen: tuple[str, ...]) -> dict:
    shipped = [Path(one).stem for one in SHIPPED]
    own = name.endswith((".toml", ".json"))
    path = root() / name if own else FOLDER / "maps" / f"{name}.toml"
    if name in seen:
        raise UserError(f"Map {name} extends itself: {' -> '.join((*seen, name))}.")
    if not path.is_file():
        told = did_you_mean(name, shipped)
        if own or "/" in name:
            told = "correct its path." if own else f'write one with data = "{name}".'
        raise UserError(f"There is no map {path if own else name}; {told}")
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"Map {path} is not valid {path.suffix[1:].upper()}: {error}.") from None
    if not isinstance(values, dict):
        raise UserError(f"Map {path} is no table of keys; see katlab/tasks/maps/gsm8k.toml.")
    base = values.pop("extends", "")
    if not base:
        return values
    below = _table(str(base), (*seen, name))
    if _is_local(str(values.get("train", "") or values.get("test", ""))):
        below = {k: v for k, v in below.items() if k not in ("data", "config", "train", "test")}
    if _is_local(str(values.get("data", ""))):
        below = {k: v for k, v in below.items() if k not in ("config", "train", "test")}
    return below | values


def _query(found: Map, raw: dict) -> dict:
    verifier = found.verifier or ("code" if found.read == "asserts" else "math")
    content = found.prompt.format(**raw).strip()
    if not content:
        raise ValueError("the question is empty")
    return {
        "category": found.category,
        "difficulty": _difficulty(found, raw),
        "messages": [{"role": "user", "content": content}],
        "tools": None,
        "verifier": verifier,
        "reference": _reference(found, raw),
    }


def _difficulty(found: Map, raw: dict) -> int:
    if not found.level:
        return found.difficulty
    said = str(raw[found.level])
    if said in found.levels:
        return found.levels[said]
    digits = re.findall(r"\d+", said)
    if len(digits) != 1 or int(digits[0]) not in range(1, 6):
        raise ValueError(f"the level {said!r} is none of 1 to 5; say what it means in [levels]")
    return int(digits[0])


def _reference(found: Map, raw: dict) -> Any:
    """What the verifier takes. ValueError where the column holds nothing of the kind."""
    answer = raw[found.answer]
    if found.read == "reference":
        if answer is None:
            raise ValueError("the answer is null")
        return answer
    if found.read == "asserts":
        if not answer or not all(isinstance(one, str) for one in answer):
            raise ValueError("the answer is no list of asserts")
        return {"asserts": list(answer), "setup": (raw[found.setup] or "") if found.setup else ""}
    text = "" if answer is None else str(answer).strip()
    if found.read == "hashes":
        text = text.rpartition("####")[2].strip().replace(",", "") if "####" in text else ""
    elif found.read == "boxed":
        text = (texts.boxes(text) or [""])[-1]
    if not text:
        raise ValueError(f"the answer {str(answer)[:40]!r} has nothing to read as {found.read}")
    return text


def _raw(found: Map, where: str) -> list[dict]:
    """The rows of a local file, or of a split of the set on the Hub."""
    if not _is_local(where):
        return _downloaded(found.data, found.config, found.revision, where)
    path = root() / where
    if path.suffix == ".jsonl":
        lines = jsonl.lines(path, "questions with answers")
        bad = {number: row for number, row in lines.items() if isinstance(row, str)}
        for number, reason in bad.items():
            raise UserError(f"{path}, line {number}: {reason}.")
        return [row for row in lines.values() if isinstance(row, dict)]
    if not path.is_file():
        raise UserError(f"The file {path} does not exist; correct it in the map.")
    try:
        if path.suffix == ".parquet":
            from pyarrow import parquet

            return parquet.read_table(path).to_pylist()
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # JSON's, Unicode's and Arrow's are all of this kind
        raise UserError(f"{path} is no {path.suffix[1:].upper()} file ({error}).") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path} is no list of JSON objects; write one, or JSONL.")
    return rows


@cache
def _downloaded(data: str, config: str, revision: str, split: str) -> list[dict]:
    """A split of a set on the Hub, from the cache where the Hub cannot be reached."""
    import datasets

    online = reachable()
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or not online  # or it tries for half a minute
    try:
        return list(
            datasets.load_dataset(data, config or None, split=split, revision=revision or None)
        )
    except (OSError, ValueError) as error:  # not found, no split, no network
        first = str(error).partition("\n")[0].rstrip(".")
        if before or not online:
            raise UserError(
                f"The data set {data} is not in the cache and the Hub cannot be reached; fetch it "
                "where it can, or write a map with extends and a local file."
            ) from None
        raise UserError(
            f"The Hub gives no split {split} of {data} ({first}); correct it."
        ) from None
    finally:
        datasets.config.HF_HUB_OFFLINE = before


@cache
def reachable() -> bool:
    """Whether the Hub answers; its own clients would try for half a minute, model by model."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urllib.request.urlopen(constants.ENDPOINT, timeout=10).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
