r"""Tool calls: parses, names a given tool, and equals the reference under the tool's JSON schema.

Report section 4.2.2 names no verifier for its tool-use category; this is ours. Calls stand in the
template's Hermes form, `<tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>`.

Accepts: any text around the calls, as many calls as the reference has and in its order. Reference:
{"name": ..., "arguments": {...}, "tools": [JSON-schema functions]} or {"calls": [{"name", ...}],
"tools": [...]}. Equality is by schema: an optional argument left out equals its stated default,
1 equals 1.0 where the schema says number or integer, true never equals 1, "1" never equals 1.
Usage: `verify('<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>', reference)`
"""

from __future__ import annotations

import json
import re
from typing import Any

from katlab import UserError
from katlab.rewards.verdict import Verdict, answer_span

_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
MAX_CALL = 20_000  # characters of one call's JSON
MAX_DEPTH = 50


def _strict_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def parse_calls(answer: str) -> list[dict[str, Any]]:
    """The calls in an answer, each {"name": str, "arguments": dict}. ValueError names the fault."""
    if answer.count("<tool_call>") != answer.count("</tool_call>"):
        raise ValueError("a tool call is not closed")
    calls = []
    for body in _CALL.findall(answer):
        if len(body) > MAX_CALL:
            raise ValueError("a tool call is too long")
        if max(body.count("["), body.count("{")) > 2000:  # a bound before the recursive parser
            raise ValueError("a tool call is nested too deeply")
        call = json.loads(body, object_pairs_hook=_strict_pairs, parse_constant=_no_constant)
        if not isinstance(call, dict) or set(call) != {"name", "arguments"}:
            raise ValueError("a tool call needs exactly name and arguments")
        if not isinstance(call["name"], str) or not isinstance(call["arguments"], dict):
            raise ValueError("name must be a string and arguments an object")
        calls.append(call)
    return calls


def same(got: Any, want: Any, schema: dict[str, Any], depth: int = 0) -> bool:
    """Equality of two JSON values under a schema: defaults filled in, numbers by value."""
    if depth > MAX_DEPTH or isinstance(got, bool) != isinstance(want, bool):
        return False
    if isinstance(want, dict) and isinstance(got, dict):
        fields = schema.get("properties", {})
        filled = {k: v["default"] for k, v in fields.items() if "default" in v}
        got, want = filled | got, filled | want
        return got.keys() == want.keys() and all(
            same(got[k], want[k], fields.get(k, {}), depth + 1) for k in want
        )
    if isinstance(want, list) and isinstance(got, list):
        items = schema.get("items", {})
        items = items if isinstance(items, dict) else {}
        return len(got) == len(want) and all(
            same(g, w, items, depth + 1) for g, w in zip(got, want, strict=True)
        )
    if isinstance(want, int | float) and isinstance(got, int | float):
        return got == want
    return type(got) is type(want) and got == want


def _schemas(reference: dict[str, Any]) -> dict[str, dict[str, Any]] | None:
    if reference.get("tools") is None:
        return None
    functions = [tool.get("function", tool) for tool in reference["tools"]]
    return {f["name"]: f.get("parameters") or {} for f in functions}


def verify(answer: str, reference: dict[str, Any]) -> Verdict:
    """Correct when the answer's calls equal the reference's (module docstring: what is accepted).

    Raises UserError for an unusable reference; unscorable when jsonschema is not installed.
    """
    if not isinstance(reference, dict) or not ("calls" in reference or "name" in reference):
        raise UserError("A tool_call reference needs name and arguments, or calls: add them.")
    wanted = reference.get("calls") or [reference]
    schemas = _schemas(reference)
    try:
        from jsonschema import Draft202012Validator
        from referencing import Registry
    except ImportError:
        return Verdict(None, "jsonschema is not installed: pip install jsonschema")
    try:
        calls = parse_calls(answer_span(answer))
    except (ValueError, RecursionError) as error:
        return Verdict(False, f"does not parse: {error}"[:200])
    if len(calls) != len(wanted):
        return Verdict(False, f"{len(calls)} tool calls where {len(wanted)} is right")
    for call, want in zip(calls, wanted, strict=True):
        if schemas is not None and call["name"] not in schemas:
            return Verdict(False, f"no tool is named {call['name']!r}"[:200])
        if call["name"] != want["name"]:
            return Verdict(False, f"calls {call['name']}, not {want['name']}")
        schema = (schemas or {}).get(call["name"], {})
        if not same(call["arguments"], want.get("arguments", {}), schema):
            return Verdict(False, "arguments differ from the reference")
        # Only arguments equal to the reference reach the schema's own patterns: no hostile input
        # meets a regular expression there, and an empty registry fetches no remote schema.
        try:
            faults = Draft202012Validator(schema, registry=Registry()).iter_errors
            fault = next(faults(call["arguments"]), None)
        except Exception as error:  # the schema is data: any failure in it is the row's fault
            return Verdict(None, f"unusable schema: {error!r}"[:200])
        if fault:
            return Verdict(None, f"the reference breaks its own schema: {fault.message}"[:200])
    return Verdict(True, "same tool, same arguments")
