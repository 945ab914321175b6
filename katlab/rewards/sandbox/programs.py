# ruff: noqa: F821 (inside.py stands behind it in the same program)
"""One run of a program that reads and prints, in a process that runs several.

Runs inside, before `inside.py`. What a plain interpreter does when a program ends is done after
each run, so that all it writes is seen: threads are joined, exit functions called, streams flushed.
"""

import gc
import os
import sys

STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1}
OUTPUT = 4 << 20  # bytes that a program may print


class Ended(BaseException):
    """`os._exit` of a program: this run is over, nothing more of it is flushed."""


def end(code=0):
    """What `os._exit` is for a program here."""
    raise Ended(code)


def opened(file, *args, **kwargs):
    """`open` of a program; of /dev, which is not there, the standard streams."""
    fd = STREAMS.get(file) if type(file) is str else None
    return open(file, *args, **kwargs) if fd is None else os.fdopen(os.dup(fd), *args, **kwargs)


def run_program(job, source, text):
    """One run of a program on one input: what it wrote to descriptor 1 until it ended."""
    for fd, target in ((job["in_fd"], 0), (job["out_fd"], 1)):
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, 0)
        os.dup2(fd, target)
    data = text.encode("utf-8", "surrogateescape")
    while data:
        data = data[write(job["in_fd"], data) :]
    os.lseek(job["in_fd"], 0, 0)
    # As in a plain run, the streams' second names are the same objects.
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", errors="replace", closefd=False)
    out = open(1, "w", encoding="utf-8", errors="replace", closefd=False)
    sys.stdout = sys.__stdout__ = out
    names = space("__main__")
    names["open"] = opened
    os._exit = end
    code = 0
    try:
        try:
            exec(source, names)
        except SystemExit as stop:
            code = stop.code
        finish(names, out)
    except Ended as stop:
        code = stop.args[0]
    if code not in (None, 0):
        raise RuntimeError(f"exit code {code!r}"[:60])
    data = os.pread(job["out_fd"], OUTPUT + 1, 0)
    if len(data) > OUTPUT:
        raise RuntimeError("output limit")
    return data.decode("utf-8", "replace")


def finish(names, out):
    """The end of a program: its threads, its exit functions, its streams."""
    threading = sys.modules.get("threading")
    pools = sys.modules.get("concurrent.futures.thread")
    if pools:  # its idle workers wait for this sign; the next run may open a pool again
        pools._python_exit()
        pools._shutdown = False
    while threading and len(threads := [t for t in threading.enumerate() if not t.daemon]) > 1:
        other = next(t for t in reversed(threads) if t is not threading.current_thread())
        if other.is_alive():
            other.join()
        else:  # being started by another
            threading.Event().wait(0.001)
    if "atexit" in sys.modules:
        sys.modules["atexit"]._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr, out):
        try:
            stream.flush()
        except Exception:  # a stream of the program's own, closed or broken: as a plain run has it
            pass
    sys.stdout = sys.__stdout__ = out
    names.clear()  # streams that only the program holds are flushed as they go
    gc.collect()
    try:
        out.flush()  # what objects said as they went
    except Exception:
        pass
