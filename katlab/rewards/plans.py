"""From a code reference to what is run and what is compared: the four test forms.

  function calls   {"entry": "f", "tests": [{"args": [3], "kwargs": {}, "expected": 9}, ...]}
  stdin/stdout     {"tests": [{"input": "3\\n", "output": "9\\n"}, ...]} or {"inputs", "outputs"}
  check(candidate) {"prompt": ..., "test": ..., "entry_point": ...} (HumanEval's fields)
  asserts          {"asserts": ["assert f(3) == 9", ...], "setup": ""} (MBPP's `test_list` and
                   `test_setup_code` are read too)
Any of them may add "seconds" (default 5) and "memory" (bytes, default 512 MiB).

Asserts of the shape call == literal (also !=, is, `not call`, `call`, abs(call - x) < y) become a
call inside and a comparison outside. Other tests run in a second sandbox which holds them and calls
the candidate through the parent. Tests that hand the candidate's own objects or functions around
cannot be split so: they run beside the candidate and are labelled `trust: low`.
Usage: `plan = read({"entry": "f", "tests": [{"args": [3], "expected": 9}]})`
"""

from __future__ import annotations

import ast
import builtins
import json
import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from katlab import UserError


@dataclass(frozen=True)
class Want:
    """What one call or run must give: op is json, ==, !=, true, false, near, or text."""

    op: str
    value: Any = None
    within: float = 0.0


@dataclass(frozen=True)
class Plan:
    """mode: call, stdin, judge or asserts; `requests` enter the sandbox, `wants` never do."""

    mode: str
    entry: str = ""
    setup: str = ""
    requests: list[Any] = field(default_factory=list)
    wants: list[Want] = field(default_factory=list)
    tests: str = ""
    names: list[str] = field(default_factory=list)
    trust: str = "full"
    prompt: str = ""
    seconds: float = 5.0
    memory: int = 512 << 20


def read(reference: dict[str, Any]) -> Plan:
    """The plan of a reference. Raises UserError when it has none of the four forms."""
    if not isinstance(reference, dict):
        raise UserError("A code reference is a dict: give {'entry': 'f', 'tests': [...]}.")
    return _read(json.dumps(reference, sort_keys=True))


@lru_cache(maxsize=4096)
def _read(text: str) -> Plan:
    ref = json.loads(text)
    limits = {k: ref[k] for k in ("seconds", "memory") if k in ref}
    asserts = ref.get("asserts", ref.get("test_list"))
    if asserts is not None:
        setup = ref.get("setup", ref.get("test_setup_code", ""))
        return _asserts("\n".join(asserts), setup, ref.get("entry", ""), limits)
    if "test" in ref:
        return _check(ref, limits)
    tests = ref.get("tests")
    if tests is None and "inputs" in ref:
        tests = [{"input": i, "output": o}
                 for i, o in zip(ref["inputs"], ref["outputs"], strict=True)]
    if not tests:
        raise UserError("A code reference needs tests: give tests, inputs, test or asserts.")
    if "input" in tests[0]:
        return Plan("stdin", requests=[t["input"] for t in tests],
                    wants=[Want("text", t["output"]) for t in tests], **limits)
    if "entry" not in ref:
        raise UserError("Function tests need the function's name: add 'entry' to the reference.")
    if not all("expected" in t for t in tests):
        raise UserError("A function test needs a value to compare with: add 'expected'.")
    return Plan("call", ref["entry"], setup=ref.get("setup", ""),
                requests=[(t.get("args", []), t.get("kwargs", {})) for t in tests],
                wants=[Want("json", t["expected"]) for t in tests], **limits)


def _parse(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise UserError(f"The reference's tests are no Python ({error.msg}): mend them.") from error


def _check(ref: dict[str, Any], limits: dict[str, Any]) -> Plan:
    entry, prompt = ref["entry_point"], ref.get("prompt", "")
    tree = _parse(ref["test"])
    checks = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "check"]
    if not checks:
        raise UserError("The reference's test defines no check(candidate): add it.")
    given = checks[0].args.args[0].arg
    split = _split(checks[0].body, {given, entry})
    if split and split[0] and len(tree.body) <= 2:  # besides check, HumanEval's METADATA only
        return Plan("call", entry, prompt, *split, prompt=prompt, **limits)
    tests = f"{ref['test']}\ncheck({entry})\n"
    low = _hands_objects_around(tree, {given, entry})
    return Plan("asserts" if low else "judge", entry, prompt, tests=tests, names=[entry],
                trust="low" if low else "full", prompt=prompt, **limits)


def _asserts(tests: str, setup: str, entry: str, limits: dict[str, Any]) -> Plan:
    tree = _parse(tests)
    known = set(dir(builtins)) | _bound(_parse(setup)) | _bound(tree)
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} - known
    if not names:
        raise UserError("The asserts call no function of the answer: mend the reference.")
    split = _split(tree.body, names)
    if split and len(names) == 1:
        return Plan("call", min(names), setup, *split, **limits)
    low = _hands_objects_around(tree, names)
    return Plan("asserts" if low else "judge", entry or min(names), setup, tests=tests,
                names=sorted(names), trust="low" if low else "full", **limits)


def _bound(tree: ast.Module) -> set[str]:
    """Names that a module binds: imports, definitions, assignments, loop and argument names."""
    names = {a.asname or a.name.split(".")[0] for n in ast.walk(tree)
             if isinstance(n, ast.Import | ast.ImportFrom) for a in n.names}
    names |= {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    names |= {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    return names | {n.id for n in ast.walk(tree)
                    if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _hands_objects_around(tree: ast.AST, names: set[str]) -> bool:
    """Whether tests build the candidate's classes, or pass functions: more than plain data."""
    called = {id(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in names:
            if id(node) not in called or node.id[:1].isupper():
                return True
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in names:
            if any(isinstance(n, ast.Lambda) for arg in node.args for n in ast.walk(arg)):
                return True
    return False


def _split(body: list[ast.stmt], names: set[str]) -> tuple[list[Any], list[Want]] | None:
    """(calls, wants) when every statement is an assert that splits; None when one does not."""
    requests, wants = [], []
    for node in body:
        trivial = isinstance(node, ast.Pass) or (
            isinstance(node, ast.Expr | ast.Assert)
            and isinstance(node.value if isinstance(node, ast.Expr) else node.test, ast.Constant)
            and (isinstance(node, ast.Expr) or bool(node.test.value))
        )
        if trivial:
            continue
        try:
            call, want = _one(node.test, names) if isinstance(node, ast.Assert) else (None, None)
        except ValueError:  # an argument or an expected value that is no literal
            return None
        if call is None:
            return None
        requests.append(call)
        wants.append(want)
    return requests, wants


def _call(node: ast.expr, names: set[str]) -> tuple[list[Any], dict[str, Any]] | None:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            and node.func.id in names) or any(k.arg is None for k in node.keywords):
        return None
    return ([ast.literal_eval(a) for a in node.args],
            {k.arg: ast.literal_eval(k.value) for k in node.keywords})


def _one(test: ast.expr, names: set[str]) -> tuple[Any, Want | None]:
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _call(test.operand, names), Want("false")
    if not isinstance(test, ast.Compare):
        return _call(test, names), Want("true")
    if len(test.ops) != 1:
        return None, None
    left, op, right = test.left, test.ops[0], test.comparators[0]
    if isinstance(op, ast.Lt | ast.LtE) and isinstance(left, ast.Call):
        inner = left.args[0] if len(left.args) == 1 else None
        if getattr(left.func, "id", None) == "abs" and isinstance(inner, ast.BinOp) and isinstance(
                inner.op, ast.Sub):
            want = Want("near", ast.literal_eval(inner.right), ast.literal_eval(right))
            return _call(inner.left, names), want
        return None, None
    ops = {ast.Eq: "==", ast.NotEq: "!=", ast.Is: "is"}
    if type(op) not in ops:
        return None, None
    call = _call(left, names)
    if call is None:  # literal == call
        call, right = _call(right, names), left
    return (call, Want(ops[type(op)], ast.literal_eval(right))) if call else (None, None)


def holds(got: Any, want: Want) -> bool:
    """Whether a parsed record is what a test wants. `got` is the sandbox's tagged plain JSON."""
    if want.op == "text":
        return isinstance(got, str) and _lines(got) == _lines(want.value)
    if want.op in ("true", "false"):
        empty = got in (None, False, 0, "", []) or (isinstance(got, dict) and not any(got.values()))
        return empty == (want.op == "false")
    if want.op == "near":
        number = isinstance(got, int | float)
        return number and abs(got - want.value) < max(want.within, 1e-300)
    equal = same(got, want.value, want.op == "json")
    if want.op == "is":
        return equal and type(got) is type(want.value)
    return equal != (want.op == "!=")


def _lines(text: str) -> list[str]:
    """Lines without trailing blanks, and without empty lines at the end; all must be equal."""
    return [line.rstrip() for line in text.rstrip().split("\n")]


def same(got: Any, want: Any, by_json: bool) -> bool:
    """Equality of tagged JSON with a Python value; no table is ever built from untrusted keys.

    By JSON: a tuple equals a list, true is not 1, 9.0 equals 9, a float may be off by 1e-9.
    Otherwise as Python's == has it.
    """
    tag, body = next(iter(got.items())) if isinstance(got, dict) else ("", None)
    if tag in ("~i", "~f"):
        got = int(body, 16) if tag == "~i" else float(body)
    if isinstance(want, bool) or isinstance(got, bool):
        return got == want and (not by_json or type(got) is type(want))
    if isinstance(want, int | float):
        if not isinstance(got, int | float):
            return False
        close = by_json and isinstance(want, float) and math.isclose(got, want, rel_tol=1e-9)
        return got == want or close
    if isinstance(want, list | tuple):
        items = body if tag == "~t" else got
        if not isinstance(items, list) or (not by_json and (tag == "~t") != (type(want) is tuple)):
            return False
        return len(items) == len(want) and all(map(same, items, want, [by_json] * len(want)))
    if isinstance(want, dict):
        if tag != "~d" or len(body) != len(want):
            return False
        left = dict(want)
        for pair in body:
            key, value = pair["~t"]
            key = str(key) if by_json and type(key) is int else scalar(key)
            if key not in left or not same(value, left.pop(key), by_json):
                return False
        return True
    if isinstance(want, set | frozenset):
        if tag != "~s" or len(body) != len(want):
            return False
        return {x for x in want if any(same(b, x, by_json) for b in body)} == want
    if isinstance(want, bytes):
        return tag == "~b" and bytes.fromhex(body) == want
    if isinstance(want, complex):
        return tag == "~c" and complex(float(body[0]), float(body[1])) == want
    return type(got) is type(want) and got == want


def scalar(value: Any) -> Any:
    """A dict key as Python has it, from tagged JSON: plain values and tuples of them."""
    if isinstance(value, dict):
        (tag, body), = value.items()
        if tag == "~t":
            return tuple(map(scalar, body))
        return int(body, 16) if tag == "~i" else bytes.fromhex(body) if tag == "~b" else float(body)
    return value
