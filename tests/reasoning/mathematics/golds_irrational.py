"""Gold answers that are surds, logarithms, angles and complex numbers."""

import math
from fractions import Fraction

from tests.reasoning.mathematics.golds import Gold, frac, kind, nonzero, signed, term


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


@kind
def both_signs(rng):
    a, b = rng.randint(-9, 9), rng.choice([2, 3, 5, 7, 11])
    gold = rf"{a}\pm\sqrt{{{b}}}"
    plus, minus = rf"{a}+\sqrt{{{b}}}", rf"{a}-\sqrt{{{b}}}"
    equal = [
        gold,
        f"{plus},{minus}",
        f"{minus}, {plus}",
        rf"{plus}\text{{ and }}{minus}",
        rf"x={a}\pm\sqrt{{{b}}}",
        rf"\{{{minus},{plus}\}}",
        rf"{a}\mp\sqrt{{{b}}}",
        f"{a}±√{b}",
    ]
    wrong = [
        plus,
        minus,
        rf"{a}\pm\sqrt{{{b + 1}}}",
        rf"{a + 1}\pm\sqrt{{{b}}}",
        f"{plus},{plus}",
        f"{a}",
        rf"\pm{a}+\sqrt{{{b}}}" if a else "7",
    ]
    return Gold(gold, equal, wrong)
