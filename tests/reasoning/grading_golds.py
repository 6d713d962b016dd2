"""Gold answers of many kinds with spellings that are equal to them, and near misses that are not.

All are equal or wrong by construction, with Python's integers and fractions; nothing here uses the
grader. A near miss differs by a sign, by one, by a part left out, by an exponent or a unit.
"""

import dataclasses
import math
import random
from collections.abc import Callable
from fractions import Fraction


@dataclasses.dataclass(frozen=True)
class Gold:
    """A reference and answers to it.

    Attributes:
        gold: The reference.
        equal: Answers that mean the same.
        wrong: Answers that do not.
        plain: Whether the answers stand in plain text, not in formulas.
        number: Whether the gold is one plain number.
        words: Whether the answers are words.
    """

    gold: str
    equal: list[str]
    wrong: list[str]
    plain: bool = False
    number: bool = False
    words: bool = False


KINDS: dict[str, Callable[[random.Random], Gold]] = {}


def kind(make):
    """Registers a maker of golds under its name."""
    KINDS[make.__name__] = make
    return make


def frac(value: Fraction, name="frac") -> str:
    sign = "-" if value < 0 else ""
    if value.denominator == 1:
        return str(value)
    return rf"{sign}\{name}{{{abs(value.numerator)}}}{{{value.denominator}}}"


def signed(value: int) -> str:
    return f"+{value}" if value >= 0 else str(value)


def nonzero(rng, low, high):
    return rng.choice([n for n in range(low, high + 1) if n])


def true_fraction(rng, size=40):
    while True:
        value = Fraction(nonzero(rng, -size, size), rng.randint(2, 25))
        if value.denominator > 1:
            return value


def term(coefficient: int, letters: str, first=False) -> str:
    if coefficient == 0:
        return ""
    sign = "-" if coefficient < 0 else ("" if first else "+")
    size = "" if abs(coefficient) == 1 and letters else str(abs(coefficient))
    return f"{sign}{size}{letters}"


@kind
def integers(rng):
    n = rng.choice([rng.randint(-99, 99), rng.randint(-(10**6), 10**6), rng.randint(1, 10**10)])
    equal = [f"{n}", f"{n:,}", f"{n}.0", f"{n}.00", f"{n} apples", f"{n}."]
    wrong = [f"{n + 1}", f"{n - 1}", f"{n * 10 + 1}", f"{n}.5", f"{n} thousand", f"{n}!"]
    wrong += [f"{n} or {n + 1}", f"{n} dozen", f"{n}1"]
    wrong = [w for w in wrong if w not in ("1!", "2!")]
    if n:
        wrong += [f"{-n}", f"{n * 10}", f"{n} thousandths"]
    else:
        wrong = [w for w in wrong if w not in ("0 thousand", "0 dozen")]
    return Gold(f"{n}", equal, wrong, plain=True, number=True)


@kind
def integers_in_formulas(rng):
    n = nonzero(rng, -5000, 5000)
    k = rng.randint(2, 9)
    equal = [rf"\frac{{{n * k}}}{{{k}}}", f"x={n}", f"{n}=x", rf"{n - k}+{k}={n}", rf"\text{{{n}}}"]
    equal += [f"({n})", rf"f({k})={n}", f"{{{n}}}", rf"\left({n}\right)", rf"a_{{{k}}}={n}"]
    equal += [rf"{n}\text{{ cm}}", rf"{n}\mathrm{{~cm}}^2", rf"S_{{{k}}}={n}"]
    wrong = [rf"\frac{{{n * k + 1}}}{{{k}}}", f"x={n + 1}", f"{n}={n + 1}", f"{n},{n + 1}"]
    wrong += [
        f"{n}x",
        f"{n}'",
        rf"{n}\ldots",
        rf"{n}\pm1",
        f"{n}_7",
        rf"\sqrt{{{abs(n)}}}" if abs(n) > 1 else "7",
        f"x>{n}",
    ]
    wrong += [
        rf"{n}\text{{ or }}{n + 2}",
        rf"{n}\frac13",
        rf"{n - k}+{k}",
        rf"{n}\text{{ (wrong)}}",
    ]
    wrong += [f"{k}x={n * k}", rf"\{{{n},{n + 1}\}}", f"[{n},{n + 3}]", f"{n}?", rf"x\ne{n}"]
    return Gold(f"{n}", equal, wrong)


@kind
def huge_numbers(rng):
    base, power = rng.choice([2, 3, 5, 7, 10]), rng.randint(20, 400)
    add = rng.choice([-1, 1])
    gold = f"{base}^{{{power}}}{signed(add)}"
    equal = [gold, f"{signed(add).lstrip('+')}+{base}^{{{power}}}"]
    equal += [
        rf"{base}\cdot{base}^{{{power - 1}}}{signed(add)}",
        f"{base}^{{{power - 5}}}\\times{base}^{{5}}{signed(add)}",
    ]
    if power % 2 == 0:
        equal.append(f"({base}^{{{power // 2}}})^2{signed(add)}")
    wrong = [
        f"{base}^{{{power}}}",
        f"{base}^{{{power}}}{signed(-add)}",
        f"{base}^{{{power + 1}}}{signed(add)}",
    ]
    wrong += [
        f"{base}^{{{power}}}{signed(2 * add)}",
        f"-{gold}",
        f"{base + 1}^{{{power}}}{signed(add)}",
    ]
    return Gold(gold, equal, wrong)


@kind
def tiny_numbers(rng):
    base, power = rng.choice([2, 3, 5, 10]), rng.randint(12, 300)
    gold = rng.choice([rf"\frac{{1}}{{{base}^{{{power}}}}}", f"{base}^{{-{power}}}"])
    equal = [rf"\frac{{1}}{{{base}^{{{power}}}}}", f"{base}^{{-{power}}}", f"1/{base}^{{{power}}}"]
    equal += [
        rf"\left(\frac{{1}}{{{base}}}\right)^{{{power}}}",
        rf"\frac{{{base}}}{{{base}^{{{power + 1}}}}}",
    ]
    wrong = [
        rf"\frac{{1}}{{{base}^{{{power + 1}}}}}",
        f"{base}^{{-{power - 1}}}",
        "0",
        f"-{base}^{{-{power}}}",
    ]
    wrong += [
        f"{base}^{{{power}}}",
        rf"\frac{{2}}{{{base * 3}^{{{power}}}}}",
        rf"\frac{{1}}{{{base}^{{{power}}}+1}}",
    ]
    return Gold(gold, equal, wrong)


@kind
def powers_of_fractions(rng):
    p = Fraction(rng.randint(1, 9), rng.randint(10, 12))
    n = rng.randint(30, 250)
    base = rf"\left({frac(p)}\right)"
    equal = [f"{base}^{{{n}}}", rf"\frac{{{p.numerator}^{{{n}}}}}{{{p.denominator}^{{{n}}}}}"]
    equal += [rf"{base}^{{{n - 1}}}\cdot{frac(p)}"]
    wrong = [
        f"{base}^{{{n + 1}}}",
        f"{base}^{{{n - 1}}}",
        f"1-{base}^{{{n}}}",
        "0",
        f"-{base}^{{{n}}}",
    ]
    gold = f"{base}^{{{n}}}"
    if rng.random() < 0.5:
        gold, equal = f"1-{gold}", [f"1-{e}" for e in equal] + [f"-{gold}+1"]
        wrong = [f"1-{base}^{{{n + 1}}}", gold.removeprefix("1-"), "1", f"1+{base}^{{{n}}}"]
        wrong = [w for w in wrong if not w.startswith("1-1-")]
        wrong[1] = f"{base}^{{{n}}}"
    return Gold(gold, equal, wrong)


@kind
def fractions(rng):
    v = true_fraction(rng)
    k = rng.randint(2, 9)
    up, down = v.numerator, v.denominator
    equal = [
        frac(v),
        frac(v, "dfrac"),
        frac(v, "tfrac"),
        f"{up}/{down}",
        rf"\frac{{{up}}}{{{down}}}",
    ]
    equal += [
        f"({up})/({down})",
        rf"\frac{{{up * k}}}{{{down * k}}}",
        rf"\frac{{{-up}}}{{{-down}}}",
    ]
    equal += [
        f"x={frac(v)}",
        rf"\left({frac(v)}\right)",
        rf"\frac {{{up}}} {{{down}}}",
        f"{up} / {down}",
    ]
    equal += [rf"{frac(v)}\text{{ m}}", repr(float(v)), rf"{frac(v)}\approx{float(v):.3f}"]
    if abs(v) > 1:
        whole, rest = divmod(abs(up), down)
        sign = "-" if v < 0 else ""
        equal += [rf"{sign}{whole}\frac{{{rest}}}{{{down}}}", f"{sign}{whole} {rest}/{down}"]
    if abs(v) < 1:
        equal += [str(float(v)).replace("0.", ".", 1)] if len(str(float(v))) < 8 else []
    wrong = [
        frac(-v),
        frac(v + 1),
        frac(1 / v) if abs(up) != down else "2",
        frac(Fraction(up + 1, down)),
    ]
    wrong += [
        rf"\frac{{{up}}}{{{down + 1}}}",
        f"{up}",
        f"{float(v):.3f}7",
        f"x={frac(v + 2)}",
        f"{up}{down}",
    ]
    wrong += [
        rf"{frac(v)}x",
        rf"{frac(v)}\text{{ or }}{frac(v + 1)}",
        rf"{frac(v + 1)}\approx{float(v + 1):.3f}",
        f"{frac(v)}'",
    ]
    return Gold(frac(v), equal, wrong)


@kind
def decimals(rng):
    places = rng.randint(1, 4)
    n = nonzero(rng, -99999, 99999)
    n += n % 10 == 0
    v = Fraction(n, 10**places)
    text = f"{'-' if n < 0 else ''}{abs(n) // 10**places}.{abs(n) % 10**places:0{places}d}"
    equal = [
        text,
        f"{text}0",
        f"{text}00",
        frac(v),
        rf"{text}\text{{ kg}}",
        f"y={text}",
        f"{n}/{10**places}",
    ]
    equal += [rf"{n}\times10^{{-{places}}}", f"{n}e-{places}"]
    wrong = [
        f"{text}1",
        f"{text}9",
        frac(v + 1),
        frac(-v),
        f"{n}",
        rf"{n}\times10^{{-{places + 1}}}",
        f"{text}x",
    ]
    wrong += [text[:-1] + str((int(text[-1]) + 1) % 10), f"{text},1"]
    return Gold(text, equal, wrong)


@kind
def repeating_decimals(rng):
    whole, once, length = rng.randint(0, 20), rng.choice(["", "", "1", "25"]), rng.randint(1, 3)
    block = "".join(rng.choice("1234567890") for _ in range(length))
    if len(set(block)) == 1 and block[0] in "09" or (length > 1 and len(set(block)) == 1):
        block = "3"
    v = Fraction(int(f"{whole}{once}"), 10 ** len(once)) + Fraction(
        int(block), (10 ** len(block) - 1) * 10 ** len(once)
    )
    spelled = [
        rf"{whole}.{once}\overline{{{block}}}",
        f"{whole}.{once}({block})",
        rf"{whole}.{once}\bar{{{block}}}",
    ]
    equal = [*spelled, frac(v)]
    long = f"{whole}.{once}{block * 9}"[:14]
    equal.append(long)
    if len(block) == 1:
        equal += [rf"{whole}.{once}{block * 3}\ldots", f"{whole}.{once}{block * 4}..."]
    other = str((int(block) + 1) % 10 ** len(block)).zfill(len(block))
    short = len(f"{whole}{once}{block}".lstrip("0")) < 6  # else it is the number rounded
    wrong = [f"{whole}.{once}{block}"] if short else []
    wrong += [rf"{whole}.{once}\overline{{{other}}}", frac(v + 1), frac(v + Fraction(1, 9000))]
    wrong += [rf"{whole + 1}.{once}\overline{{{block}}}", rf"-{whole}.{once}\overline{{{block}}}"]
    if v.denominator == 1:
        return repeating_decimals(rng)
    return Gold(rng.choice([*spelled, frac(v)]), equal, wrong)


@kind
def surds(rng):
    a, b, c = nonzero(rng, -12, 12), rng.choice([2, 3, 5, 6, 7, 10, 11, 13]), rng.randint(2, 9)
    sign = "-" if a < 0 else ""
    size, value = abs(a), a * math.sqrt(b) / c
    lead = "" if size == 1 else str(size)
    gold = rf"{sign}\frac{{{lead}\sqrt{{{b}}}}}{{{c}}}"
    equal = [
        gold,
        rf"{sign}\frac{{{size}}}{{{c}}}\sqrt{{{b}}}",
        rf"{sign}\sqrt{{\frac{{{a * a * b}}}{{{c * c}}}}}",
    ]
    equal += [
        rf"{sign}{size}*sqrt({b})/{c}",
        rf"{sign}{lead}√{b}/{c}",
        rf"{sign}\frac{{{size * b}}}{{{c}\sqrt{{{b}}}}}",
    ]
    equal += [
        rf"\frac{{{a}\cdot{b}^{{1/2}}}}{{{c}}}",
        repr(value),
        rf"{gold}\text{{ cm}}",
        f"x={gold}",
        f"{value:.8f}",
    ]
    equal += [rf"{gold}\approx{value:.2f}"] if abs(value) > 0.1 else []
    minus = "" if a < 0 else "-"
    wrong = [
        minus + gold.lstrip("-"),
        rf"{sign}\frac{{{lead}\sqrt{{{b + 1}}}}}{{{c}}}",
        rf"{sign}\frac{{{size + 1}\sqrt{{{b}}}}}{{{c}}}",
    ]
    wrong += [
        rf"{sign}\frac{{{lead}\sqrt{{{b}}}}}{{{c + 1}}}",
        f"{value:.2f}",
        f"{gold}'",
        rf"{sign}\frac{{{size}}}{{{c}}}",
        rf"{gold}x",
    ]
    wrong += [
        rf"{sign}\frac{{{lead}\sqrt[3]{{{b}}}}}{{{c}}}",
        f"{value + 0.00001:.8f}",
        rf"{gold}\text{{ or }}{c}",
    ]
    return Gold(gold, equal, wrong)


@kind
def sums_of_surds(rng):
    p, q, b = nonzero(rng, -9, 9), nonzero(rng, -9, 9), rng.choice([2, 3, 5, 7])
    root = rf"\sqrt{{{b}}}"
    gold = f"{p}{term(q, root)}"
    equal = [
        gold,
        f"{term(q, root, True)}{signed(p)}",
        f"{p}{term(q, f'√{b}')}",
        rf"\frac{{{2 * p}{term(2 * q, root)}}}{{2}}",
    ]
    if p * p != q * q * b:
        equal.append(rf"\frac{{{p * p - q * q * b}}}{{{p}{term(-q, root)}}}")
    wrong = [
        f"{p}{term(-q, root)}",
        f"{-p}{term(q, root)}",
        f"{p + 1}{term(q, root)}",
        f"{p}",
        term(q, root, True),
    ]
    wrong += [
        f"{p}{term(q, rf'sqrt({b + 1})')}",
        rf"{p}\pm{term(abs(q), root, True)}",
        f"{p + q}{root}",
    ]
    return Gold(gold, equal, wrong)


@kind
def nested_roots(rng):
    n, b = rng.choice([3, 4, 5]), rng.choice([2, 3, 5, 6, 7, 10])
    gold = rf"\sqrt[{n}]{{{b}}}"
    equal = [
        gold,
        f"{b}^{{1/{n}}}",
        rf"{b}^{{\frac{{1}}{{{n}}}}}",
        rf"\sqrt[{2 * n}]{{{b * b}}}",
        rf"\frac{{{b}}}{{{b}^{{{n - 1}/{n}}}}}",
    ]
    wrong = [
        rf"\sqrt{{{b}}}",
        rf"\sqrt[{n + 1}]{{{b}}}",
        rf"\sqrt[{n}]{{{b + 1}}}",
        f"-{gold}",
        f"{b}^{{{n}}}",
        str(b),
        f"{b}/{n}",
    ]
    return Gold(gold, equal, wrong)


@kind
def multiples_of_pi(rng):
    v = Fraction(nonzero(rng, -30, 30), rng.choice([1, 1, 2, 3, 4, 6]))
    up, down = v.numerator, v.denominator
    gold = (
        (term(up, r"\pi", True))
        if down == 1
        else ("-" if v < 0 else "") + rf"\frac{{{term(abs(up), chr(92) + 'pi', True)}}}{{{down}}}"
    )
    equal = [
        gold,
        rf"{frac(v)}\cdot\pi",
        rf"\pi\cdot{frac(abs(v))}" if v > 0 else gold,
        rf"\frac{{{2 * up}\pi}}{{{2 * down}}}",
    ]
    equal += [
        f"{up}π/{down}",
        f"{up}*pi/{down}",
        rf"{gold}\text{{ cm}}^2",
        rf"{gold}\mathrm{{~cm}}",
        f"A={gold}",
        repr(float(v) * math.pi),
    ]
    equal += [rf"{gold}\approx{float(v) * math.pi:.2f}", rf"{gold}\text{{ square units}}"]
    wrong = [
        rf"{frac(v + 1)}\cdot\pi",
        rf"{frac(-v)}\cdot\pi",
        frac(v),
        f"{float(v) * math.pi:.2f}",
        rf"{frac(v)}\pi^2",
        f"{gold}+1",
    ]
    wrong += [rf"{frac(v)}\cdot e", rf"{frac(v)}p", f"{gold}'", rf"{gold}\text{{ or }}1"]
    return Gold(gold, equal, wrong)


@kind
def logarithms(rng):
    b, x = rng.choice([2, 3, 5, 7, 10]), rng.choice([6, 11, 12, 13, 15, 17])
    value = math.log(x) / math.log(b)
    gold = rf"\log_{{{b}}} {x}"
    equal = [
        gold,
        rf"\log_{{{b}}}({x})",
        rf"\log_{{{b}}}{{{x}}}",
        rf"\frac{{\ln {x}}}{{\ln {b}}}",
        rf"\frac{{\log {x}}}{{\log {b}}}",
    ]
    equal += [
        rf"\frac{{1}}{{\log_{{{x}}} {b}}}",
        rf"\log_{{{b * b}}} {x * x}",
        f"{value:.8f}",
        rf"\frac{{\log({x})}}{{\log({b})}}",
    ]
    wrong = [
        rf"\log_{{{b}}} {x + 1}",
        rf"\log_{{{x}}} {b}",
        rf"\ln {x}",
        rf"-\log_{{{b}}} {x}",
        f"{value:.2f}",
        rf"\log_{{{b + 1}}} {x}",
        str(x),
    ]
    wrong += [rf"\frac{{\ln {b}}}{{\ln {x}}}", rf"\log_{{{b}}} {x}'", rf"2\log_{{{b}}} {x}"]
    return Gold(gold, equal, wrong)


@kind
def natural_logarithms(rng):
    a, b = rng.randint(2, 9), rng.randint(2, 12)
    gold = rf"{a}\ln {b}"
    equal = [
        gold,
        rf"{a}\ln({b})",
        rf"\ln {b**a}",
        rf"\ln({b}^{{{a}}})",
        rf"\ln {b}\cdot {a}",
        rf"{a}\log_e {b}",
        rf"{a}ln({b})",
    ]
    wrong = [
        rf"{a + 1}\ln {b}",
        rf"{a}\ln {b + 1}",
        rf"\ln {a * b}" if a * b != b**a else "7",
        rf"-{a}\ln {b}",
        rf"{a}{b}",
        rf"{a}+\ln {b}",
    ]
    return Gold(gold, equal, wrong)


@kind
def trigonometry(rng):
    name, angle = rng.choice(["sin", "cos", "tan"]), rng.choice([7, 10, 20, 25, 40, 50, 70, 80])
    radians = Fraction(angle, 180)
    in_pi = rf"\frac{{{radians.numerator}\pi}}{{{radians.denominator}}}"
    gold = rf"\{name} {angle}^\circ"
    other = {"sin": "cos", "cos": "sin", "tan": "cot"}[name]
    equal = [
        gold,
        rf"\{name}({angle}^\circ)",
        rf"\{name}\left({in_pi}\right)",
        rf"\{name}{in_pi}",
        rf"\{other} {90 - angle}^\circ",
        rf"\{name}({angle}°)",
    ]
    wrong = [
        rf"\{name} {angle}",
        rf"\{name} {angle + 1}^\circ",
        rf"\{other} {angle}^\circ",
        rf"-\{name} {angle}^\circ",
        f"{angle}^\\circ",
        rf"2\{name} {angle}^\circ",
    ]
    return Gold(gold, equal, wrong)


@kind
def factorials(rng):
    n = rng.randint(12, 2100)
    gold = rng.choice([rf"\frac{{1}}{{{n}!}}", f"{n}!"])
    if gold[0] == "\\":
        equal = [
            gold,
            f"1/{n}!",
            rf"\frac{{{n + 1}}}{{{n + 1}!}}",
            rf"\frac{{1}}{{{n}\cdot {n - 1}!}}",
        ]
        wrong = [
            rf"\frac{{1}}{{{n + 1}!}}",
            rf"\frac{{1}}{{{n - 1}!}}",
            rf"-\frac{{1}}{{{n}!}}",
            f"{n}!",
            "0",
            rf"\frac{{2}}{{{n}!}}",
        ]
    else:
        equal = [gold, f"({n})!", rf"{n}\cdot {n - 1}!", rf"\frac{{{n + 1}!}}{{{n + 1}}}"]
        wrong = [
            f"{n + 1}!",
            f"{n - 1}!",
            f"-{n}!",
            f"{n}",
            f"{n}!+1",
            rf"\frac{{1}}{{{n}!}}",
            f"2*{n}!",
        ]
    return Gold(gold, equal, wrong)


@kind
def binomials(rng):
    n = rng.randint(8, 40)
    k = rng.randint(2, n - 3)
    if 2 * k in (n, n + 1, n - 1):
        k = 2
    gold = rf"\binom{{{n}}}{{{k}}}"
    equal = [
        gold,
        str(math.comb(n, k)),
        rf"{{{n} \choose {k}}}",
        rf"\binom{{{n}}}{{{n - k}}}",
        rf"\frac{{{n}!}}{{{k}!{n - k}!}}",
        rf"\dbinom{{{n}}}{{{k}}}",
    ]
    wrong = [
        rf"\binom{{{n}}}{{{k + 1}}}",
        rf"\binom{{{n + 1}}}{{{k}}}",
        str(math.comb(n, k) + 1),
        rf"\frac{{{n}!}}{{{k}!}}",
        rf"\frac{{{n}}}{{{k}}}",
    ]
    return Gold(gold, equal, wrong)


@kind
def complex_numbers(rng):
    a, b = nonzero(rng, -15, 15), nonzero(rng, -15, 15)
    gold = f"{a}{term(b, 'i')}"
    equal = [
        gold,
        f"{term(b, 'i', True)}{signed(a)}",
        f"{a} {'+' if b > 0 else '-'} {abs(b)}i",
        f"z={gold}",
        rf"\frac{{{2 * a}{term(2 * b, 'i')}}}{{2}}",
    ]
    wrong = [
        f"{a}{term(-b, 'i')}",
        f"{-a}{term(b, 'i')}",
        f"{a}",
        f"{term(b, 'i', True)}",
        f"{a + 1}{term(b, 'i')}",
        f"{a}{signed(b)}",
    ]
    wrong += [f"{a}{term(b, 'j')}"] + ([f"{b}{term(a, 'i')}"] if a != b else [])
    return Gold(gold, equal, wrong)
