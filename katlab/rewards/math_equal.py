r"""Whether two normalised math texts are equal: math-verify, and what is checked beside it.

Our own rules, each for a case in the tests. After "equal", refused with its proof:
  - words: the texts hold different words of the same letters, which the library multiplies
    ("12 stone", "12 notes");
  - unread: only one of the two is quantified, or a text with an inequality or a list of equations
    was read as a bare value, so that a condition was not compared ("n >= 9, n in Z" is read as 9);
  - value: two expressions of the same symbols differ by value to 30 digits (1/2^99 and 1/2^98,
    which the library rounds to the same 0).
After "different", accepted with its proof:
  - roots: equal once roots of quotients are rewritten (sqrt(1/n) and 1/sqrt(n));
  - interval: the solutions of the answer's inequality are the reference's interval.
Runs in the children of `math_worker`. Usage: `compare("x+1", "1+x", lambda: None)`
"""

import random
import re
from collections import Counter

from katlab.rewards.text import words

_QUANTIFIER = re.compile(r"\\(?:forall|exists)\b|[∀∃]")
_INEQUALITY = re.compile(r"[<>≤≥≠]|\\(?:le|ge|leq|geq|lt|gt|neq|ne|leqslant|geqslant)\b")


def boxed(text):
    """What math-verify reads in a text, as if it stood in a box."""
    from math_verify import parse

    return parse(rf"\boxed{{{text}}}", parsing_timeout=None)


def unread(text, expression):
    """Whether a condition that a text states is missing from what was read in it."""
    import sympy

    if isinstance(expression, sympy.Basic) and not isinstance(expression, sympy.Expr):
        return False  # a relation, a set, a tuple
    return bool(_INEQUALITY.search(text)) or ("," in text and "=" in text)


def same_letters(gold, answer):
    """Whether two texts hold different words of the same letters."""
    g, a = sorted(words(gold)), sorted(words(answer))
    return g != a and Counter("".join(g)) == Counter("".join(a))


def parts(expression):
    """The expressions inside a set, tuple, interval; itself otherwise."""
    import sympy

    if isinstance(expression, sympy.FiniteSet | sympy.Tuple) and expression.args:
        return list(expression.args)
    if isinstance(expression, sympy.Interval):
        return [expression.start, expression.end]
    return [expression]


def far_apart(a, b):
    """True when two expressions of the same symbols certainly differ by value."""
    import sympy

    if not (isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr)):
        return False
    if a.free_symbols != b.free_symbols:
        return False
    draw = random.Random(0)
    symbols = sorted(a.free_symbols, key=str)
    at = {s: sympy.Rational(draw.randint(100, 900), 307) for s in symbols}
    try:
        x, y = (complex(sympy.N(e.subs(at), 30)) for e in (a, b))
    except TypeError:  # no number: a percentage is kept unevaluated, a function has no value
        return False
    size = max(abs(x), abs(y))
    return 0 < size < float("inf") and abs(x - y) > 2e-6 * size


def differ(gold, answer):
    """Whether an "equal" provably fails by value: a part of one has no near part in the other."""
    import sympy

    left, right = parts(gold), parts(answer)
    if type(gold) is not type(answer) and len(left) + len(right) > 2:
        return False
    if len(left) != len(right) or len(left) > 50:
        return len(left) != len(right)
    if isinstance(gold, sympy.FiniteSet):
        return any(all(far_apart(a, b) for b in right) for a in left)
    return any(map(far_apart, left, right))


def roots_rewritten(expression):
    """(b^-k)^e as (b^k)^-e, roots of products split: equal wherever both are real."""
    import sympy

    expression = sympy.expand_power_base(expression, force=True)
    return expression.replace(
        lambda e: e.is_Pow and e.base.is_Pow and e.base.exp.is_negative is True,
        lambda e: sympy.Pow(sympy.Pow(e.base.base, -e.base.exp), -e.exp),
    )


def accepted(gold, answer):
    """The proof that two expressions are equal although math-verify says they are not, or ""."""
    import sympy

    if isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr) and gold.free_symbols:
        if gold.free_symbols == answer.free_symbols and (
            gold.has(sympy.Pow) or answer.has(sympy.Pow)
        ):
            if sympy.simplify(roots_rewritten(gold) - roots_rewritten(answer)) == 0:
                return "after rewriting roots"
    if isinstance(gold, sympy.Interval) and isinstance(answer, sympy.And | sympy.Rel):
        if not isinstance(answer, sympy.Eq) and len(answer.free_symbols) == 1:
            if answer.as_set() == gold:
                return "the inequality's solutions are the interval"
    return ""


def compare(gold_text, answer_text, stage):
    """(state, note): equal, different, or no_gold. Calls `stage` once the reference is parsed."""
    from math_verify import verify

    gold = boxed(gold_text)
    if not gold or isinstance(gold[0], str):
        return "no_gold", "the reference does not parse"
    stage()
    answer = boxed(answer_text)
    if not answer or isinstance(answer[0], str):
        return "different", "the answer does not parse"
    g, a = gold[0], answer[0]
    if verify(gold, answer, timeout_seconds=None):
        if unread(gold_text, g):
            return "no_gold", "part of the reference has no meaning as an expression"
        if unread(answer_text, a):
            return "different", "part of the answer has no meaning as an expression"
        if bool(_QUANTIFIER.search(gold_text)) != bool(_QUANTIFIER.search(answer_text)):
            return "different", "only one of the two is quantified"
        if same_letters(gold_text, answer_text):
            return "different", "different words with the same letters"
        return ("different", "not equal by value") if differ(g, a) else ("equal", "")
    proof = accepted(g, a)
    return ("equal", proof) if proof else ("different", "")
