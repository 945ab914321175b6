"""A finished run to look into: read-only, so nothing in it is written, moved or marked as running.

Usage:  run = lab.open_run("demo");  run.stages;  run.settings;  run.verdicts
        run.table("05_step_srpo", "rollouts");  run["05_step_srpo"].figure("modes")
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from katlab import UserError
from katlab.lab import display, profiles, records, stages
from katlab.lab.rows import read_jsonl
from katlab.lab.settings import did_you_mean

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import Image
    from matplotlib.figure import Figure

    from katlab.lab.runs import StageRun


def open_run(run: str, unfinished: bool = False) -> FinishedRun:
    """The run of this name under outputs/, wherever this is called from.

    Raises UserError for a run that is not there, and for one with a stage that is not done, unless
    `unfinished` says that what is done will do.
    """
    records.check_name(run)
    folders = records.stage_folders(stages.outputs() / run)
    told = {folder.name: records.state(records.read(folder)) for folder in folders}
    done = [folder for folder in folders if told[folder.name] == "done"]
    open_ones = [f"{name} is {state}" for name, state in told.items() if state != "done"]
    if not done:
        raise UserError(f"Nothing of run '{run}' is done yet; run: katlab run --run {run}")
    if open_ones and not unfinished:
        raise UserError(
            f"Run '{run}' is not finished ({', '.join(open_ones)}); go on with: katlab run --run "
            f'{run}, or read what is done: lab.open_run("{run}", unfinished=True)'
        )
    return FinishedRun(folders[0].parent, done)


class FinishedRun:
    """What a run holds: `run[stage]` is one stage of it, by name or number."""

    def __init__(self, folder: Path, done: list[Path]):
        self.dir, self.name = folder, folder.name
        self._stages = {path.name: FinishedStage(path) for path in done}
        last = list(self._stages.values())[-1].record["parameters"]
        self.profile: str = last["profile"]
        self.seed: int = last["seed"]
        self.overrides: dict = last["overrides"]

    def __getitem__(self, word: str) -> FinishedStage:
        name = word if word in self._stages else stages.find(word).name
        if name not in self._stages:
            raise UserError(
                f"{name} of run '{self.name}' is not done; run: katlab run --run {self.name}"
            )
        return self._stages[name]

    def _repr_html_(self) -> str:
        return self.stages._repr_html_()

    @property
    def stages(self) -> pd.DataFrame:
        """One row per stage: minutes, claims held, what it keeps, upstream stages run since."""
        import pandas as pd

        rows = {name: one.summary() for name, one in self._stages.items()}
        return pd.DataFrame(rows).T.rename_axis("stage")

    @property
    def config(self) -> Any:
        """The settings as stages read them, `run.config.step_srpo.omega`: a copy of one's own."""
        read = dict(self.overrides)
        for name, one in self._stages.items():
            read |= profiles.flat({profiles.section(name): one.settings})
        return profiles.load(self.profile, {k: v for k, v in read.items() if "." in k})

    @property
    def settings(self) -> pd.Series:
        """Every setting under the name that an override gives it, as step_srpo.omega."""
        import pandas as pd

        return pd.Series(profiles.flat(self.config.model_dump()), name=self.name, dtype=object)

    @property
    def verdicts(self) -> pd.DataFrame:
        """One row per claim or fact: stage, kind, claim, reported, measured, verdict."""
        return self._joined("verdict")

    @property
    def figures(self) -> pd.DataFrame:
        """One row per figure: stage, name, title, takeaway."""
        return self._joined("figures")

    def show(self, figure: Figure, name: str, takeaway: str) -> None:
        """Show a figure with its takeaway as a stage does, and keep nothing."""
        shown: Any = SimpleNamespace(writes=False, shows=True)
        display.figure(shown, figure, name, takeaway)

    def table(self, stage: str, name: str) -> pd.DataFrame:
        """The rows of a file of a stage, as `run.table("05_step_srpo", "rollouts")`."""
        return self[stage].rows(name)

    def _joined(self, what: str) -> pd.DataFrame:
        import pandas as pd

        parts = {name: getattr(one, what) for name, one in self._stages.items()}
        joined = pd.concat(parts, names=["stage"]).reset_index(level="stage")
        return joined.reset_index(drop=True)


class FinishedStage:
    """One finished stage: its figures, settings and tables; it has nothing that writes."""

    def __init__(self, folder: Path):
        self.dir, self.name = folder, folder.name
        self.record = records.read(folder)
        self.settings: dict = self.record["settings"]
        self.headline: dict = self.record["headline"]

    @property
    def tables(self) -> list[str]:
        """Names for `rows`: its JSONL and CSV files, journals of replies left out."""
        return [path.name for path in self._files()]

    def rows(self, name: str) -> pd.DataFrame:
        """A JSONL or CSV file as a frame, by its name with or without the ending."""
        import pandas as pd

        path = next((p for p in self._files() if name in (p.name, p.stem)), None)
        if path is None:
            raise UserError(
                f"{self.name} of run '{self.dir.parent.name}' has no table '{name}'; "
                + (did_you_mean(name, self.tables) if self.tables else "it keeps none.")
            )
        return pd.read_csv(path) if path.suffix == ".csv" else pd.DataFrame(read_jsonl(path))

    @property
    def verdict(self) -> pd.DataFrame:
        """One row per claim or fact: kind, claim, reported, measured, verdict (a fact has none)."""
        import pandas as pd

        rows = [
            {key: row.get(key, "") for key in ("kind", "claim", "reported", "measured")}
            | {"verdict": "" if row.get("kind") == "fact" else display.HELD[row["held"]]}
            for row in self._json("verdict.json", [])
        ]
        return pd.DataFrame(rows, columns=["kind", "claim", "reported", "measured", "verdict"])

    @property
    def figures(self) -> pd.DataFrame:
        """One row per figure: name, title, takeaway."""
        import pandas as pd

        shown = self._json("figures/index.json", {})
        rows = [{"name": name, **text} for name, text in shown.items()]
        return pd.DataFrame(rows, columns=["name", "title", "takeaway"])

    def figure(self, name: str) -> Image:
        """A figure as the stage drew it, to be shown in a notebook."""
        from IPython.display import Image

        names = list(self.figures["name"])
        if name not in names:
            raise UserError(
                f"{self.name} has no figure '{name}'; "
                + (did_you_mean(name, names) if names else "it draws none.")
            )
        return Image(str(self.dir / "figures" / f"{name}.png"))

    @property
    def student(self) -> Path:
        """The folder of the model that the stage made; UserError if it made none or lost it."""
        folder = self.dir / "checkpoints" / "student"
        if not (folder / "config.json").is_file():
            raise UserError(
                f"{self.name} of run '{self.dir.parent.name}' keeps no model; choose a stage that "
                "trains, or copy its checkpoints/student there."
            )
        return folder

    def variant(self, new: str, **settings: Any) -> StageRun:
        """This stage begun in a run `new`, a fork with other settings; see `StageRun.variant`."""
        from katlab.lab import notebook
        from katlab.lab.runs import StageRun

        source = StageRun.open(self.dir)
        source.run = self.dir.parent.name  # a run may be a copy under another name
        source.shows = notebook.in_notebook()
        return source.variant(new, **settings)

    def summary(self) -> dict[str, object]:
        """The stage's row in `FinishedRun.stages`."""
        held = [row["held"] for row in self._json("verdict.json", []) if row["held"] is not None]
        return {
            "minutes": round(self.record.get("seconds", 0) / 60, 1),
            "claims held": f"{sum(held)} of {len(held)}" if held else "",
            "tables": ", ".join(path.stem for path in self._files()),
            "stale": ", ".join(records.stale(self.dir)),
        }

    def _files(self) -> list[Path]:
        found = sorted(path for end in ("jsonl", "csv") for path in self.dir.glob(f"*.{end}"))
        return [path for path in found if not _journal(path)]

    def _json(self, name: str, default: Any) -> Any:
        path = self.dir / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else default


def _journal(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == b"["
