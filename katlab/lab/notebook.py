"""How a stage notebook begins: its folder, its parameters, quiet libraries.

Usage:  stage = lab.begin("05_step_srpo", globals())
"""

import os
from pathlib import Path

from katlab import UserError
from katlab.lab import display, fingerprint, identity, parameters, records, runs, stages, training
from katlab.lab.quiet import quiet
from katlab.lab.runs import StageRun

RUNNER = "KATLAB_RUNNER"  # set by the runner for its kernels: it holds the lock of the run folder


def begin(name: str, namespace: dict) -> StageRun:
    """Open outputs/<run>/<stage>/ with the notebook's own parameters and show the run card.

    `namespace` is the notebook's globals(). What was done or cut off with the same inputs is
    gone on with; an attempt with others is kept beside the new one as <stage>@N. Where the cell
    holds the default of profile, seed or overrides, a run that has begun keeps its own (and the
    namespace gets it). Raises UserError for another value, and for a mistake in parameters,
    profile or overrides, before any folder is touched.
    """
    quiet()
    own = parameters.of(name)
    missing = [key for key in own if key not in namespace]
    if missing:
        raise UserError(f"The parameters cell lacks '{missing[0]}'; every notebook has the same.")
    values = parameters.check({key: namespace[key] for key in own}, own, name)
    records.check_name(values["run"])
    folder = stages.outputs() / values["run"] / name
    named = {key: values[key] for key in identity.KEYS if values[key] != own[key].default}
    kept = identity.settle(folder.parent, named)
    values |= kept.values()
    upstream = upstream_fingerprints(folder)
    wanted = fingerprint.work(name, values, upstream)
    kept_aside = None
    if RUNNER not in os.environ:
        from katlab.lab.lock import run_lock

        training.check_trackers(values["report_to"])
        for need in upstream:
            records.upstream(folder, need, values)
        with run_lock(folder.parent):
            identity.keep(folder.parent, kept)
            kept_aside = prepare(folder, wanted)
    told = [f"{key} {values[key]}" for key in identity.KEYS if values[key] != namespace[key]]
    namespace.update({key: values[key] for key in identity.KEYS})
    stage = shown(created(folder, values, wanted, upstream), in_notebook())
    if stage.shows and told:
        print(f"Run '{stage.run}' keeps its own values: {', '.join(told)}.")
    if stage.shows and kept_aside:
        print(f"Code or files have changed; the earlier attempt is kept as {kept_aside.name}.")
    return stage


def shown(stage: StageRun, shows: bool) -> StageRun:
    """The stage with its run card on display, if it shows anything."""
    stage.shows = shows
    if shows:
        import matplotlib.pyplot as plt

        plt.style.use(display.STYLE)
        display.show(display.run_card(stage))
    return stage


def created(folder: Path, values: dict, work: str, upstream: dict[str, str]) -> StageRun:
    """The stage of a folder outputs/<run>/<stage>, with all that its run.json must say."""
    return StageRun.create(
        folder.parents[1],
        name=folder.name,
        **{key: values[key] for key in parameters.COMMON},
        parameters=values,
        fingerprint=work,
        upstream=upstream,
    )


def upstream_fingerprints(folder: Path) -> dict[str, str]:
    """Work fingerprints of the stages that the stage in `folder` needs ('' if not there)."""
    records = {need: folder.parent / need for need in stages.named(folder.name).needs}
    return {
        need: runs.read(path).get("fingerprint", "") if (path / "run.json").is_file() else ""
        for need, path in records.items()
    }


def prepare(folder: Path, wanted: str, anew: bool = False) -> Path | None:
    """Make room for work with this fingerprint; return where other work was set aside, if any.

    An attempt at the very same work, done or not, stays in place unless it is to be done `anew`.
    """
    if (folder / "run.json").is_file():
        record = runs.read(folder)
        same = record.get("fingerprint") == wanted and not anew
        if same and records.state(record) == "done":
            return None
        if record["state"] == "running" and records.alive(record) and record["pid"] != os.getpid():
            raise UserError(
                f"Process {record['pid']} still has {folder.name} of run '{folder.parent.name}' "
                "open; wait for it, or stop it, or choose another run name."
            )
        if same:
            return None
    elif not (folder.is_dir() and any(folder.iterdir())):
        folder.mkdir(parents=True, exist_ok=True)
        return None
    kept = records.set_aside(folder)
    folder.mkdir()
    return kept


def in_notebook() -> bool:
    """Whether this is a kernel, whose cells show what is displayed."""
    from IPython import get_ipython

    shell = get_ipython()
    return shell is not None and "IPKernelApp" in shell.config
