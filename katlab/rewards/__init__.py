"""Verifiers: is an answer correct, wrong, or unscorable? One file per kind, named like the kind.

Report section 4.2.2 (math: symbolic or numeric equivalence; code: all unit tests; science: the
option letter; general: keyword overlap).

Deviations from the report:
1. A verdict has three values. What cannot be graded (a broken reference, no sandbox on this
   machine) is unscorable, `correct is None`, which TRL takes as "no reward for this row".
2. Only the `<answer>` span of a completion is graded.
3. Two kinds are added for the report's other categories: `tool_call`, and `multi_turn`, which
   grades the last turn by that turn's kind. `keywords` also checks instructions exactly.
4. No classifier for general answers: a trained one is a verifier file of your own.

Usage: `grade([("math", "\\boxed{12}", "12"), ("choice", "B", {"answer": "B", "options": "ABCD"})])`
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import time
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

from katlab import UserError
from katlab.rewards.verdict import Verdict, answer_span

__all__ = ["Verdict", "answer_span", "backends", "doctor", "grade", "kinds", "verifier"]


def kinds() -> list[str]:
    """Names of the verifiers that ship with katlab."""
    # Plain literals, each the name of a module here: what reads sources to find all that grades
    # follows imports and literals. So does every `with_name("...")` in this package.
    return ["choice", "code", "keywords", "math", "multi_turn", "tool_call"]


@lru_cache
def verifier(kind: str) -> ModuleType:
    """The module of a kind: one of `kinds()`, or the path of a Python file defining `verify`.

    Raises UserError when neither exists. A file that fails at import gives a module whose `verify`
    says so: its rows are unscorable, and others go on.
    """
    if kind in kinds():
        return importlib.import_module(f"katlab.rewards.{kind}")
    if not kind.endswith(".py"):
        near = difflib.get_close_matches(kind, kinds(), n=1)
        hint = f"did you mean {near[0]!r}" if near else f"choose one of {', '.join(kinds())}"
        raise UserError(f"Unknown verifier {kind!r}: {hint}, or give the path of your own file.")
    if not Path(kind).is_file():
        raise UserError(f"The verifier file {kind} does not exist: correct the path.")
    spec = importlib.util.spec_from_file_location(f"katlab_verifier_{Path(kind).stem}", kind)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # user code: whatever it raises is its rows' fault
        fault = UserError(f"{kind} fails at import with {error!r}: correct the file.")

        def verify(answer: str, reference: Any) -> Verdict:
            raise fault

        module = ModuleType(module.__name__)
        module.__dict__["verify"] = verify
    if not callable(getattr(module, "verify", None)):
        raise UserError(f"{kind} defines no verify(answer, reference): add that function.")
    return module


def grade(rows: Iterable[tuple[str, str, Any]]) -> list[Verdict]:
    """Verdicts for (kind, answer, reference) rows, in order; each kind is graded as one batch.

    A kind may be the path of a Python file. Safe from any thread. A reference that its verifier
    cannot use, or a verifier that fails at import, raises, exits or gives no Verdict, makes its
    row unscorable with the reason; an unknown kind raises UserError.
    """
    rows = list(rows)
    verdicts: dict[int, Verdict] = {}
    by_kind: dict[str, list[int]] = {}
    for i, (kind, _, _) in enumerate(rows):
        by_kind.setdefault(kind, []).append(i)
    modules = {kind: verifier(kind) for kind in by_kind}  # unknown kinds fail before any work
    for kind, where in by_kind.items():
        pairs = [(answer_span(rows[i][1]), rows[i][2]) for i in where]
        verdicts.update(zip(where, _batch(modules[kind], pairs), strict=True))
    return [verdicts[i] for i in range(len(rows))]


def _batch(module: ModuleType, pairs: list[tuple[str, Any]]) -> list[Verdict]:
    """The verdicts on one kind's pairs: in parallel where its verifier can, else one by one."""
    batch = getattr(module, "verify_batch", None)  # math and code run theirs in parallel
    if batch is not None:
        try:
            graded = list(batch(pairs))
            if len(graded) == len(pairs) and not any(map(_nonsense, graded)):
                return graded
        except KeyboardInterrupt:
            raise
        except BaseException:
            pass  # one row's fault: one by one, it alone is unscorable
    return [one(module, *pair) for pair in pairs]


def _nonsense(verdict: Any) -> bool:
    if not isinstance(verdict, Verdict) or not isinstance(verdict.reason, str):
        return True
    return verdict.correct is not None and not isinstance(verdict.correct, bool)


def one(module: ModuleType, *given: Any) -> Verdict:
    """`module.verify(*given)` with its seconds; unscorable when it raises or gives no Verdict."""
    start = time.perf_counter()
    try:
        verdict = module.verify(*given)
        if _nonsense(verdict):
            raise UserError(f"verify returned {verdict!r}, not a Verdict: return one.")
        return replace(verdict, seconds=time.perf_counter() - start)
    except KeyboardInterrupt:
        raise
    # A verifier is user code here: whatever it raises must not become a zero reward. Time-outs of
    # libraries are often no Exception but a BaseException, as SystemExit is.
    except BaseException as error:
        reason = str(error) if isinstance(error, UserError) else f"verifier raised {error!r}"
        return Verdict(None, reason[:500], time.perf_counter() - start)


def backends() -> dict[str, str]:
    """What grades here, for a run's record: {"math": "math-verify 0.9.0", "code": "bubblewrap"}."""
    from katlab.rewards.sandbox import isolation

    try:
        library = f"math-verify {version('math-verify')}"
    except PackageNotFoundError:
        library = "exact path only"
    return {"math": library, "code": isolation.choose().name}


def doctor() -> list[tuple[str, bool, str, str]]:
    """(name, ok, detail, remedy) for each backend on this machine; remedy is a command or ""."""
    from katlab.rewards import math
    from katlab.rewards.sandbox import isolation

    return [*math.doctor(), *isolation.doctor(), ("cores", True, f"{os.cpu_count()}", "")]
