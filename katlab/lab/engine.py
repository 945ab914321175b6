"""Execute one notebook with papermill: coalesced streams, forwarded signals, atomic output.

Measured traps of papermill 2.7 designed out here: a signal kills the kernel in mid-cell and
leaves no state (it now reaches the kernel as an interrupt and ends in `Interrupted`), a kill while
writing truncates the output notebook (it is written beside and moved), and every progress refresh
becomes an output of its own (streams are coalesced).

Usage:  execute(notebook, folder / "notebook.ipynb", {"profile": "nano"})
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbclient.exceptions import DeadKernelError
from papermill import PapermillExecutionError, execute_notebook
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

from katlab.lab import disk

# Runs in a kernel before its first cell, because libraries speak up while they are imported.
QUIET = "--IPKernelApp.exec_lines=[\"__import__('katlab.lab').lab.quiet()\"]"
TWIN = 2.0  # seconds within which a second signal is taken for the same one
GRACE = 20.0  # seconds an interrupted cell has before its kernel is killed


class Interrupted(Exception):
    """A signal stopped the notebook; the message names the signal."""


class Failed(Exception):
    """A cell raised; the message is its last line, `user` tells whether it is a UserError."""

    def __init__(self, message: str, user: bool = False):
        super().__init__(message)
        self.user = user


class _ThisPython(KernelSpecManager):
    """Knows one kernel: the interpreter that runs katlab, whatever is installed as 'python3'."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        made = get_kernel_dict()
        made.pop("kernel_protocol_version", None)  # no trait of KernelSpec
        return KernelSpec(**made)


class _Client(PapermillNotebookClient):
    """papermill's client on this Python, which starts no further cell once a signal has come."""

    stopped = ""

    def create_kernel_manager(self):
        own = _ThisPython()
        self.km = self.kernel_manager_class(kernel_name=self.kernel_name, kernel_spec_manager=own)
        return self.km

    def execute_cell(self, cell, cell_index, *args, **kwargs):
        if self.stopped:
            raise Interrupted(self.stopped)
        return super().execute_cell(cell, cell_index, *args, **kwargs)


class _Engine(NBClientEngine):
    """papermill's engine with our client, its signals, and a log file for the kernel."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, kernel_log, kernel_cwd, **kwargs):
        quiet = logging.getLogger("katlab.engine")
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False
        client = _Client(
            nb_man,
            kernel_name=kernel_name,
            timeout=None,
            coalesce_streams=True,
            extra_arguments=[QUIET],
            log=quiet,
        )
        try:
            with _forwarded_signals(client), kernel_log.open("ab") as log:
                client.execute(stdout=log, stderr=log, cwd=kernel_cwd)
        except DeadKernelError:
            if not client.stopped:
                raise
        if client.stopped:
            raise Interrupted(client.stopped)


papermill_engines.register("katlab", _Engine)


def execute(notebook: Path, output: Path, parameters: dict) -> None:
    """Run a notebook with parameters; `output` gets what was executed, also when that fails.

    Raises Interrupted after a signal and Failed when a cell raises or the kernel dies.
    """
    part = output.with_name(f".{output.stem}.part.ipynb")
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        execute_notebook(
            notebook,
            part,
            parameters,
            engine_name="katlab",
            kernel_name="python3",
            language="python",
            progress_bar=False,
            kernel_log=output.with_name("kernel.log"),
            kernel_cwd=str(notebook.parent),
        )
    except PapermillExecutionError as error:
        if error.ename == "KeyboardInterrupt":
            raise Interrupted("SIGINT") from error
        if told := disk.sentence(error.evalue, output.parent):
            raise Failed(told, user=True) from error
        line = f"{error.ename}: {error.evalue}".strip().splitlines()[0]
        user = error.ename == "UserError"
        raise Failed(error.evalue if user else line, user) from error
    except DeadKernelError as error:
        raise Failed("the kernel died (most often: out of memory)") from error
    finally:
        if part.is_file():
            os.replace(part, output)


@contextmanager
def _forwarded_signals(client: _Client) -> Iterator[None]:
    """SIGINT and SIGTERM interrupt the kernel's cell; a second one, or GRACE seconds, kill it.

    Supervisors (timeout, SLURM) signal a process and its group, so twins count as one signal.
    """
    timers: list[threading.Timer] = []
    first = 0.0

    def kill() -> None:
        if client.km is not None and client.km.provisioner.pid:
            os.killpg(client.km.provisioner.pid, signal.SIGKILL)

    def forward(number: int, frame: object) -> None:
        nonlocal first
        if client.stopped:
            if time.monotonic() - first > TWIN:
                kill()
            return
        first = time.monotonic()
        client.stopped = signal.Signals(number).name
        if client.km is not None and client.km.provisioner and client.km.provisioner.pid:
            os.kill(client.km.provisioner.pid, signal.SIGINT)
            timers.append(threading.Timer(GRACE, kill))
            timers[-1].daemon = True
            timers[-1].start()

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
