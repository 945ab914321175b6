"""Tests in Python: split into calls and outside comparisons where they can be, else run apart.

Asserts of the shape call == literal (also !=, is, `not call`, `call`, abs(call - x) < y) become a
call inside and a comparison outside. Other tests, those for exceptions among them, run in a second
sandbox which holds them and calls the candidate through the parent. Tests that hand the candidate's
own objects or functions around cannot be split so: they run beside the candidate and are labelled
`trust: low`. Functions named `test...` are called; tests that would check nothing, or import what a
sandbox lacks, are the row's fault.
Usage: `read_asserts("assert f(3) == 9", "", "")` gives the fields of a `plans.Plan`
"""

from __future__ import annotations

import ast
import builtins
import sys
from typing import Any

from katlab import UserError
from katlab.rewards.compare import Want
from katlab.rewards.markdown import bound


def parsed(source: str) -> ast.Module:
    """The tests of a reference as a syntax tree; UserError where they are no Python."""
    try:
        return ast.parse(source)
    except (SyntaxError, MemoryError) as error:
        raise UserError(f"Correct the reference's tests: no Python ({error}).") from error


def _importable(*trees: ast.Module) -> None:
    """Raises UserError for an import that a sandbox, which has no packages, cannot serve."""
    for node in (node for tree in trees for node in ast.walk(tree)):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for root in (name.partition(".")[0] for name in names):
            if root not in sys.stdlib_module_names:
                raise UserError(
                    f"The tests import {root or '.'}, which a sandbox lacks: do without."
                )


def read_check(test: str, prompt: str, entry: str) -> dict[str, Any]:
    """The plan's fields for HumanEval's `check(candidate)`."""
    tree = parsed(test)
    checks = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "check"]
    if not checks or not entry:
        raise UserError("The reference's test needs check(candidate) and an entry_point: add them.")
    given = checks[0].args.args[0].arg
    split, setup = _split(checks[0].body, {given, entry}), _whole_or_imports(prompt)
    if split and split[0] and len(tree.body) <= 2:  # besides check, HumanEval's METADATA only
        calls = {"requests": split[0], "wants": split[1]}
        return {"mode": "call", "entry": entry, "setup": setup, **calls}
    _importable(tree)
    alias = entry.replace(".", "_")
    tests = f"{test}\ncheck({alias})\n"
    whole = _whole(tree, {given, entry})
    if whole["mode"] == "asserts" and alias != entry:
        tests = f"{alias} = {entry.replace('.', '().')}\n{tests}"
    return {"entry": entry, "setup": setup, "tests": tests, "names": [(alias, entry)], **whole}


def _whole_or_imports(prompt: str) -> str:
    """A prompt that is Python as it is; of one that breaks off (a class's head) its imports."""
    try:
        ast.parse(prompt)
    except SyntaxError:
        lines = prompt.split("\n")
        return "\n".join(line for line in lines if line.startswith(("import ", "from ")))
    return prompt


def read_asserts(tests: str, setup: str, entry: str) -> dict[str, Any]:
    """The plan's fields for asserts; `entry` names the block that is looked for in an answer."""
    tree, before = parsed(tests), parsed(setup)
    known = set(dir(builtins)) | bound(before) | bound(tree)
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} - known
    bases = {
        n.value.id
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)
    }
    modules = sorted(names & bases & sys.stdlib_module_names)  # used, but imported nowhere
    names -= set(modules)
    setup = "".join(f"import {module}\n" for module in modules) + setup
    if not names:
        raise UserError("The asserts call no function of the answer: correct the reference.")
    split = _split(tree.body, names)
    if split and len(names) == 1:
        calls = {"requests": split[0], "wants": split[1]}
        return {"mode": "call", "entry": min(names), "setup": setup, **calls}
    _importable(tree, before)
    tests += _calls_of_tests(tree)
    proxies = [(name, name) for name in sorted(names)]
    given = {"entry": entry or min(names), "setup": setup, "tests": tests, "names": proxies}
    return given | _whole(tree, names)


def _calls_of_tests(tree: ast.Module) -> str:
    """Calls of the top-level functions named test...; UserError where nothing would be checked."""
    defined = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test")]
    if any(n.args.args or n.args.kwonlyargs for n in defined):
        raise UserError("A test function of the reference takes arguments: give plain asserts.")
    inert = ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom | ast.Assign
    if not defined and all(isinstance(n, inert) for n in tree.body):
        raise UserError("The reference's tests define what they never run: give plain asserts.")
    return "".join(f"\n{n.name}()" for n in defined)


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
