"""Code: the candidate runs in a sandbox, its values are compared outside, all tests must pass.

Report section 4.2.2 (all unit tests, 0/1). How it stands against a candidate that looks for holes:
expected values never enter its sandbox; every test needs an affirmative record; an exit, a
time-out, a flood of output or a missing record is wrong; only a sandbox that could not start is
unscorable. See `plans` for the test forms, `sandbox.isolation` for what holds a candidate,
`sandbox/inside.py` for the records.

Accepts: the fenced block that is the program (`markdown.program`), else the whole answer; a module,
or one expression such as `lambda x: 2 * x`, which is bound to the entry's name. An entry that the
module lacks is looked for in its `class Solution`. For HumanEval references also a bare function
body that continues the prompt. A candidate has the standard library, one process (threads yes),
512 MiB, 16 MiB in /tmp, 5 s, and no network; a program may print 4 MiB for each input.
Reference: see `katlab.rewards.plans`.
Usage: `verify("lambda x: x * x", {"entry": "f", "tests": [{"args": [3], "expected": 9}]})`
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import OrderedDict
from typing import Any

from katlab import UserError
from katlab.rewards import compare, plans
from katlab.rewards.markdown import defines, program
from katlab.rewards.sandbox import isolation
from katlab.rewards.sandbox.runner import Job, Outcome, run
from katlab.rewards.verdict import MAX_ANSWER, Verdict, answer_span

CACHE_SIZE = 4096
# What a forged record may cause: too deep, too many digits, odd tags, unhashable keys.
FORGED = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)
_cache: OrderedDict[str, Verdict] = OrderedDict()
_lock = threading.Lock()


def _job(answer: str, plan: plans.Plan) -> Job:
    code, setup = program(answer, plan.entry), plan.setup
    if plan.prompt and not defines(code, plan.entry) and not re.match(r"\s*lambda\b", code):
        code, setup = f"{plan.prompt.rstrip()}\n{_body(code)}", ""
    limits: dict[str, Any] = {"seconds": plan.seconds, "memory": plan.memory}
    if plan.mode == "judge":
        judge = {"setup": plan.setup, "names": plan.names, "tests": plan.tests}
        return Job("serve", code, plan.entry, setup, judge=judge, **limits)
    return Job(plan.mode, code, plan.entry, setup, plan.requests, plan.tests, **limits)


def _body(code: str) -> str:
    """A bare function body, indented by four; a span's strip took the blanks of its first line."""
    first, *rest = code.strip("\n").split("\n")
    depths = [len(line) - len(line.lstrip()) for line in rest if line.strip()]
    own = len(first) - len(first.lstrip())
    if not own and depths:
        own = min(depths)
        if first.rstrip().endswith(":") and own == depths[0]:  # nothing follows its block
            own = max(0, own - 4)
        first = " " * own + first
    lines = (line[min(own, len(line) - len(line.lstrip())) :] for line in (first, *rest))
    return "\n".join("    " + line for line in lines)


def verify_batch(pairs: list[tuple[str, Any]]) -> list[Verdict]:
    """One verdict per pair, in order; equal candidates of equal references run once."""
    here = isolation.choose()
    verdicts: list[Verdict | None] = [None] * len(pairs)
    jobs: dict[str, tuple[Job, plans.Plan]] = {}
    keys: list[str] = []
    for i, (answer, reference) in enumerate(pairs):
        text = answer_span(answer)
        keys.append("")
        try:
            plan = plans.read(reference)
        except UserError as error:
            verdicts[i] = Verdict(None, str(error))
            continue
        if not text or len(text) > MAX_ANSWER:
            verdicts[i] = Verdict(False, "answer too long" if text else "empty answer")
            continue
        if here.name == "none":
            verdicts[i] = Verdict(None, here.why, detail={"isolation": "none"})
            continue
        known = [here.name, text, reference]
        keys[i] = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
        with _lock:
            verdicts[i] = _cache.get(keys[i])
        if verdicts[i] is None and keys[i] not in jobs:
            jobs[keys[i]] = _job(text, plan), plan
    outcomes = run([job for job, _ in jobs.values()], here) if jobs else []
    fresh = {
        key: judged(outcome, plan, here.name)
        for (key, (_, plan)), outcome in zip(jobs.items(), outcomes, strict=True)
    }
    with _lock:
        _cache.update({key: v for key, v in fresh.items() if v.correct is not None})
        while len(_cache) > CACHE_SIZE:
            _cache.popitem(last=False)
    return [v or fresh[key] for v, key in zip(verdicts, keys, strict=True)]


def judged(outcome: Outcome, plan: plans.Plan, isolated_by: str) -> Verdict:
    """The verdict on a finished sandbox: correct needs every test's affirmative record."""
    detail: dict[str, Any] = {
        "isolation": isolated_by,
        "trust": plan.trust if isolated_by != "unsafe" else "none",
        "status": outcome.status,
        "tests": len(plan.wants) or 1,
        "passed": 0,
    }
    if isolated_by == "unsafe":
        detail["unsafe"] = True

    def verdict(correct: bool | None, reason: str) -> Verdict:
        return Verdict(correct, reason, outcome.seconds, detail)

    if outcome.status == "failed":
        return verdict(None, outcome.reason)
    if plan.mode == "judge":
        kind, payload = outcome.judged[-1] if outcome.judged else ("", b"")
        if kind == "B":
            return verdict(None, f"unusable tests: {_text(payload)}")
        detail["passed"] = int(outcome.status == "done" and kind == "D")
        fault = _text(payload) or outcome.reason
        return verdict(bool(detail["passed"]), fault or "all checks pass")
    if plan.mode == "asserts":
        detail["passed"] = int(outcome.status == "done" and not outcome.records)
        fault = _text(outcome.records[-1][1]) if outcome.records else outcome.reason
        return verdict(bool(detail["passed"]), fault or "all asserts pass (lower trust)")
    fault = ""
    for i, want in enumerate(plan.wants):
        kind, payload = outcome.records[i] if i < len(outcome.records) else ("", b"")
        if kind == "V" and _holds(payload, want):
            detail["passed"] += 1
        elif not fault:
            said = _text(payload)[:80] if kind else outcome.reason or "no record"
            fault = f"test {i + 1} of {len(plan.wants)}: {'gave ' if kind == 'V' else ''}{said}"
    if outcome.status != "done" or len(outcome.records) != len(plan.wants):
        return verdict(False, fault or outcome.reason or "not one record for each test")
    return verdict(not fault, fault or f"all {len(plan.wants)} tests pass")


def _text(payload: bytes) -> str:
    return payload.decode("utf-8", "replace")[:300]


def _holds(payload: bytes, want: compare.Want) -> bool:
    try:
        return compare.holds(json.loads(payload), want)
    except FORGED:
        return False


def verify(answer: str, reference: dict[str, Any]) -> Verdict:
    """One verdict (module docstring: what is accepted); unscorable when nothing isolates here.

    Raises UserError for a reference with no usable tests.
    """
    plans.read(reference)
    return verify_batch([(answer, reference)])[0]
