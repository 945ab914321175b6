"""The attack corpus under each isolation that holds here, and what it leaves."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import CHECKOUT
from rewards.attacks.corpus import ATTACKS, CALL, CANARY, FORMS, SECONDS

from katlab import rewards
from katlab.rewards import code
from katlab.rewards.sandbox import commands, isolation, runner
from katlab.rewards.sandbox.commands import Isolation


def graded(attack, verdicts):
    return verdicts[ATTACKS.index(attack)]


def sandboxes():
    """Process ids, with start times, whose command line is a sandbox's."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path("/proc", pid, "cmdline").read_bytes()
            if commands.BOOT.encode() in command:
                found.add((pid, Path("/proc", pid, "stat").read_text().split()[21]))
        except OSError:
            continue  # it ended while we looked
    return found


@pytest.fixture(scope="module", params=["bubblewrap", "landlock"])
def verdicts(request):
    """Every attack graded at once under one isolation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KATLAB_SANDBOX", request.param)
        patch.setenv("KATLAB_SECRET", "sesame")
        needs_isolation()
        code._cache.clear()
        home = os.path.expanduser("~")
        places = {"@REPO@": str(CHECKOUT), "@HOME@": home, "@PID@": str(os.getpid())}
        rows = []
        for attack in ATTACKS:
            source = attack.source
            for name, value in places.items():
                source = source.replace(name, value)
            rows.append(("code", source, FORMS[attack.form]))
        return rewards.grade(rows)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.id)
def test_no_attack_is_graded_correct(attack, verdicts):
    verdict = graded(attack, verdicts)
    assert verdict.correct is False, verdict  # and not unscorable: an attack is no way out
    # The clock runs from the sandbox's ready record; the rest is this machine's load.
    assert verdict.seconds < SECONDS + 1 + runner.START_SECONDS


def test_the_corpus_is_large_and_covers_its_classes():
    assert len(ATTACKS) >= 60
    assert {a.number for a in ATTACKS} == set(range(1, 19)) - {16}
    assert len({a.id for a in ATTACKS}) == len(ATTACKS)


def test_attacks_leave_no_process_and_no_file(verdicts):
    left, until = sandboxes(), time.monotonic() + 30
    while left and time.monotonic() < until:  # others may grade here too: theirs end by themselves
        time.sleep(0.1)
        left &= sandboxes()
    assert not left
    for folder in (Path("/"), Path("/tmp"), Path("/dev/shm"), Path.cwd(), Path.home(), CHECKOUT):
        assert not list(folder.glob(f"{CANARY}*"))


def test_a_breach_would_be_seen():
    """The corpus can fail: without isolation, breaches that need none are graded correct."""
    through = {"os-environ", "fork", "tcp-socket", "memfd"}
    attacks = [a for a in ATTACKS if a.name in through]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KATLAB_SANDBOX", "unsafe")
        patch.setattr(commands, "ENVIRONMENT", {"KATLAB_SECRET": "sesame"})
        verdicts = rewards.grade([("code", a.source, CALL) for a in attacks])
    assert len(attacks) == len(through) and all(v.correct for v in verdicts)
    assert all(v.detail["isolation"] == "unsafe" and v.detail["unsafe"] for v in verdicts)


def needs_isolation():
    here = isolation.choose()
    if here.name == "none":
        pytest.skip(f"isolation unavailable: {here.why}")


def test_hashes_are_the_same_in_every_run():
    needs_isolation()
    source = "def f(x):\n    return hash('katlab') % 1000003\n"
    runs = runner.run(
        [runner.Job("call", source, "f", requests=[((), {"x": i})]) for i in range(3)],
        isolation.choose(),
    )
    assert len({run.records[0] for run in runs}) == 1 and runs[0].records[0][0] == "V"


def test_64_graders_at_once_do_not_mix_their_answers():
    needs_isolation()
    wrong = []

    def grader(k):
        reference = {"entry": "f", "tests": [{"args": [i], "expected": i + k} for i in range(3)]}
        pair = [
            ("code", f"lambda x: x + {k}", reference),
            ("code", f"lambda x: x - {k + 1}", reference),
        ]
        if [v.correct for v in rewards.grade(pair)] != [True, False]:
            wrong.append(k)

    threads = [threading.Thread(target=grader, args=(k,)) for k in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    "breakage", ["no isolation", "binary gone", "binary fails", "descriptors used up"]
)
def test_a_broken_sandbox_is_unscorable(breakage, monkeypatch, tmp_path):
    if breakage == "no isolation":
        monkeypatch.setenv("KATLAB_SANDBOX", "none")
    elif breakage == "binary gone":
        gone = Isolation("bubblewrap", str(tmp_path / "gone"))
        monkeypatch.setattr(isolation, "choose", lambda: gone)
    elif breakage == "binary fails":
        binary = tmp_path / "bwrap"
        binary.write_text("#!/bin/sh\nexit 1\n")
        binary.chmod(0o755)
        monkeypatch.setattr(isolation, "choose", lambda: Isolation("bubblewrap", str(binary)))
    else:
        needs_isolation()
        chosen = isolation.choose()
        monkeypatch.setattr(isolation, "choose", lambda: chosen)

        def refuse(*_, **__):
            raise OSError(24, "Too many open files")

        monkeypatch.setattr("katlab.rewards.sandbox.box.subprocess.Popen", refuse)
    code._cache.clear()
    open_before = len(os.listdir("/proc/self/fd"))
    (verdict,) = rewards.grade([("code", "lambda x: x * x + 1", CALL)])
    assert verdict.correct is None and verdict.reason
    assert len(os.listdir("/proc/self/fd")) == open_before


def descendants(pid):
    """Process ids below `pid`, itself included."""
    found, todo = set(), [str(pid)]
    while todo:
        one = todo.pop()
        found.add(one)
        for task in Path("/proc", one, "task").glob("*/children"):
            todo += task.read_text().split()
    return found


def alive(pid):
    try:
        return Path("/proc", pid, "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_grader_takes_its_sandboxes_and_workers_with_it():
    needs_isolation()
    program = (
        "from katlab.rewards import grade, math_pool\n"
        "math_pool.compare([('x', 'y')], 5.0)\n"
        "reference = {'entry': 'f', 'tests': [{'args': [1], 'expected': 1}], 'seconds': 100}\n"
        "print('up', flush=True)\n"
        "grade([('code', 'import time\\ndef f(x):\\n    time.sleep(100)', reference)])\n"
    )
    grader = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=CHECKOUT)
    assert grader.stdout.readline() == b"up\n"
    until = time.monotonic() + 60
    while len(below := descendants(grader.pid)) < 6 and time.monotonic() < until:
        time.sleep(0.1)  # itself, the math worker, its two children, the sandbox
        if any(commands.BOOT.encode() in Path("/proc", p, "cmdline").read_bytes() for p in below):
            break
    assert len(below) >= 5
    grader.kill()
    grader.wait()
    grader.stdout.close()
    while any(map(alive, below)) and time.monotonic() < until + 60:
        time.sleep(0.1)
    assert not [pid for pid in below if alive(pid)]
