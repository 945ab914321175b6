"""The command that starts a candidate's interpreter, for each isolation.

`bubblewrap` needs no root; `landlock` is a plain process that confines itself before it takes the
candidate (Landlock and seccomp, `landlock.py`); `container` is a local podman or docker image that
has Python; `unsafe` is a plain process. Isolation limits what a candidate can do; it is no licence
to run code of people who attack you.
Usage: `start_command(Isolation("bubblewrap", "/usr/bin/bwrap"), program_fd=5, name="katlab-1")`
"""

from __future__ import annotations

import os
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

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
SYSTEM = ("/usr/lib", "/usr/lib64", "/lib", "/lib64")  # where shared libraries lie
_BUBBLEWRAP = (
    "--unshare-all --unshare-user --disable-userns --die-with-parent --new-session --clearenv "
    "--cap-drop ALL --hostname sandbox --uid 65534 --gid 65534"
)
_CONTAINER = (
    "--network none --read-only --cap-drop ALL --security-opt no-new-privileges "
    f"--user 65534:65534 --pids-limit 32 --memory 1g --tmpfs /tmp:size={TMP_BYTES} "
    "--workdir /tmp --pull never --env PYTHONHASHSEED=0"
)


class Isolation(NamedTuple):
    """One way to start a sandbox on this machine."""

    name: str  # bubblewrap, landlock, container, unsafe, none
    binary: str = ""  # which bwrap, podman or docker; the interpreter for landlock and unsafe
    why: str = ""  # why not a better one


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
    command = [binary, *_BUBBLEWRAP.split()]
    for folder in SYSTEM:
        if os.path.islink(folder):
            command += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            command += ["--ro-bind", folder, folder]
    for source, place in [*binds, (interpreter, "/py/bin/python3")]:
        command += ["--ro-bind", source, place]
    packages = Path(stdlib, "site-packages")
    if packages.is_dir():
        hidden = f"/py/lib/{Path(stdlib).name}/site-packages"
        command += ["--size", "4096", "--tmpfs", hidden, "--remount-ro", hidden]
    command += ["--size", str(TMP_BYTES), "--tmpfs", "/tmp", "--chdir", "/tmp"]
    for name, value in {"LD_LIBRARY_PATH": "/py/lib", **ENVIRONMENT}.items():
        command += ["--setenv", name, value]
    # The root itself is a tmpfs without a size: closed last, so that nothing can be written to it.
    return (*command, "--remount-ro", "/")


def start_command(isolation: Isolation, program_fd: int, name: str) -> list[str]:
    """The command line of one sandbox: the filter's descriptor, and the name of a container."""
    if isolation.name == "bubblewrap":
        confined = [*_bubblewrap(isolation.binary), "--seccomp", str(program_fd)]
        return [*confined, "/py/bin/python3", *FLAGS]
    if isolation.name == "container":
        run = [isolation.binary, "run", "--rm", "-i", "--name", name, *_CONTAINER.split()]
        return [*run, IMAGE, "python3", *FLAGS]
    return [os.path.realpath(sys.executable), *FLAGS]


def readable() -> list[str]:
    """What Landlock lets a candidate read: the standard library and the shared libraries."""
    return [*filter(os.path.isdir, SYSTEM), *(source for source, _ in _library()[2])]
