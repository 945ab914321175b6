r"""Whether two normalised math texts are equal: math-verify, and what is checked beside it.

Our own rules, each for a case in the tests. Before it, as it reads neither: congruences ("x = 2
(mod 5)", of which it reads 5) are the same residue class, numerals with a base the same integer.
After "equal", refused with its proof:
  - words: the texts hold different words of the same letters, which the library multiplies
    ("12 stone", "12 notes");
  - unread: only one of the two is quantified, or a text with an inequality or a list of equations
    was read as a bare value, so that a condition was not compared ("n >= 9, n in Z" is read as 9);
  - names: the same letter has another number of primes ("f'(x)", "f(x)"), or an angle another
    vertex, which the library reads as products;
  - derivatives: one is of other variables, each of which the library takes as 0;
  - value: two expressions of the same symbols differ by value to 30 digits (1/2^99 and 1/2^98,
    which the library rounds to the same 0).
After "different", accepted with its proof:
  - roots: equal once roots of quotients are rewritten (sqrt(1/n) and 1/sqrt(n));
  - solutions: both are inequalities ("or" between them), memberships or sets of numbers, and
    sympy solves them to the same set ("x > 5 or x < -1", (-oo, -1) U (5, oo)).
Runs in the children of `math_worker`. Usage: `compare("x+1", "1+x", lambda: None)`
"""

import random
import re
from collections import Counter

from katlab.rewards.text import words

_RELATION = re.compile(r"\\(?:to|mid|nmid|rightarrow|Rightarrow|implies|iff)(?![A-Za-z])|→")
_LOWERED = re.compile(r"_\{[^{}]*\}")
_ANGLE = re.compile(r"\\angle\s*\{?\s*[A-Z]\s*([A-Z])\s*[A-Z]")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_OR = re.compile(r"\bor\b")
_QUANTIFIER = re.compile(r"\\(?:forall|exists)\b|[∀∃]")
_INEQUALITY = re.compile(r"[<>≤≥≠]|\\(?:equiv|pmod|le|ge|leq|geq|lt|gt|neq|ne|leqslant|geqslant)\b")

_CONGRUENCE = re.compile(
    r"(?:(?P<left>.*?)\s*\\equiv\s*)?(?P<residue>-?\d+)\s*(?P<mod>\\pmod|\(?\s*\\?(?:bmod|mod)"
    r"|\(?\s*\\(?:text|mathrm)\s*\{\s*mod\s*\})\s*\{?\s*(?P<modulus>[1-9]\d*)\s*\}?\s*\)?"
)
_BASED = re.compile(r"\(?(\d[\dA-Za-z]*)\)?_(?:\{(\d+)\}|(\d+))")


def congruence(text):
    """(left side, residue, modulus) of a congruence, or None."""
    match = _CONGRUENCE.fullmatch(text)
    if not match or (match["left"] is None and match["mod"] != "\\pmod"):
        return None
    modulus = int(match["modulus"])
    return (match["left"] or "").strip(), int(match["residue"]) % modulus, modulus


def based(text):
    """The integer that a numeral with its base writes, or None."""
    match = _BASED.fullmatch(text)
    try:
        return int(match[1], int(match[2] or match[3])) if match else None
    except ValueError:
        return None


def boxed(text):
    """What math-verify reads in a text, as if it stood in a box."""
    from math_verify import parse

    return parse(rf"\boxed{{{text}}}", parsing_timeout=None)


def unread(text, expression):
    """Whether a condition that a text states is missing from what was read in it."""
    import sympy

    if isinstance(expression, sympy.Basic) and not isinstance(expression, sympy.Expr):
        return False  # a relation, a set, a tuple
    bare = _LOWERED.sub("", text)  # without the bounds of a sum or a limit
    if _RELATION.search(bare.rpartition("=")[2]):
        return True
    return bool(_INEQUALITY.search(bare)) or ("," in text and "=" in text)


def same_letters(gold, answer):
    """Whether two texts hold different words of the same letters."""
    g, a = sorted(words(gold)), sorted(words(answer))
    return g != a and Counter("".join(g)) == Counter("".join(a))


def other_names(gold, answer):
    """Whether a letter of both texts has other primes, or an angle another vertex."""
    angles = [_ANGLE.search(text) for text in (gold, answer)]
    if all(angles) and angles[0][1] != angles[1][1]:
        return True
    gold, answer = (_COMMAND.sub(" ", text) for text in (gold, answer))
    shared = set(re.findall("[A-Za-z]", gold)) & set(re.findall("[A-Za-z]", answer))
    primes = [
        {name: marks for name, marks in re.findall("([A-Za-z])('+)", text) if name in shared}
        for text in (gold, answer)
    ]
    return primes[0] != primes[1]


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
        x, y = (sympy.N(e.subs(at), 30) for e in (a, b))
        size = max(abs(x), abs(y))  # not as floats of Python, of which 1/2004! is none
        return bool(size.is_finite and size > 0 and abs(x - y) > 2e-6 * size)
    except TypeError:  # no number: a percentage is kept unevaluated, a function has no value
        return False


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


def accepted(gold, answer, gold_text, answer_text):
    """The proof that two expressions are equal although math-verify says they are not, or ""."""
    import sympy

    if isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr) and gold.free_symbols:
        if gold.free_symbols == answer.free_symbols and (
            gold.has(sympy.Pow) or answer.has(sympy.Pow)
        ):
            if sympy.simplify(roots_rewritten(gold) - roots_rewritten(answer)) == 0:
                return "after rewriting roots"
    (one, of), (other, named) = solutions(gold, gold_text), solutions(answer, answer_text)
    if one is not None and one == other and (not of or not named or of == named):
        return "the same solutions"
    return ""


def solutions(expression, text):
    """(the set of numbers that a set, membership or inequality allows or None, its symbols)."""
    import sympy

    names = expression.free_symbols if isinstance(expression, sympy.Basic) else set()
    if isinstance(expression, sympy.Eq) and isinstance(expression.rhs, sympy.Set):
        return (expression.rhs, names) if expression.lhs.is_Symbol else (None, names)
    if isinstance(expression, sympy.FiniteSet) and _OR.search(text):
        expression = sympy.Or(*expression.args) if all(map(_inequality, expression.args)) else None
    if isinstance(expression, sympy.Set):
        return (None if names else expression), names
    return (expression.as_set() if len(names) == 1 and _inequality(expression) else None), names


def _inequality(expression):
    import sympy

    return isinstance(expression, sympy.And | sympy.Or | sympy.Rel) and not expression.has(sympy.Eq)


def compare(gold_text, answer_text, stage):
    """(state, note): equal, different, or no_gold. Calls `stage` once the reference is parsed."""
    import sympy
    from math_verify import verify

    if (g := congruence(gold_text)) and (a := congruence(answer_text)):
        named = g[0] == a[0] or not g[0] or not a[0]
        same = named and g[1:] == a[1:]
        return ("equal", "the same residues") if same else ("different", "other residues")
    if (g := based(gold_text)) is not None and (a := based(answer_text)) is not None:
        return ("equal", "the same integer") if g == a else ("different", "another integer")
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
        if other_names(gold_text, answer_text):
            return "different", "the same letters name something else"
        if g != a and all(isinstance(e, sympy.Basic) and e.has(sympy.Derivative) for e in (g, a)):
            return "different", "derivatives of other variables"
        if same_letters(gold_text, answer_text):
            return "different", "different words with the same letters"
        return ("different", "not equal by value") if differ(g, a) else ("equal", "")
    proof = accepted(g, a, gold_text, answer_text)
    return ("equal", proof) if proof else ("different", "")
