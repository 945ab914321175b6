"""A mistake on the command line: one sentence on stderr, status 2, nothing written."""

import errno
import os
import shlex

import pytest
from conftest import write_notebook

from katlab import cli
from katlab.lab import disk, pipeline
from katlab.lab.runs import StageRun

# One row per mistake: what was typed behind `katlab`, and what the sentence says.
MISTAKES = [
    ("list", "There is no command 'katlab list'; did you mean 'ls'?"),
    ("runn", "There is no command 'katlab runn'; did you mean 'run'?"),
    ("upscale aply", "There is no command 'katlab upscale aply'; did you mean 'apply'?"),
    ("--versoin", "katlab has no option '--versoin'; did you mean '--version'?"),
    ("run --profil nano", "katlab run has no option '--profil'; did you mean '--profile'?"),
    ("run --dry", "katlab run has no option '--dry'; did you mean '--dry-run'?"),
    ("ls a b", "katlab ls does not take 'b'; see: katlab ls --help"),
    ("stage", "katlab stage needs STAGE; see: katlab stage --help"),
    ("nano bild", "WHAT takes 'build', not 'bild'."),
    ("run --seed", "--seed needs a value; see: katlab run --help"),
    ("run --seed one", "--seed takes a whole number, not 'one'."),
    ("run --seed nan", "--seed takes a whole number, not 'nan'."),
    ("run --seed -1", "Seed -1 is out of range; take one from 0"),
    ("run --seed 4294967296", "Seed 4294967296 is out of range"),
    ("run --profile nanoo", "did you mean 'nano'"),
    ("run --json --profile nanoo", "did you mean 'nano'"),
    ("run -p sead=1", "did you mean 'seed'"),
    ("run -p seed=one", "takes a whole number"),
    ("run -p seed", "Write 'seed' as name=value."),
    ("run -p report_to=wandbb", "no tracker 'wandbb' for report_to; did you mean"),
    ("run -o -5", "Write '-5' as name=value."),
    ("run -o step_srpo.stepz=1", "did you mean 'steps'"),
    ("run -o step_srpo.steps=many", "takes a whole number"),
    ("run -o step_srpo.steps=-1", "takes a whole number above 0"),
    ("run -o step_srpo.steps=1e9", "takes a whole number"),
    ("run -o step_srpo.omega=nan", "'step_srpo.omega' takes a number"),
    ("run -o step_srpo.omega=inf", "'step_srpo.omega' takes a number"),
    ("run -o step_srpo.omega=-5", "'step_srpo.omega' takes a number"),
    ("run -o step_srpo.trainer.loss_type=foo", "takes 'dapo'"),
    ("run --run ../esc", "'../esc' is no name for a run"),
    ("run --run '{seed}'", "'{seed}' is no name for a run"),
    ("run --run 'my run'", "'my run' is no name for a run"),
    ("run --run ''", "'' is no name for a run"),
    ("run --only 5", "There is no stage '5'"),
    ("run --from dual_regime_dat_", "did you mean '02_dual_regime_data'"),
    ("run --from 2 --only 8", "Give --only, or --from and --to, but not both."),
    ("run --to 1 --only 8", "Give --only, or --from and --to, but not both."),
    ("run --from 2 --to 1", "--to 1 comes before --from 2; swap them."),
    ("ls ..", "'..' is no name for a run"),
    ("ls nowhere", "There is no run 'nowhere'"),
    ("report ''", "'' is no name for a run"),
    ("report ..", "'..' is no name for a run"),
    ("report nowhere", "There is no run 'nowhere'"),
    ("open nowhere", "There is no run 'nowhere'"),
    ("rm nowhere", "There is no run 'nowhere'"),
    ("rm --yes ../docs", "'../docs' is no name for a run"),
    ("compare ../docs b", "'../docs' is no name for a run"),
    ("compare a b", "There is no run 'a'"),
    ("params 1 --profile nanoo", "did you mean 'nano'"),
    ("params zero", "There is no stage 'zero'"),
    ("plan --profile nope", "There is no profile 'nope'; choose one of: nano,"),
    ("upscale plan nowhere --add x", "--add takes a whole number, not 'x'."),
    ("upscale apply a b --shard-gb -1", "--shard-gb -1.0 is no size"),
    ("upscale plan a --alpha inf", "--alpha takes a number, not 'inf'."),
    ("upscale apply a b --shard-gb nan", "--shard-gb takes a number, not 'nan'."),
]


@pytest.mark.parametrize(("typed", "words"), MISTAKES)
def test_a_mistake_is_one_sentence_and_status_2(project, capsys, typed, words):
    assert cli.main(shlex.split(typed)) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert len(captured.err.strip().splitlines()) == 1 and not captured.out
    assert not list(project.glob("outputs/*"))


def test_an_ambiguous_stage_is_named(project, capsys):
    write_notebook(project / "notebooks" / "12_layers.ipynb", "12_layers")
    assert cli.main(["params", "layer"]) == 2
    assert "01_layer_saturation or 12_layers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("stage 3", "run: katlab run --to 01 --run demo"),
        ("stage 3 --dry-run", "needs 01_layer_saturation, which is not run yet"),
    ],
)
def test_a_stage_without_its_upstream_is_one_sentence(project, capsys, typed, words):
    write_notebook(project / "notebooks/03_mtp_distillation.ipynb", "03_mtp_distillation")
    assert cli.main(shlex.split(typed)) == 2
    told = capsys.readouterr()
    assert words in told.err and len(told.err.strip().splitlines()) == 1
    assert not list(project.glob("outputs/*"))


@pytest.mark.parametrize("profile", ["nano", "tiny", "my own/p.toml"])
def test_a_remedy_can_be_pasted(project, capsys, monkeypatch, profile):
    monkeypatch.chdir(project)
    write_notebook(project / "notebooks/03_mtp_distillation.ipynb", "03_mtp_distillation")
    (project / "my own").mkdir()
    (project / "my own" / "p.toml").write_text('extends = "tiny"\n')
    typed = ["stage", "3", "--run", "x", "--profile", profile]
    assert cli.main(typed) == 2
    command, *remedy = shlex.split(capsys.readouterr().err.partition("run: ")[2])
    assert command == "katlab" and cli.main([*remedy, "--dry-run"]) == 0
    assert "01_layer_saturation  runs" in capsys.readouterr().out


def test_a_run_without_a_page_says_how_to_make_it(project, capsys):
    StageRun.create(project / "outputs", "a", "08_scaling_plan")
    for page in ([], ["08"]):
        assert cli.main(["open", "a", *page]) == 2
        assert "make it with: katlab report a" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "free some space and start again"), (errno.EROFS, "make it writable")],
)
def test_a_disk_that_refuses_is_one_sentence(project, capsys, monkeypatch, number, words):
    def refused(folder):
        raise OSError(number, os.strerror(number), str(folder))

    monkeypatch.setattr(pipeline, "run_lock", refused)
    assert cli.main(["run", "--only", "1"]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert told == [f"{os.strerror(number)}: {project / 'outputs' / 'demo'}; {words}."]


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("[Errno 28] No space left on device: '/a/b'",
         "No space left on device: /a/b; free some space and start again."),
        ("Error while serializing: I/O error: No space left on device (os error 28)",
         "No space left on device: outputs/; free some space and start again."),
        ("[Errno 13] Permission denied: '/a'", "Permission denied: /a; make it writable."),
        ("[Errno 30] Read-only file system: '/a'", "Read-only file system: /a; make it writable."),
        ("[Errno 2] No such file or directory: '/a'", ""),
        ("No Space is left", ""),
    ],
)  # fmt: skip
def test_the_disk_is_recognised_in_what_libraries_say(message, told):
    assert disk.sentence(message) == told


@pytest.mark.slow
def test_a_disk_that_is_full_in_the_kernel_is_one_sentence(project, capfd):
    code = "import errno, os\nraise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'weights')"
    write_notebook(project / "notebooks/01_layer_saturation.ipynb", "01_layer_saturation", code)
    assert cli.main(["run", "--only", "1"]) == 1
    told = capfd.readouterr()
    assert "No space left on device: weights; free some space and start again." in told.out
    assert "read on in" not in told.out and "Traceback" not in told.out + told.err
