r"""Tool calls: parses, names a given tool, and equals the reference under the tool's JSON schema.

Report section 4.2.2 names no verifier for its tool-use category; this is ours. Calls stand in the
template's Hermes form, `<tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>`.

Accepts: any text around the calls, as many calls as the reference has and in its order. Reference:
{"name": ..., "arguments": {...}, "tools": [JSON-schema functions]} or {"calls": [{"name", ...}],
"tools": [...]}; with `"calls": []` an answer without a call is right. `tool_calls` in OpenAI's form
is read as `calls`, and JSON text (of the whole, the calls, the arguments, the tools) as what it
holds. Equality is by schema: an optional argument left out equals its stated default, 1 equals 1.0
where the schema says number or integer, true never equals 1, "1" never equals 1; strings are
compared in composed form (NFC).
Usage: `verify('<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>', reference)`
"""

from __future__ import annotations

import json
from typing import Any

from katlab import UserError
from katlab.rewards.text import canonical
from katlab.rewards.verdict import Verdict, answer_span

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_QUOTES = ("`", '"', "'")
KEYS = {"calls", "tool_calls", "name", "function"}
MAX_CALL = 20_000  # characters of one call's JSON
MAX_DEPTH = 50


def _strict_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_strict_pairs, parse_constant=_no_constant)


def parse_calls(answer: str) -> list[dict[str, Any]]:
    """The calls in an answer, each {"name": str, "arguments": dict}. ValueError names the fault.

    Each call ends where its JSON does, so that an argument may hold the closing tag. A tag in
    quotes or backticks is spoken of.
    """
    calls = []
    before, opened, rest = answer.partition(_OPEN)
    while opened:
        if before[-1:] in _QUOTES and rest[:1] == before[-1:]:
            more, opened, rest = rest.partition(_OPEN)
            before += more
            continue
        if _CLOSE not in rest:  # an answer cut off within its call is told as that
            raise ValueError("a tool call is not closed")
        rest = rest.lstrip()
        call, end = _DECODER.raw_decode(rest[:MAX_CALL])
        rest = rest[end:].lstrip()
        if _closes(before) or not rest.startswith(_CLOSE):
            raise ValueError("a tool call is not closed")
        if not isinstance(call, dict) or set(call) != {"name", "arguments"}:
            raise ValueError("a tool call needs exactly name and arguments")
        if not isinstance(call["name"], str) or not isinstance(call["arguments"], dict):
            raise ValueError("name must be a string and arguments an object")
        calls.append(call)
        before, opened, rest = rest[len(_CLOSE) :].partition(_OPEN)
    if _closes(before):
        raise ValueError("a tool call is not opened")
    return calls


def _closes(text: str) -> bool:
    """Whether a closing tag stands in a text, other than in quotes."""
    pieces = text.split(_CLOSE)
    between = zip(pieces, pieces[1:], strict=False)
    return any(a[-1:] not in _QUOTES or a[-1:] != b[:1] for a, b in between)


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
    if isinstance(want, str) and isinstance(got, str):
        return canonical(got) == canonical(want)
    return type(got) is type(want) and got == want


def _value(value: Any) -> Any:
    """What JSON text holds; other values as they are. Raises UserError for text that is no JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise UserError(
            "The tool_call reference holds text that is no JSON: correct it."
        ) from error


def _wanted(reference: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(name, arguments) of each call of a reference."""
    given = reference.get("calls", reference.get("tool_calls"))
    calls = _value(given) if given is not None else [reference]
    calls = [calls] if isinstance(calls, dict) else calls
    if not isinstance(calls, list):
        raise UserError("The reference's calls must be a list: correct it.")
    wanted = []
    for call in calls:
        call = call.get("function", call) if isinstance(call, dict) else {}
        given = (call[key] for key in ("arguments", "parameters", "args") if key in call)
        arguments = _value(next(given, None) or {})
        if not isinstance(call.get("name"), str) or not isinstance(arguments, dict):
            raise UserError("A call of the reference needs a name and an object of arguments.")
        wanted.append((call["name"], arguments))
    return wanted


def _schemas(reference: dict[str, Any]) -> dict[str, dict[str, Any]] | None:
    tools = _value(reference.get("tools"))
    if not tools:
        return None
    try:
        functions = [tool.get("function", tool) for tool in tools]
        schemas = {f["name"]: f.get("parameters") or {} for f in functions}
    except (LookupError, TypeError, AttributeError) as error:
        raise UserError("The reference's tools must be JSON-schema functions.") from error
    if not all(isinstance(schema, dict) for schema in schemas.values()):
        raise UserError("A tool's parameters must be a JSON schema: correct the reference.")
    return schemas


def verify(answer: str, reference: dict[str, Any]) -> Verdict:
    """Correct when the answer's calls equal the reference's (module docstring: what is accepted).

    Raises UserError for an unusable reference; unscorable when jsonschema is not installed.
    """
    reference = _value(reference)
    reference = {"calls": reference} if isinstance(reference, list) else reference
    if not isinstance(reference, dict) or not KEYS & reference.keys():
        raise UserError("A tool_call reference needs name and arguments, or calls: add them.")
    wanted, schemas = _wanted(reference), _schemas(reference)
    if schemas is not None and (lacking := {name for name, _ in wanted} - schemas.keys()):
        raise UserError(
            f"The reference's tools lack {min(lacking)!r}: add it, or correct the call."
        )
    try:
        from jsonschema import Draft202012Validator
        from referencing import Registry
    except ImportError:
        return Verdict(None, "jsonschema is not installed: pip install jsonschema")
    text = answer_span(answer)
    if not text:
        return Verdict(False, "empty answer")
    try:
        calls = parse_calls(text)
    except (ValueError, RecursionError) as error:
        return Verdict(False, f"does not parse: {error}"[:200])
    if len(calls) != len(wanted):
        return Verdict(False, f"{len(calls)} tool calls where {len(wanted)} is right")
    for call, (name, arguments) in zip(calls, wanted, strict=True):
        if schemas is not None and call["name"] not in schemas:
            return Verdict(False, f"no tool is named {call['name']!r}"[:200])
        if call["name"] != name:
            return Verdict(False, f"calls {call['name']}, not {name}"[:200])
        schema = (schemas or {}).get(call["name"], {})
        if not same(call["arguments"], arguments, schema):
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
    return Verdict(True, "same tool, same arguments" if calls else "no call, as is right")
