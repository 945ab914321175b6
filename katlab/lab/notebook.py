"""What a stage notebook sees: begin, the run card, figures with takeaways, the verdict table.

Everything shown is plain HTML and PNG, which Jupyter, papermill, nbconvert and GitHub keep.

Usage:  stage = lab.begin("05_step_srpo", globals())
"""

import base64
import html
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from katlab import UserError
from katlab.lab import fingerprint, parameters, runs, stages
from katlab.lab.progress import number
from katlab.lab.runs import StageRun

PARAMETERS = ("profile", "run", "seed", "overrides", "report_to")
RUNNER = "KATLAB_RUNNER"  # set by the runner for its kernels: it holds the lock of the run folder
HELD = {True: "held", False: "not held", None: "not applicable"}
COLOURS = {True: "#15803d", False: "#b91c1c", None: "#64748b"}
STYLE = Path(__file__).with_name("house.mplstyle")
CELL = "padding:6px 12px;border-bottom:1px solid #e2e8f0;text-align:left;vertical-align:top"


def begin(name: str, namespace: dict) -> StageRun:
    """Open outputs/<run>/<stage>/ with the notebook's own parameters and show the run card.

    `namespace` is the notebook's globals(). An attempt that was cut off with the same inputs
    keeps its files, so training resumes from its checkpoints; anything else starts empty.
    """
    quiet()
    own = parameters.declared(stages.notebook(name))
    missing = [key for key in (*PARAMETERS, *own) if key not in namespace]
    if missing:
        raise UserError(f"The parameters cell lacks '{missing[0]}'; every notebook has the same.")
    values = parameters.check({key: namespace[key] for key in own}, own, name)
    folder = stages.outputs() / values["run"] / name
    upstream = upstream_fingerprints(folder)
    wanted = fingerprint.of(name, values, upstream)
    under_runner = RUNNER in os.environ
    if not under_runner:
        from katlab.lab.lock import run_lock

        with run_lock(folder.parent):
            prepare(folder, wanted)
    stage = created(folder, values, wanted, upstream)
    stage.shows = _in_notebook()
    if stage.shows:
        import matplotlib.pyplot as plt

        plt.style.use(STYLE)
        _show(run_card(stage))
    return stage


def created(folder: Path, values: dict, wanted: str, upstream: dict[str, str]) -> StageRun:
    """The stage of a folder outputs/<run>/<stage>, with all that its run.json must say."""
    return StageRun.create(
        folder.parents[1],
        name=folder.name,
        **{key: values[key] for key in PARAMETERS},
        parameters=values,
        fingerprint=wanted,
        upstream=upstream,
    )


def upstream_fingerprints(folder: Path) -> dict[str, str]:
    """Fingerprints of the finished stages that the stage in `folder` needs ('' if not there)."""
    needs = next((s.needs for s in stages.STAGES if s.name == folder.name), ())
    records = {need: folder.parent / need for need in needs}
    return {
        need: runs.read(path).get("fingerprint", "") if (path / "run.json").is_file() else ""
        for need, path in records.items()
    }


def prepare(folder: Path, wanted: str) -> None:
    """Keep an unfinished attempt at exactly this fingerprint, empty the folder of any other."""
    if not (folder / "run.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        return
    record = runs.read(folder)
    if record["state"] == "running" and runs.alive(record) and record["pid"] != os.getpid():
        raise UserError(
            f"Process {record['pid']} is still running {folder.name} of run "
            f"'{folder.parent.name}'; wait for it, or stop it, or choose another run name."
        )
    if record["state"] == "done" or record.get("fingerprint") != wanted:
        runs.clear(folder)


def quiet() -> None:
    """No telemetry, no progress-bar spam, no library chatter: the lab shows its own progress."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("DATASETS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    # Says at import, on every machine without a GPU, that a CUDA kernel is missing.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if "transformers" in sys.modules:  # imported before us, so the environment comes too late
        sys.modules["transformers"].logging.set_verbosity_error()
        sys.modules["transformers"].logging.disable_progress_bar()
    if "datasets" in sys.modules:
        sys.modules["datasets"].logging.set_verbosity_error()
        sys.modules["datasets"].disable_progress_bars()
    warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm asks for widgets
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|transformers|trl)\b")


def figure(stage: StageRun, figure, name: str, takeaway: str) -> None:
    """See `StageRun.figure`; the figure must have a title and the takeaway must be a sentence."""
    titles = [axes.get_title() for axes in figure.axes] + [figure.get_suptitle()]
    if not any(titles):
        raise UserError(f"Figure '{name}' has no title; give one axes.set_title or a suptitle.")
    if not takeaway.strip().endswith((".", "!", "?")):
        raise UserError(f"The takeaway of figure '{name}' must be one sentence with a full stop.")
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110, bbox_inches="tight")
    import matplotlib.pyplot as plt

    plt.close(figure)
    if stage.writes:
        (stage.figures / f"{name}.png").write_bytes(image.getvalue())
        index = stage.figures / "index.json"
        shown = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}
        title = figure.get_suptitle() or next(filter(None, titles))
        stage.write("figures/index.json", shown | {name: {"title": title, "takeaway": takeaway}})
    if stage.shows:
        data = base64.b64encode(image.getvalue()).decode()
        _show(
            f'<figure style="margin:8px 0 20px"><img alt="{html.escape(takeaway)}" '
            f'style="max-width:100%;height:auto" src="data:image/png;base64,{data}">'
            f'<figcaption style="font-style:italic;color:#334155;margin-top:6px">'
            f"{html.escape(takeaway)}</figcaption></figure>"
        )


def verdict(stage: StageRun, rows: Sequence[tuple[str, object, object, bool | None]]) -> None:
    """See `StageRun.verdict`."""
    shown = [
        {
            "claim": claim,
            "reported": number(reported),
            "measured": number(measured),
            "held": None if held is None else bool(held),
        }
        for claim, reported, measured, held in rows
    ]
    stage.write("verdict.json", shown)
    if stage.shows:
        _show(verdict_table(shown))


def verdict_table(rows: Sequence[dict], lead: str = "") -> str:
    """The verdict rows as an HTML table; with `lead`, the rows' own key of that name goes first."""
    keys = ([lead] if lead else []) + ["claim", "reported", "measured"]
    head = "".join(f'<th style="{CELL}">{key}</th>' for key in [*keys, "verdict"])
    body = ""
    for row in rows:
        cells = ""
        for key in keys:
            label = f' data-label="{key}:"' if key in ("reported", "measured") else ""
            text = row[key] if key == lead else html.escape(str(row[key]))
            cells += f'<td style="{CELL}"{label}>{text}</td>'
        colour, word = COLOURS[row["held"]], HELD[row["held"]]
        body += (
            f'<tr>{cells}<td style="{CELL};white-space:nowrap;font-weight:600;color:{colour}">'
            f"{word}</td></tr>"
        )
    return (
        '<div style="overflow-x:auto"><table class="kat-table" style="border-collapse:collapse;'
        f'width:100%;margin:8px 0"><thead><tr>{head}</tr></thead><tbody>{body}</tbody>'
        "</table></div>"
    )


def run_card(stage: StageRun) -> str:
    """What this run is, as a small HTML table."""
    record = runs.read(stage.dir)
    git = record["git"]
    settings = ", ".join(f"{k} = {v}" for k, v in record["settings"].items())
    facts = {
        "stage": stage.name,
        "run": f"{stage.run} · profile {stage.profile} · seed {stage.seed}",
        "overrides": ", ".join(f"{k} = {v}" for k, v in stage.overrides.items()),
        "settings": settings,
        "upstream": ", ".join(record["upstream"]),
        "versions": ", ".join(f"{k} {v}" for k, v in record["versions"].items()),
        "commit": git and git["sha"][:12] + (" with local changes" if git["changed"] else ""),
    }
    rows = "".join(
        f'<tr><th style="{CELL};white-space:nowrap;color:#64748b">{key}</th>'
        f'<td style="{CELL}">{html.escape(value)}</td></tr>'
        for key, value in facts.items()
        if value
    )
    return (
        '<div style="overflow-x:auto"><table class="kat-card" style="border-collapse:collapse;'
        f'font-size:13px;margin:8px 0">{rows}</table></div>'
    )


def _in_notebook() -> bool:
    from IPython import get_ipython

    shell = get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


def _show(content: str) -> None:
    from IPython.display import HTML, display

    display(HTML(content))
