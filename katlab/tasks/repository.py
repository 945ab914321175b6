"""A small repository that agents work on: they read a file, fix a function, test it, add another.

Report section 6.3 lets an agent inspect and edit a code base. A folder holds Python files and a
tasks.toml: bugs that can be put into them and functions that can be added, each with tests. An
agent gets a copy with one bug. It acts by its answer: a line `read FILE` or `test FILE`, or a
function in a Python block. Whatever is tested runs in the sandbox of the code verifier.

    (errand,) = repository.errands(Path("data_samples/repository"), 1, seed=0)
    request, tools = errand.task(0);  errand.execute(0, "read money.py")  # ({"money.py": …}, True)
"""

import ast
import random
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from katlab import UserError
from katlab.rewards import grade
from katlab.rewards.markdown import program

TASKS = "tasks.toml"
COMMANDS = "Commands are `read FILE` and `test FILE`."
COMMAND = re.compile(r"(?:```\w*\s+|`)?\$?\s*(read|test)\s+([\w./-]+?)[.\s]*(?:`|\s```)?")


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    file: str
    function: str
    tests: list[dict[str, Any]] = Field(min_length=1)


class Bug(_Row):
    """A function of a file, the part of it that is right, and what a bug makes of that part."""

    right: str
    wrong: str


class Addition(_Row):
    """A function that a file lacks, and what it is to do, in words."""

    does: str


class Tasks(BaseModel):
    """tasks.toml; an agent has a bug and an addition of one file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    bug: list[Bug] = Field(min_length=1)
    addition: list[Addition] = Field(min_length=1)


@dataclass
class Errand:
    """One agent's copy of the repository, and what it is asked at each of four steps."""

    files: dict[str, str]
    bug: Bug
    addition: Addition
    tests: dict[str, dict[str, list[dict]]]  # by file and function
    steps = ("read a file", "fix a function", "test a file", "add a function")

    def task(self, step: int) -> tuple[str, list[dict]]:
        """What is asked at a step (from 0), from the state that the agent left; no tools."""
        file, function = self.bug.file, self.bug.function
        shown = f"{file}:\n```python\n{self.files[file]}```\n"
        if step == 0:
            listed = (f"- {name}: {', '.join(defined(s))}" for name, s in self.files.items())
            asked = "A repository has these files, with their functions:\n" + "\n".join(listed)
            asked += f"\n{self._failure()} Give the one command that shows the file of {function}."
            return f"{asked} {COMMANDS}", []
        if step == 1:
            return f"{shown}{self._failure()} Write the corrected function in a Python block.", []
        if step == 2:
            told = f"The function {function} of {file} was edited."
            return f"{told} Give the one command that tests its file. {COMMANDS}", []
        return f"{shown}Add a function: {self.addition.does}. Write it in a Python block.", []

    def execute(self, step: int, answer: str) -> tuple[dict, bool]:
        """What an answer brings about, and whether that is what the step asked for.

        An answer that is neither a command nor a function that is asked for gets an error.
        """
        edits: dict[int, Bug | Addition] = {1: self.bug, 3: self.addition}
        if command := COMMAND.fullmatch(answer.strip()):
            asked = {0: ("read", self.bug.file), 2: ("test", self.bug.file)}
            return self._command(*command.groups()), command.groups() == asked.get(step)
        if step not in edits:
            return {"error": "the answer is no command"}, False
        return self._edit(edits[step], answer)

    def _command(self, name: str, file: str) -> dict:
        if file not in self.files:
            return {"error": f"there is no file {file}; there are {', '.join(self.files)}"}
        if name == "read":
            return {file: self.files[file]}
        return {"file": file} | self._run(file, self.tests.get(file, {}))

    def _edit(self, row: Bug | Addition, answer: str) -> tuple[dict, bool]:
        """Put the answer's function in the place of the one of its name, or at the end."""
        source = program(answer, row.function)
        if row.function not in defined(source):
            return {"error": f"the answer has no function {row.function}"}, False
        self.files[row.file] = without(self.files[row.file], row.function) + f"\n\n{source}\n"
        self.tests.setdefault(row.file, {})[row.function] = row.tests
        result = self._run(row.file, {row.function: row.tests})
        return {"edited": row.function} | result, not result["failed"]

    def _run(self, file: str, tests: dict[str, list[dict]]) -> dict:
        """How many functions pass their tests, and why the others do not."""
        fenced = f"```python\n{self.files[file]}\n```"
        found = grade(
            ("code", fenced, {"entry": name, "tests": cases}) for name, cases in tests.items()
        )
        failed = [
            f"{name}: {verdict.reason}"
            for name, verdict in zip(tests, found, strict=True)
            if not verdict.correct
        ]
        return {"passed": len(tests) - len(failed), "failed": failed}

    def _failure(self) -> str:
        """The first test of the bug's function that fails, in words."""
        function, tests = self.bug.function, self.bug.tests
        failed = self._run(self.bug.file, {function: tests})["failed"]
        said = failed[0].removeprefix(f"{function}: ") if failed else ""
        place = re.match(r"test (\d+) of", said)
        case = tests[int(place[1]) - 1 if place else 0]
        given = ", ".join(map(repr, case["args"]))
        wanted = f"{function}({given}) has to be {case['expected']!r}"
        return f"A test fails: {wanted}; {said}." if said else f"{wanted}."


def errands(folder: Path, n: int, seed: int) -> list[Errand]:
    """`n` agents' copies, each with one bug; UserError for a folder that is no such repository."""
    files, tasks = load(folder)
    rng, found = random.Random(seed), []
    for _ in range(n):
        bug = rng.choice(tasks.bug)
        addition = rng.choice([row for row in tasks.addition if row.file == bug.file])
        tests: dict[str, dict[str, list[dict]]] = {}
        for row in tasks.bug:
            tests.setdefault(row.file, {})[row.function] = row.tests
        broken = files | {bug.file: files[bug.file].replace(bug.right, bug.wrong)}
        found.append(Errand(broken, bug, addition, tests))
    return found


def load(folder: Path) -> tuple[dict[str, str], Tasks]:
    """The Python files of a repository by name, and its tasks; UserError names the first fault."""
    path = folder / TASKS
    if not path.is_file():
        raise UserError(f"{folder} has no {TASKS}; give a folder like data_samples/repository.")
    try:
        tasks = Tasks.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is no TOML ({error}).") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = " ".join(str(at + 1) if isinstance(at, int) else at for at in first["loc"])
        raise UserError(f"{path}: {place}: {first['msg'].lower()}.") from None
    files = {file.name: file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.py"))}
    for row in (*tasks.bug, *tasks.addition):
        if row.file not in files:
            raise UserError(f"{path}: {row.function} is of {row.file}, which is not in {folder}.")
    for bug in tasks.bug:
        if files[bug.file].count(bug.right) != 1:
            raise UserError(f"{path}: {bug.file} does not have {bug.right!r} once.")
        if not any(row.file == bug.file for row in tasks.addition):
            raise UserError(f"{path}: {bug.file} has a bug and no addition.")
    return files, tasks


def defined(source: str) -> list[str]:
    """The functions that a source defines at its top, in order; none if it is no Python."""
    tree = _parsed(source)
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef)] if tree else []


def without(source: str, function: str) -> str:
    """The source without a function at its top; as it is where it has none of that name."""
    lines = source.splitlines()
    for node in reversed(tree.body if (tree := _parsed(source)) else []):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            first = min([node.lineno, *(mark.lineno for mark in node.decorator_list)])
            del lines[first - 1 : node.end_lineno]
    return "\n".join(lines).rstrip()


def _parsed(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
