"""From a code reference to what is run and what is compared: the forms of tests.

  function calls   {"entry": "f", "tests": [{"args": [3], "kwargs": {}, "expected": 9}, ...]}
  stdin/stdout     {"tests": [{"input": "3\\n", "output": "9\\n"}, ...]} or {"inputs", "outputs"}
  check(candidate) {"prompt": ..., "test": ..., "entry_point": ...} (HumanEval's fields)
  asserts          {"asserts": ["assert f(3) == 9", ...], "setup": ""} (MBPP's `test_list`,
                   `test_setup_code` and `test_imports` are read too)
Any of them may add "seconds" (default 5), "memory" (bytes, default 512 MiB), and "tolerance": how
far, absolute or relative, a number may be off (default: see `compare`).

Also read: `fn_name` with `inputs` and `outputs` (APPS, TACO: one list of arguments per call, the
value bare or in a list of one; or one JSON value per line), all of it under `input_output`;
`func_name`, also under `metadata` (LiveCodeBench); JSON
text for the whole or for a list; numbers and lists of lines as a program's input or output;
"Solution().f" as "Solution.f". What has none of these forms is the row's fault.
Usage: `plan = read({"entry": "f", "tests": [{"args": [3], "expected": 9}]})`
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import isfinite
from typing import Any

from katlab import UserError
from katlab.rewards import asserts
from katlab.rewards.compare import Want

ENTRIES = ("entry", "fn_name", "entry_point", "func_name", "function_name")


@dataclass(frozen=True)
class Plan:
    """mode: call, stdin, judge or asserts; `requests` enter the sandbox, `wants` never do."""

    mode: str
    entry: str = ""
    setup: str = ""
    requests: list[Any] = field(default_factory=list)
    wants: list[Want] = field(default_factory=list)
    tests: str = ""
    names: list[tuple[str, str]] = field(default_factory=list)
    trust: str = "full"
    prompt: str = ""
    seconds: float = 5.0
    memory: int = 512 << 20


def read(reference: dict[str, Any] | str) -> Plan:
    """The plan of a reference. Raises UserError when it has none of the forms above."""
    try:
        return _read(json.dumps(_value(reference), sort_keys=True))
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"Correct the code reference: reading it gave {error!r}.") from error


def _value(text: Any) -> Any:
    """What JSON text holds; anything else, a test in Python above all, as it is."""
    if isinstance(text, str) and text.lstrip()[:1] in ("{", "["):
        return json.loads(text)
    return text


@lru_cache(maxsize=4096)
def _read(text: str) -> Plan:
    ref = json.loads(text)
    ref = {"asserts": ref} if isinstance(ref, list) else ref
    if not isinstance(ref, dict):
        raise UserError("A code reference is a dict: give {'entry': 'f', 'tests': [...]}.")
    for nested in ("metadata", "input_output"):
        ref |= found if isinstance(found := _value(ref.get(nested)) or {}, dict) else {}
    plan = replace(_form(ref), **_limits(ref))
    if (tolerance := ref.get("tolerance")) is not None:
        if not _is_number(tolerance) or tolerance < 0:
            raise UserError("The tolerance must be a number of at least 0: correct the reference.")
        wants = [replace(want, within=max(tolerance, want.within or 0)) for want in plan.wants]
        plan = replace(plan, wants=wants)
    return plan


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _limits(ref: dict[str, Any]) -> dict[str, Any]:
    limits = {k: ref[k] for k in ("seconds", "memory") if ref.get(k) is not None}
    if not all(_is_number(value) and 0 < value < 2**50 for value in limits.values()):
        raise UserError("The limits seconds and memory must be positive numbers: correct them.")
    return {k: int(v) if k == "memory" else v for k, v in limits.items()}


def _form(ref: dict[str, Any]) -> Plan:
    entry = next((ref[k] for k in ENTRIES if ref.get(k) is not None), "")
    if not isinstance(entry, str):
        raise UserError("The function's name must be text: correct 'entry' in the reference.")
    entry = entry.replace("()", "").strip()
    if entry and not (entry.count(".") < 2 and all(map(str.isidentifier, entry.split(".")))):
        raise UserError(f"{entry!r} names no function: give its name, or Class.method.")
    given = _value(ref.get("asserts", ref.get("test_list")))
    imports = "\n".join(ref.get("test_imports") or [])
    setup = "\n".join(filter(None, (imports, ref.get("setup", ref.get("test_setup_code")))))
    asserts.parsed(setup)
    if given is not None:
        source = given if isinstance(given, str) else "\n".join(given)
        return Plan(**asserts.read_asserts(source, setup, entry))
    if "test" in ref:
        prompt = ref.get("prompt") or ""
        return Plan(prompt=prompt, **asserts.read_check(ref["test"], prompt, entry))
    tests: Any = _value(ref.get("tests"))
    if tests is None and "inputs" in ref:
        pairs = zip(_value(ref["inputs"]), _value(ref["outputs"]), strict=True)
        tests = [{"input": i, "output": o} for i, o in pairs]
    if not tests or not isinstance(tests, list):
        raise UserError("A code reference needs tests: give tests, inputs, test or asserts.")
    inputs = [test["input"] for test in tests if "input" in test]
    functional = ref.get("fn_name") or any(t.get("testtype") == "functional" for t in tests)
    texts = not functional and all(isinstance(one, str) for one in inputs)
    if len(inputs) == len(tests) and (texts or not entry):
        if functional:
            raise UserError("Functional tests need the function's name: add 'fn_name'.")
        wants = [Want("text", _lines(test["output"])) for test in tests]
        return Plan("stdin", requests=[_lines(test["input"]) for test in tests], wants=wants)
    if not entry:
        raise UserError("Function tests need the function's name: add 'entry' to the reference.")
    calls = [_call(test) if "input" in test else _named_call(test) for test in tests]
    requests, wants = [request for request, _ in calls], [want for _, want in calls]
    return Plan("call", entry, setup, requests, wants)


def _lines(value: Any) -> str:
    """What a program reads or prints: text, a number, or a list of lines of them."""
    if isinstance(value, list):
        return "\n".join(
            " ".join(map(_lines, line)) if isinstance(line, list) else _lines(line)
            for line in value
        )
    if not isinstance(value, str | int | float):
        raise UserError(f"A program cannot read or print {value!r}: give text in the reference.")
    text = value if isinstance(value, str) else str(value)
    text.encode()  # a ValueError for half a surrogate pair
    return text


def _named_call(test: dict[str, Any]) -> tuple[Any, Want]:
    if "expected" not in test:
        raise UserError("A function test needs a value to compare with: add 'expected'.")
    args, kwargs = test.get("args", []), test.get("kwargs") or {}
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise UserError("A function test's args are a list, its kwargs an object: correct them.")
    return (args, kwargs), Want("json", test["expected"])


def _call(test: dict[str, Any]) -> tuple[Any, Want]:
    """A call as APPS and TACO store it: a list of arguments, or a line of JSON for each."""
    args, value = test["input"], test["output"]
    if isinstance(args, str):
        args = [json.loads(line) for line in args.split("\n") if line.strip()]
        return (args, {}), Want("json", json.loads(value) if isinstance(value, str) else value)
    if not isinstance(args, list):
        raise UserError("The input of a function test is a list of arguments: correct it.")
    boxed = isinstance(value, list) and len(value) == 1
    return (args, {}), Want("either" if boxed else "json", value)
