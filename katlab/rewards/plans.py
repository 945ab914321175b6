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
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from katlab import UserError
from katlab.rewards.compare import Want


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
    try:
        return _read(json.dumps(reference, sort_keys=True))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"Correct the code reference: reading it gave {error!r}.") from error


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
        tests = [
            {"input": i, "output": o} for i, o in zip(ref["inputs"], ref["outputs"], strict=True)
        ]
    if not tests:
        raise UserError("A code reference needs tests: give tests, inputs, test or asserts.")
    if "input" in tests[0]:
        return Plan(
            "stdin",
            requests=[t["input"] for t in tests],
            wants=[Want("text", t["output"]) for t in tests],
            **limits,
        )
    if "entry" not in ref:
        raise UserError("Function tests need the function's name: add 'entry' to the reference.")
    if not all("expected" in t for t in tests):
        raise UserError("A function test needs a value to compare with: add 'expected'.")
    return Plan(
        "call",
        ref["entry"],
        setup=ref.get("setup", ""),
        requests=[(t.get("args", []), t.get("kwargs", {})) for t in tests],
        wants=[Want("json", t["expected"]) for t in tests],
        **limits,
    )


def _parse(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise UserError(f"Correct the reference's tests: no Python ({error.msg}).") from error


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
    limits |= _whole(tree, {given, entry})
    return Plan(entry=entry, setup=prompt, tests=tests, names=[entry], prompt=prompt, **limits)


def _asserts(tests: str, setup: str, entry: str, limits: dict[str, Any]) -> Plan:
    tree = _parse(tests)
    known = set(dir(builtins)) | _bound(_parse(setup)) | _bound(tree)
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} - known
    if not names:
        raise UserError("The asserts call no function of the answer: correct the reference.")
    split = _split(tree.body, names)
    if split and len(names) == 1:
        return Plan("call", min(names), setup, *split, **limits)
    limits |= _whole(tree, names)
    entry = entry or min(names)
    return Plan(entry=entry, setup=setup, tests=tests, names=sorted(names), **limits)


def _bound(tree: ast.Module) -> set[str]:
    """Names that a module binds: imports, definitions, assignments, loop and argument names."""
    names = {
        a.asname or a.name.split(".")[0]
        for n in ast.walk(tree)
        if isinstance(n, ast.Import | ast.ImportFrom)
        for a in n.names
    }
    names |= {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    names |= {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    return names | {
        n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }


def _whole(tree: ast.AST, names: set[str]) -> dict[str, str]:
    """How tests that do not split are run: apart, or beside a candidate whose objects they use."""
    if _hands_objects_around(tree, names):
        return {"mode": "asserts", "trust": "low"}
    return {"mode": "judge", "trust": "full"}


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
        match node:
            case ast.Pass() | ast.Expr(ast.Constant()):
                continue
            case ast.Assert(ast.Constant(value)) if value:
                continue
            case ast.Assert(test):
                try:
                    call, want = _one(test, names)
                except ValueError:  # an argument or an expected value that is no literal
                    return None
            case _:
                return None
        if call is None or want is None:
            return None
        requests.append(call)
        wants.append(want)
    return requests, wants


def _call(node: ast.expr, names: set[str]) -> tuple[list[Any], dict[str, Any]] | None:
    match node:
        case ast.Call(ast.Name(name), args, keywords) if name in names:
            given = {k.arg: ast.literal_eval(k.value) for k in keywords if k.arg is not None}
            if len(given) == len(keywords):  # else a **mapping
                return [ast.literal_eval(a) for a in args], given
    return None


def _one(test: ast.expr, names: set[str]) -> tuple[Any, Want | None]:
    match test:
        case ast.UnaryOp(ast.Not(), operand):
            return _call(operand, names), Want("false")
        case ast.Compare(
            ast.Call(ast.Name("abs"), [ast.BinOp(left, ast.Sub(), right)]),
            [ast.Lt() | ast.LtE()],
            [within],
        ):
            want = Want("near", ast.literal_eval(right), ast.literal_eval(within))
            return _call(left, names), want
        case ast.Compare(left, [ast.Eq() | ast.NotEq() | ast.Is() as op], [right]):
            call = _call(left, names)
            if call is None:  # literal == call
                call, right = _call(right, names), left
            ops = {ast.Eq: "==", ast.NotEq: "!=", ast.Is: "is"}
            return (call, Want(ops[type(op)], ast.literal_eval(right))) if call else (None, None)
        case ast.Compare():
            return None, None
    return _call(test, names), Want("true")
