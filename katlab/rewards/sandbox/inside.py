# ruff: noqa: F821 (values.py and programs.py stand before it in the same program)
"""The half of the code verifier that runs inside the sandbox; nothing here knows an expected value.

Sent as a code object behind `values.py` and `programs.py`, together with a job, executed by an
interpreter without site-packages. It imports as little as it can (a start costs 10 ms, `import
json` would double that). Every record goes over a descriptor of its own as `nonce, kind, length,
payload`:
  R ready     V a plain value     E an error's text     C a call to relay     B a bad reference
  D done: all tests were run to their end (in `judge` mode: every check passed)
Modes: `call` (one function, a list of argument lists), `stdin` (a program, a list of inputs),
`serve` (a function whose calls arrive one by one), `judge` (trusted tests that call a candidate in
*another* sandbox through the parent), `asserts` (lower trust: tests beside the candidate).
The candidate shares this process and may do to it what it likes: it can forge its own values only.
"""

import os
import sys

FILE = 16 << 20  # bytes that a file may hold
write, read, leave = os.write, os.read, os._exit


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
    """The function or the method ("Class.method", on a new object) that an answer defines.

    A function that the answer lacks may be a method of its `class Solution`.
    """
    head, _, method = name.partition(".")
    if head not in ns and not method and hasattr(ns.get("Solution"), head):
        head, method = "Solution", head
    if head not in ns:
        raise NameError(f"the answer does not define {head}")
    return getattr(ns[head](), method) if method else ns[head]


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
            record(b"E", said(error, job["mode"] == "serve"))

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
            if "." not in job["entry"] and job["entry"] not in ns:
                ns[job["entry"]] = resolve(ns, job["entry"])
            exec(compile(job["tests"], "<tests>", "exec"), ns)
        except BaseException as error:
            record(b"E", said(error))
            leave(0)
    record(b"D")
    leave(0)


def judge(job, record, message):
    """Runs trusted tests against proxies; only plain values come back from the candidate."""
    import builtins
    import json

    class Failed(BaseException):
        """The candidate raised, or answered with something that is not plain data."""

    def raised(text):
        """The candidate's exception as tests may expect it: the built-in one that it is."""
        kind, _, message = text.partition(": ")
        error = getattr(builtins, kind, None)
        try:
            return error(message) if issubclass(error, Exception) else Failed(text)
        except TypeError:  # none of that name, or one that is made of more than a text
            return Failed(text)

    def proxy(name):
        def call(*args, **kwargs):
            record(b"C", plain([name, list(args), kwargs]))
            reply = message()
            if reply[:1] != b"V":
                raise raised(reply[1:].decode("utf-8", "replace"))
            return python(json.loads(reply[1:]))

        return call

    ns = space("tests")
    try:
        exec(compile(job["setup"], "<setup>", "exec"), ns)
        ns.update({name: proxy(entry) for name, entry in job["names"]})
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


main(job)  # (the job is put into this namespace by the boot line)
