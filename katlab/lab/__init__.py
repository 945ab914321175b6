"""The lab machinery: runs, notebooks, pipeline, report (no mathematics of the report lives here).

Importing this package is cheap on purpose (no torch, no transformers, no papermill): a stage's
kernel and the command line both start with it.

Usage:  from katlab import lab;  stage = lab.begin("05_step_srpo", globals())
        run = lab.open_run("demo")
"""

from katlab.lab.claims import Claim
from katlab.lab.finished import FinishedRun, open_run
from katlab.lab.notebook import begin
from katlab.lab.profiles import load as load_profile
from katlab.lab.progress import number
from katlab.lab.quiet import quiet
from katlab.lab.rows import Journal, read_jsonl, write_jsonl
from katlab.lab.runs import StageRun
from katlab.lab.training import latest_checkpoint
from katlab.lab.work import work

__all__ = [
    "Claim",
    "FinishedRun",
    "Journal",
    "StageRun",
    "begin",
    "latest_checkpoint",
    "load_profile",
    "number",
    "open_run",
    "quiet",
    "read_jsonl",
    "work",
    "write_jsonl",
]

quiet()
