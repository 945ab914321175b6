"""The half of the code verifier that runs inside the sandbox; nothing here knows an expected value.

Sent as a code object together with a job, executed by an interpreter without site-packages. It
imports as little as it can (a start costs 10 ms, `import json` would double that). Every record
goes over a descriptor of its own as `nonce, kind, length, payload`:
  R ready     V a plain value     E an error's text     C a call to relay     B a bad reference
  D done: all tests were run to their end (in `judge` mode: every check passed)
Modes: `call` (one function, a list of argument lists), `stdin` (a program, a list of inputs),
`serve` (a function whose calls arrive one by one), `judge` (trusted tests that call a candidate in
*another* sandbox through the parent), `asserts` (lower trust: tests beside the candidate).
The candidate shares this process and may do to it what it likes: it can forge its own values only.
"""

import os
import sys

MAX_NODES, MAX_DEPTH = 200_000, 100
OUTPUT, FILE = 1 << 20, 16 << 20  # bytes: what a program may print, what a file may hold
write, read, leave = os.write, os.read, os._exit


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


def said(error):
    """A short text for an exception whose own methods are not to be trusted."""
    try:
        return f"{type(error).__name__}: {str.__str__(str(error))}"[:300]
    except BaseException:
        return type(error).__name__[:300]


def limit(job):
    """Set the resource limits of the job on this process."""
    import resource as r

    if job["namespace"]:  # elsewhere the kernel would count all processes of this user
        r.setrlimit(r.RLIMIT_NPROC, (32, 32))

    for what, value in (
        (r.RLIMIT_AS, job["memory"]),
        (r.RLIMIT_FSIZE, FILE),
        (r.RLIMIT_NOFILE, 64),
        (r.RLIMIT_CPU, int(job["seconds"]) + 2),
        (r.RLIMIT_CORE, 0),
    ):
        r.setrlimit(what, (value, value))


def space(name):
    """The namespace of a new module, registered as dataclasses and typing expect."""
    module = type(sys)(name)
    sys.modules[name] = module
    module.__dict__.update(exit=sys.exit, quit=sys.exit)  # `site`, which is off, would add them
    return module.__dict__


def load(job, ns):
    """Runs the candidate; an answer that is one expression is bound to the entry's name."""
    if job["setup"]:
        exec(compile(job["setup"], "<setup>", "exec"), ns)
    try:
        source = compile(job["code"].strip(), "<answer>", "eval") if job["entry"] else None
    except SyntaxError:
        source = None
    if source is None:
        exec(compile(job["code"], "<answer>", "exec"), ns)
    else:
        value = eval(source, ns)
        if callable(value):
            ns[job["entry"]] = value


def resolve(ns, name):
    """The function or the method ("Class.method", on a new object) that an answer defines."""
    head, _, method = name.partition(".")
    if head not in ns:
        raise NameError(f"the answer does not define {head}")
    return getattr(ns[head](), method) if method else ns[head]


def run_program(job, source, text):
    """One run of a program on one input: what it wrote to descriptor 1."""
    for fd, target in ((job["in_fd"], 0), (job["out_fd"], 1)):
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, 0)
        os.dup2(fd, target)
    data = text.encode("utf-8", "surrogateescape")
    while data:
        data = data[write(job["in_fd"], data) :]
    os.lseek(job["in_fd"], 0, 0)
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)
    sys.stdout = out = open(1, "w", encoding="utf-8", errors="replace", closefd=False)
    try:
        exec(source, space("__main__"))
    except SystemExit as stop:
        if stop.code not in (None, 0):
            raise RuntimeError(f"exit code {stop.code!r}"[:60]) from None
    out.flush()
    data = os.pread(job["out_fd"], OUTPUT + 1, 0)
    if len(data) > OUTPUT:
        raise RuntimeError("output limit")
    return data.decode("utf-8", "replace")


def main(job):
    """Run the job's candidate and write what came of it, framed by the nonce, to the results."""
    results = job["fd"] if job["fd"] >= 0 else os.dup(1)
    requests = os.dup(0)
    if job["fd"] < 0:
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 1)
    os.dup2(1, 0)  # /dev/null: a candidate that reads gets the end of file
    nonce = job["nonce"]

    def record(kind, text=""):
        data = text.encode("utf-8", "surrogatepass")
        data = b"%s%s%010d" % (nonce, kind, len(data)) + data
        while data:
            data = data[write(results, data) :]

    def message():
        return exactly(int(exactly(10) or b"0"))

    def exactly(size):
        data = b""
        while len(data) < size:
            data += (more := read(requests, size - len(data)))
            if not more:  # the parent has closed its end
                return b""
        return data

    if job.get("confine"):
        rules, code = job["confine"]
        exec(code, tools := {})
        tools["confine"](**rules)
    if job["mode"] == "stdin" and job["in_fd"] < 0:
        for fd in ("in_fd", "out_fd"):
            job[fd] = os.open("/tmp", os.O_TMPFILE | os.O_RDWR)
    limit(job)
    sys.setrecursionlimit(3000)
    record(b"R")

    if job["mode"] == "judge":
        judge(job, record, message)
        leave(0)
    ns = space("candidate")
    try:
        if job["mode"] == "stdin":
            source = compile(job["code"], "<answer>", "exec")
        else:
            load(job, ns)
    except BaseException as error:
        record(b"E", said(error))
        leave(0)

    def attempt(work, *args):
        try:
            record(b"V", plain(work(*args)))
        except BaseException as error:  # SystemExit and KeyboardInterrupt are answers' faults too
            record(b"E", said(error))

    if job["mode"] == "stdin":
        for text in job["requests"]:
            attempt(run_program, job, source, text)
    elif job["mode"] == "call":
        for args, kwargs in job["requests"]:
            attempt(lambda: resolve(ns, job["entry"])(*args, **kwargs))  # noqa: B023 (called now)
    elif job["mode"] == "serve":
        import json

        while data := message():
            name, args, kwargs = python(json.loads(data))
            attempt(lambda: resolve(ns, name)(*args, **kwargs))  # noqa: B023 (called now)
    else:
        try:
            exec(compile(job["tests"], "<tests>", "exec"), ns)
        except BaseException as error:
            record(b"E", said(error))
            leave(0)
    record(b"D")
    leave(0)


def judge(job, record, message):
    """Runs trusted tests against proxies; only plain values come back from the candidate."""
    import json

    class Failed(BaseException):
        """The candidate raised, or answered with something that is not plain data."""

    def proxy(name):
        def call(*args, **kwargs):
            record(b"C", plain([name, list(args), kwargs]))
            reply = message()
            if reply[:1] != b"V":
                raise Failed(reply[1:].decode("utf-8", "replace"))
            return python(json.loads(reply[1:]))

        return call

    ns = space("tests")
    try:
        exec(compile(job["setup"], "<setup>", "exec"), ns)
        ns.update({name: proxy(name) for name in job["names"]})
        source = compile(job["tests"], "<tests>", "exec")
    except BaseException as error:
        record(b"B", said(error))
        return
    try:
        exec(source, ns)
    except BaseException as error:
        record(b"E", said(error))
        return
    record(b"D")


main(job)  # noqa: F821 (the job is put into this namespace by the boot line)
