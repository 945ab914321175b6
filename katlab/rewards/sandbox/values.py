"""Values on their way out of a sandbox and into it: plain data as tagged JSON.

Runs inside, as the beginning of `inside.py`; imports as little as it can.
"""

MAX_NODES, MAX_DEPTH = 1_000_000, 100


class Unplain(Exception):
    """The value is not made of plain data."""


def plain(value, depth=0, budget=None):
    """JSON text of a plain value; tuples, sets, bytes, dicts, big ints are tagged {"~": ...}."""
    from _json import encode_basestring_ascii as quoted

    budget = budget if budget is not None else [MAX_NODES]
    budget[0] -= 1
    if depth > MAX_DEPTH or budget[0] < 0:
        raise Unplain("a value too large or too deep")
    kind = type(value)  # never __class__, which an object may lie about
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if issubclass(kind, str):
        return quoted(str.__str__(value))
    if issubclass(kind, int):
        value = int.__add__(value, 0)
        return int.__repr__(value) if -(2**63) < value < 2**63 else f'{{"~i":"{value:x}"}}'
    if issubclass(kind, float):
        text = float.__repr__(value)
        return f'{{"~f":"{text}"}}' if text in ("nan", "inf", "-inf") else text

    def each(items):
        return "[" + ",".join([plain(x, depth + 1, budget) for x in items]) + "]"

    if issubclass(kind, list):
        return each(list.__iter__(value))
    if issubclass(kind, tuple):
        return '{"~t":' + each(tuple.__iter__(value)) + "}"
    if issubclass(kind, (set, frozenset)):
        base = set if issubclass(kind, set) else frozenset
        return '{"~s":' + each(base.__iter__(value)) + "}"
    if issubclass(kind, dict):
        return '{"~d":' + each(list(dict.items(value))) + "}"
    if issubclass(kind, (bytes, bytearray)):
        return f'{{"~b":"{bytes(value).hex()}"}}'
    if kind is complex:
        return f'{{"~c":["{value.real!r}","{value.imag!r}"]}}'
    raise Unplain(f"returned a {kind.__name__}, not a plain value")


def python(value):
    """The Python value that parsed `plain` text stands for."""
    if type(value) is list:
        return [python(x) for x in value]
    if type(value) is not dict:
        return value
    ((tag, body),) = value.items()
    if tag == "~t":
        return tuple(python(body))
    if tag == "~s":
        return set(python(body))
    if tag == "~d":
        return dict(python(body))
    if tag == "~b":
        return bytes.fromhex(body)
    if tag == "~c":
        return complex(float(body[0]), float(body[1]))
    return int(body, 16) if tag == "~i" else float(body)


def said(error, builtin=False):
    """A short text for an exception whose own methods are not to be trusted.

    `builtin`: by the name of the built-in exception that it is.
    """
    kind = type(error)
    if builtin:
        kind = next((k for k in kind.__mro__ if k.__module__ == "builtins"), kind)
    try:
        return f"{kind.__name__}: {str.__str__(str(error))}"[:300]
    except BaseException:
        return kind.__name__[:300]
