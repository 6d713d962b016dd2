"""More kinds of golds for the fuzzer: sets, equations, matrices, units and words."""

import math
from fractions import Fraction

from grading_golds import Gold, frac, kind, nonzero, signed, term


def _distinct(rng, count, low=-20, high=30):
    return rng.sample(range(low, high), count)


@kind
def intervals(rng):
    a, b = sorted(_distinct(rng, 2))
    left, right = rng.choice("(["), rng.choice(")]")
    low, high = (r"<" if left == "(" else r"\le"), ("<" if right == ")" else r"\le")
    gold = f"{left}{a},{b}{right}"
    equal = [
        gold,
        f"{left}{a}, {b}{right}",
        rf"\left{left}{a},{b}\right{right}",
        rf"x\in{left}{a},{b}{right}",
        rf"{a}{low} x{high} {b}",
    ]
    equal += [
        f"{left}{a}; {b}{right}",
        rf"\{{x\mid {a}{low} x{high} {b}\}}",
        rf"\{{x: {a}{low} x{high} {b}\}}",
        rf"{left}{2 * a}/2,{b}.0{right}",
    ]
    other_left, other_right = "([".replace(left, ""), ")]".replace(right, "")
    wrong = [
        f"{other_left}{a},{b}{right}",
        f"{left}{a},{b}{other_right}",
        f"{left}{a},{b + 1}{right}",
        f"{left}{a - 1},{b}{right}",
    ]
    wrong += [
        rf"\{{{a},{b}\}}",
        f"{left}{b},{a}{right}",
        rf"x{high} {b}",
        f"{a}",
        rf"{gold}\cup({b + 1},{b + 2})",
        rf"{gold}\ldots",
    ]
    if (left, right) != ("(", ")"):
        wrong.append(f"{a},{b}")
    return Gold(gold, equal, wrong)


@kind
def unions(rng):
    a, b = sorted(_distinct(rng, 2))
    gold = rf"(-\infty,{a})\cup({b},\infty)"
    equal = [
        gold,
        rf"({b},\infty)\cup(-\infty,{a})",
        rf"x<{a}\text{{ or }}x>{b}",
        f"x<{a} or x>{b}",
        rf"(-\infty,{a})\text{{ or }}({b},\infty)",
    ]
    equal += [
        rf"x\in(-\infty,{a})\cup({b},+\infty)",
        rf"(-∞,{a})∪({b},∞)",
        rf"\mathbb{{R}}\setminus[{a},{b}]",
        rf"\{{x\mid x<{a}\text{{ or }}x>{b}\}}",
    ]
    wrong = [
        rf"(-\infty,{a}]\cup({b},\infty)",
        rf"(-\infty,{a})\cup[{b},\infty)",
        rf"(-\infty,{a})",
        rf"({b},\infty)",
        rf"(-\infty,{a + 1})\cup({b + 2},\infty)",
    ]
    wrong += [
        rf"({a},{b})",
        rf"(-\infty,{a})\cap({b},\infty)",
        rf"x<{a}\text{{ and }}x>{b}",
        r"\mathbb{R}",
        rf"{a}<x<{b}",
        rf"(-\infty,{a}),({b + 1},\infty)",
    ]
    return Gold(gold, equal, wrong)


@kind
def inequalities(rng):
    a, sign = rng.randint(-20, 30), rng.choice(["<", ">", r"\le", r"\ge"])
    flip = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}[sign]
    strict = {"<": r"\le", ">": r"\ge", r"\le": "<", r"\ge": ">"}[sign]
    gold = f"x{sign} {a}"
    bracket = {
        "<": rf"(-\infty,{a})",
        ">": rf"({a},\infty)",
        r"\le": rf"(-\infty,{a}]",
        r"\ge": rf"[{a},\infty)",
    }[sign]
    typed = {"<": f"x<{a}", ">": f"x>{a}", r"\le": f"x<={a}", r"\ge": f"x>={a}"}[sign]
    equal = [
        gold,
        f"{a}{flip} x",
        bracket,
        rf"x\in{bracket}",
        rf"\{{x\mid x{sign} {a}\}}",
        typed,
        rf"x{sign} \frac{{{2 * a}}}{{2}}",
    ]
    wrong = [
        f"x{strict} {a}",
        f"x{flip} {a}",
        f"x{sign} {a + 1}",
        f"x={a}",
        f"{a}",
        f"y{sign} {a}",
        rf"\{{{a}\}}",
        rf"{gold}\ldots",
        f"-x{sign} {a}" if a else "x=7",
    ]
    return Gold(gold, equal, wrong)


@kind
def sets_of_numbers(rng):
    values = _distinct(rng, rng.randint(2, 4))
    shuffled = rng.sample(values, len(values))
    gold = r"\{" + ",".join(map(str, values)) + r"\}"
    listed = ", ".join(map(str, shuffled))
    equal = [
        gold,
        rf"\{{{listed}\}}",
        f"{{{listed}}}",
        listed,
        rf"\left\{{{listed}\right\}}",
        rf"S=\{{{listed}\}}",
    ]
    changed = [values[0] + 50, *values[1:]]
    wrong = [
        rf"\{{{','.join(map(str, changed))}\}}",
        rf"\{{{','.join(map(str, values[1:]))}\}}",
        rf"\{{{listed},99\}}",
        f"({','.join(map(str, values))})",
    ]
    wrong += [
        f"{values[0]}",
        rf"\{{{','.join(str(-v) for v in values)}\}}"
        if sorted(values) != sorted(-v for v in values)
        else "77",
    ]
    wrong += [rf"{gold}\ldots", rf"\{{{listed},\ldots\}}"]
    return Gold(gold, equal, wrong)


@kind
def lists_of_numbers(rng):
    values = _distinct(rng, rng.randint(2, 4))
    shuffled = rng.sample(values, len(values))
    gold = ", ".join(map(str, values))
    most, last = ", ".join(map(str, shuffled[:-1])), shuffled[-1]
    equal = [
        gold,
        f"{most}, {last}",
        rf"{most}\text{{ and }}{last}",
        f"{most} or {last}",
        ", ".join(f"x={v}" for v in shuffled),
        rf"x={most}\text{{ or }}{last}",
    ]
    equal += [";".join(map(str, shuffled)), rf"\{{{most},{last}\}}"]
    wrong = [
        f"{values[0]}",
        ", ".join(map(str, values[1:])),
        f"{gold}, 99",
        ", ".join(map(str, [values[0] + 50, *values[1:]])),
        f"{gold}'",
    ]
    wrong += [rf"{gold},\ldots"] + (
        [", ".join(map(str, [values[0], *values]))] if len(values) > 1 else []
    )
    return Gold(gold, equal, wrong)


@kind
def tuples(rng):
    values = _distinct(rng, rng.randint(2, 4))
    gold = "(" + ",".join(map(str, values)) + ")"
    spaced = ", ".join(map(str, values))
    equal = [
        gold,
        f"({spaced})",
        rf"\left({spaced}\right)",
        "(" + ",".join(f"{2 * v}/2" for v in values) + ")",
        "(" + ",".join(f"{v}.0" for v in values) + ")",
    ]
    if len(values) < 4:
        equal.append(f"({','.join('xyz'[: len(values)])})={gold}")
    wrong = [
        f"({','.join(map(str, values[::-1]))})",
        f"({','.join(map(str, [*values[:-1], values[-1] + 1]))})",
        rf"\{{{spaced}\}}",
        f"({spaced},0)",
        f"{values[0]}",
    ]
    wrong += [
        f"[{spaced}]",
        rf"{gold}\text{{ or }}({','.join(map(str, values[::-1]))})",
        f"({','.join(map(str, values[:-1]))})",
        f"({','.join(str(-v) for v in values)})" if any(values) else "(7,7)",
    ]
    return Gold(gold, equal, wrong)


@kind
def matrices(rng):
    rows, columns = rng.choice([(2, 2), (2, 2), (3, 1), (2, 3)])
    entries = [[rng.randint(-9, 20) for _ in range(columns)] for _ in range(rows)]

    def matrix(values, env="pmatrix", end=r"\\", sep="&"):
        return rf"\begin{{{env}}}{end.join(sep.join(map(str, row)) for row in values)}\end{{{env}}}"

    gold = matrix(entries)
    lcr = "c" * columns
    equal = [
        gold,
        matrix(entries, "bmatrix"),
        matrix(entries, sep=" & "),
        matrix(entries, end=r"\\[2pt]"),
        matrix(entries, "smallmatrix"),
        f"A={gold}",
    ]
    equal += [
        rf"\left(\begin{{array}}{{{lcr}}}"
        + r"\\".join("&".join(map(str, r)) for r in entries)
        + r"\end{array}\right)",
        matrix(entries, end=r"\cr "),
    ]
    equal += [matrix([[f"\\frac{{{2 * v}}}{{2}}" for v in row] for row in entries])]
    changed = [list(row) for row in entries]
    changed[0][0] += 1
    transposed = [list(column) for column in zip(*entries)]
    wrong = [
        matrix(changed),
        matrix(entries[:-1]),
        f"2{gold}",
        f"{entries[0][0]}",
        f"{gold}^T" if transposed != entries else "7",
        matrix(entries, "vmatrix"),
    ]
    if transposed != entries:
        wrong.append(matrix(transposed))
    return Gold(gold, equal, wrong)


@kind
def lines(rng):
    m, b = nonzero(rng, -9, 9), nonzero(rng, -9, 9)
    gold = f"y={term(m, 'x', True)}{signed(b)}"
    equal = [
        gold,
        f"y={b}{term(m, 'x')}",
        f"{term(m, 'x', True)}{signed(b)}",
        f"{term(m, 'x', True)}-y{signed(b)}=0",
        f"2y={term(2 * m, 'x', True)}{signed(2 * b)}",
    ]
    equal += [
        f"y{term(-m, 'x')}={b}",
        f"{term(m, 'x', True)}{signed(b)}=y",
        rf"y={term(m, 'x', True)}{signed(b)}\text{{ for all }} x",
    ]
    wrong = [
        f"y={term(m, 'x', True)}{signed(b + 1)}",
        f"y={term(-m, 'x', True)}{signed(b)}",
        f"y={term(m, 'x', True)}{signed(-b)}",
        "0=0",
        "y=y",
        "x=x",
        f"y={term(m, 'x', True)}",
    ]
    wrong += [
        f"x={term(m, 'y', True)}{signed(b)}" if m * m != 1 else "1=1",
        rf"{gold},\ldots",
        f"y={b}",
        f"y'={term(m, 'x', True)}{signed(b)}",
        f"{m}",
        f"y={term(m, 'x^2', True)}{signed(b)}",
    ]
    return Gold(gold, equal, wrong)


@kind
def equations_of_curves(rng):
    p, q, c = rng.randint(1, 9), rng.randint(1, 9), nonzero(rng, -30, 30)
    k = nonzero(rng, -4, 4)
    gold = f"{term(p, 'x^2', True)}{term(q, 'y^2')}={c}"
    equal = [
        gold,
        f"{term(q, 'y^2', True)}{term(p, 'x^2')}={c}",
        f"{term(p, 'x^2', True)}{term(q, 'y^2')}{signed(-c)}=0",
        f"{c}={gold.split('=')[0]}",
    ]
    equal += [f"{term(k * p, 'x^2', True)}{term(k * q, 'y^2')}={k * c}"]
    wrong = [
        f"{term(p, 'x^2', True)}{term(-q, 'y^2')}={c}",
        f"{gold.split('=')[0]}={c + 1}",
        f"{gold.split('=')[0]}={-c}",
        "0=1",
        "0=0",
        f"{term(p, 'x^2', True)}{term(q, 'y')}={c}",
    ]
    wrong += [
        f"{term(p + 1, 'x^2', True)}{term(q, 'y^2')}={c}",
        f"{c}",
        gold.split("=")[0],
        "x=x",
        f"{term(p, 'x', True)}{term(q, 'y')}={c}",
    ]
    return Gold(gold, equal, wrong)


@kind
def quadratic_equations(rng):
    b, c, k = rng.randint(-9, 9), nonzero(rng, -40, 40), rng.choice([-3, -1, 2, 3])
    gold = f"x^2{term(b, 'x')}{signed(c)}=0"
    equal = [
        gold,
        f"{term(k, 'x^2', True)}{term(k * b, 'x')}{signed(k * c)}=0",
        f"x^2{term(b, 'x')}={-c}",
        f"0=x^2{term(b, 'x')}{signed(c)}",
    ]
    wrong = [
        f"x^2{term(b, 'x')}{signed(c + 1)}=0",
        f"x^2{term(b + 1, 'x')}{signed(c)}=0",
        f"x^2{term(b, 'x')}{signed(-c)}=0",
        f"x^2{term(b, 'x')}{signed(c)}",
        "0=1",
        "x=x",
    ]
    wrong += [
        f"x^3{term(b, 'x')}{signed(c)}=0",
        f"x^2{term(b, 'x')}{signed(c)}=1",
        f"x={c}",
        f"x^2{term(b, 'x')}=0",
    ] + ([f"x^2{term(-b, 'x')}{signed(c)}=0"] if b else [])
    return Gold(gold, equal, wrong)


@kind
def equations_without_variables(rng):
    a, b = rng.randint(2, 60), rng.randint(2, 60)
    gold, value = rng.choice(
        [
            (f"{a}+{b}={a + b}", a + b),
            (rf"{a}\cdot{b}={a * b}", a * b),
            (f"{a}^2={a * a}", a * a),
            (rf"\log_{{{a}}}({a**3})=3", 3),
        ]
    )
    left = gold.split("=")[0]
    equal = [gold, f"{value}={left}", f"{value}", f"{left} = {value}"]
    wrong = [
        "0=1",
        "1=1",
        "x=x",
        f"{left}={value + 1}",
        f"{value + 1}",
        r"\pi=3",
        f"{value - 1}={value - 1}",
        f"{left}={-value}",
        f"{value}x={value}",
    ]
    if value == 1:
        wrong.remove("1=1")
    return Gold(gold, equal, wrong)


@kind
def systems(rng):
    x, y = _distinct(rng, 2)
    gold = f"x={x},y={y}"
    equal = [
        gold,
        f"x={x}, y={y}",
        f"y={y},x={x}",
        rf"\begin{{cases}}x={x}\\y={y}\end{{cases}}",
        rf"x={x}\text{{ and }}y={y}",
        f"x={x};y={y}",
    ]
    wrong = [
        f"x={y},y={x}",
        f"x={x}",
        f"x={x},y={y + 1}",
        f"x={x},z={y}",
        f"x={-x},y={y}" if x else "x=7,y=8",
        f"x={x},y={y},z=0",
    ]
    return Gold(gold, equal, wrong)


@kind
def polynomials(rng):
    a, b, c = nonzero(rng, -5, 5), nonzero(rng, -9, 9), nonzero(rng, -9, 9)
    gold = f"{term(a, 'x^2', True)}{term(b, 'x')}{signed(c)}"
    equal = [
        gold,
        f"{c}{term(b, 'x')}{term(a, 'x^2')}",
        f"x({term(a, 'x', True)}{signed(b)}){signed(c)}",
        f"{term(a, 'x^{2}', True)}{term(b, 'x')}{signed(c)}",
        f"f(x)={gold}",
    ]
    equal += [
        f"{term(a, 'x**2', True)}{f'{b:+}*x'}{signed(c)}",
        rf"\frac{{{term(2 * a, 'x^2', True)}{term(2 * b, 'x')}{signed(2 * c)}}}{{2}}",
        f"y={gold}",
    ]
    wrong = [
        f"{term(a, 'x^2', True)}{term(-b, 'x')}{signed(c)}",
        f"{term(a, 'x^2', True)}{term(b, 'x')}{signed(c + 1)}",
        f"{term(a, 'x^3', True)}{term(b, 'x')}{signed(c)}",
        f"{gold}=0",
    ]
    wrong += [
        f"{term(a, 'x^2', True)}{signed(c)}",
        f"{term(a, 'y^2', True)}{term(b, 'y')}{signed(c)}",
        f"-({gold})",
        f"{gold}'",
        rf"{gold}\ldots",
        rf"{gold}+C",
    ]
    return Gold(gold, equal, wrong)


@kind
def factored(rng):
    a, b = sorted((nonzero(rng, -9, 9), nonzero(rng, -9, 9)))
    gold = f"(x{signed(a)})(x{signed(b)})"
    expanded = f"x^2{term(a + b, 'x')}{signed(a * b)}"
    equal = [
        gold,
        f"(x{signed(b)})(x{signed(a)})",
        expanded,
        rf"(x{signed(a)})\cdot(x{signed(b)})",
        rf"\left(x{signed(a)}\right)\left(x{signed(b)}\right)",
        f"({-a}-x)({-b}-x)",
    ]
    wrong = [
        f"(x{signed(a + 1)})(x{signed(b)})",
        f"(x{signed(a)})(x{signed(b)})^2",
        f"x^2{term(a + b, 'x')}{signed(-a * b)}",
        f"(x{signed(a)})+(x{signed(b)})",
        f"-{gold}",
        f"x{signed(a)}",
    ]
    return Gold(gold, equal, wrong)


@kind
def rational_functions(rng):
    a, b, c = nonzero(rng, -9, 9), nonzero(rng, -9, 9), rng.randint(2, 9)
    gold = rf"\frac{{x{signed(a)}}}{{{c}x{signed(b)}}}"
    equal = [
        gold,
        f"(x{signed(a)})/({c}x{signed(b)})",
        rf"(x{signed(a)})({c}x{signed(b)})^{{-1}}",
        rf"\frac{{2x{signed(2 * a)}}}{{{2 * c}x{signed(2 * b)}}}",
        rf"\frac{{x}}{{{c}x{signed(b)}}}{'+' if a > 0 else '-'}\frac{{{abs(a)}}}{{{c}x{signed(b)}}}",
    ]
    wrong = [
        rf"\frac{{x{signed(a + 1)}}}{{{c}x{signed(b)}}}",
        rf"\frac{{x{signed(a)}}}{{{c + 1}x{signed(b)}}}",
        rf"\frac{{{c}x{signed(b)}}}{{x{signed(a)}}}",
        f"-{gold}",
        rf"x{signed(a)}",
    ]
    if c * a == b:
        return rational_functions(rng)
    return Gold(gold, equal, wrong)


@kind
def derivatives(rng):
    a, b = nonzero(rng, -9, 9), nonzero(rng, -9, 9)
    body = f"{term(a, 'x', True)}{signed(b)}"
    name, others = rng.choice(
        [
            (r"\frac{dy}{dx}", ["y", r"\frac{dx}{dy}"]),
            ("f'(x)", ["f(x)", "f''(x)"]),
            ("y'", ["y", "y''"]),
        ]
    )
    gold = f"{name}={body}"
    equal = [gold, f"{name}={b}{term(a, 'x')}", body, f"{body}={name}"]
    wrong = [f"{other}={body}" for other in others] + [
        f"{name}={term(a, 'x', True)}{signed(b + 1)}",
        f"{name}={term(-a, 'x', True)}{signed(b)}",
        "0=1",
        f"{a}",
        f"{name}=0",
    ]
    return Gold(gold, equal, wrong)


@kind
def functions_of_x(rng):
    a, n = rng.randint(2, 9), rng.randint(2, 5)
    gold, equal, wrong = rng.choice([
        (rf"\sin {a}x", [rf"\sin({a}x)", rf"\cos(\frac{{\pi}}{{2}}-{a}x)"], [rf"{a}\sin x", rf"\cos {a}x", rf"\sin {a + 1}x", rf"-\sin {a}x"]),
        (rf"e^{{{a}x}}", [rf"(e^x)^{{{a}}}", rf"\exp({a}x)", rf"e^{{{a - 1}x}}\cdot e^x"], [rf"e^{{{a + 1}x}}", rf"{a}e^x", rf"e^{{-{a}x}}", rf"e^{{{a}}}x"]),
        (r"\frac{1}{\sqrt{x}}", [r"x^{-1/2}", r"\sqrt{1/x}", r"\frac{\sqrt{x}}{x}"], [r"\sqrt{x}", r"\frac{1}{x}", r"\frac{2}{\sqrt{x}}", r"x^{1/2}"]),
        (rf"\ln(x^{{{n}}}+{a})", [rf"\ln({a}+x^{{{n}}})"], [rf"\ln(x^{{{n}}})+{a}", rf"\ln(x^{{{n + 1}}}+{a})", rf"{n}\ln(x+{a})", rf"\log_2(x^{{{n}}}+{a})"]),
        (r"\tan x", [r"\frac{\sin x}{\cos x}", r"\frac{1}{\cot x}"], [r"\cot x", r"\sin x", r"\tan 2x", r"-\tan x"]),
        (rf"|x-{a}|", [rf"|{a}-x|", rf"\left|x-{a}\right|", rf"\sqrt{{(x-{a})^2}}"], [rf"x-{a}", rf"|x+{a}|", rf"|x|-{a}", rf"(x-{a})^2"]),
        (r"\sin^2 x", [r"1-\cos^2 x", r"(\sin x)^2", r"\frac{1-\cos 2x}{2}"], [r"\sin x^2", r"\cos^2 x", r"2\sin x", r"1-\sin^2 x"]),
        (rf"\frac{{n(n+{a})}}{{2}}", [rf"\frac{{n^2+{a}n}}{{2}}", rf"\frac12 n(n+{a})", rf"n(n+{a})/2"], [rf"\frac{{n(n+{a + 1})}}{{2}}", rf"n(n+{a})", rf"\frac{{n(n-{a})}}{{2}}", rf"\frac{{n+{a}}}{{2}}"]),
        ("abc", ["bca", "cab", r"a\cdot b\cdot c"], ["abd", "ab", "ab+c", "a^2bc"]),
        (r"A^T", [r"A^{T}"], ["A", "A'", "-A^T", "A^2"]),
        (rf"{n}^x", [rf"{n}\cdot {n}^{{x-1}}", rf"e^{{x\ln {n}}}"], [rf"x^{n}", rf"{n}x", rf"{n + 1}^x", rf"{n}^{{-x}}"]),
    ])  # fmt: skip
    return Gold(gold, [gold, *equal], [*wrong, f"{gold}+1", "0", "1"])


_UNITS = [
    (["cm", r"\text{ cm}", r"\mathrm{~cm}", " centimeters", r"\,\text{cm}"], ["m", "cm^2", "kg", "inches"]),
    (["km/h", r"\text{ km/h}", r"\mathrm{~km/h}", " kilometers per hour"], ["mph", "km", "m/s"]),
    ([r"\text{ cm}^2", " square centimeters", r"\mathrm{~cm}^2", r"\text{ cm}^{2}", " cm^2"], ["cm", "m^2", "cm^3"]),
    ([" hours", " hrs", " h", r"\text{ hours}"], ["minutes", "days", "seconds"]),
    ([" minutes", " mins", r"\text{ min}"], ["hours", "seconds"]),
    ([r"^\circ", " degrees", "°", r"^{\circ}"], ["radians", "cm"]),
    ([r"^\circ\text{C}", " degrees Celsius", r"^\circ C"], [r"degrees Fahrenheit", "kelvin"]),
    ([" kg", r"\text{ kg}", " kilograms", r"\mathrm{kg}"], ["g", "pounds", "km"]),
    ([" apples", r"\text{ apples}", " apple"], ["oranges", "pears"]),
    ([r"\text{ m}^3", " cubic meters", r"\mathrm{~m}^3"], ["m^2", "m"]),
]  # fmt: skip


@kind
def units(rng):
    n, (same, others) = rng.randint(2, 900), rng.choice(_UNITS)
    gold = f"{n}{rng.choice(same)}"
    equal = [f"{n}{unit}" for unit in same] + [f"{n}", f"x={n}{same[-1]}", f"{n}.0{same[0]}"]
    wrong = (
        [f"{n} {other}" for other in others]
        + [f"{n + 1}{unit}" for unit in same[:2]]
        + [f"{n + 1}", f"-{n}", f"{n * 10}{same[0]}"]
    )
    return Gold(gold, equal, wrong)


@kind
def money(rng):
    n, cents = rng.randint(1, 90000), rng.choice(["", ".50", ".25"])
    gold = rng.choice([f"{n}{cents}", f"${n}{cents}", rf"\${n:,}{cents}", f"{n}{cents} dollars"])
    equal = [
        f"${n}{cents}",
        rf"\${n}{cents}",
        f"${n:,}{cents}",
        f"{n}{cents} dollars",
        f"USD {n}{cents}",
        f"{n}{cents} USD",
        f"{n}{cents}",
        f"${n}{cents or '.00'}",
    ]
    wrong = [
        f"${n + 1}{cents}",
        f"{n}{cents or '.00'}1",
        f"-${n}{cents}",
        f"${n * 100}",
        f"${n} thousand",
        f"{n + 1}{cents} dollars",
        f"{n}{cents} or {n + 1}",
        f"${n}{cents} million",
    ]
    if gold != f"{n}{cents}":
        wrong += [f"€{n}{cents}", f"{n}{cents} euros", f"{n}{cents} cents", f"₹{n}{cents}"]
    return Gold(gold, equal, wrong, plain=True, number=True)


@kind
def foreign_money(rng):
    n = rng.randint(2, 5000)
    spellings, others = rng.choice([
        ([f"€{n}", f"{n} euros", f"EUR {n}", f"{n} €", f"{n}€"], [f"${n}", f"£{n}"]),
        ([f"₹{n}", f"Rs {n}", f"Rs. {n}", f"{n} rupees"], [f"${n}", f"€{n}"]),
        ([f"£{n}", f"GBP {n}"], [f"${n}", f"{n} euros"]),
        ([f"{n}元", f"{n} 元", f"{n} yuan"], [f"{n}円", f"${n}"]),
    ])  # fmt: skip
    return Gold(
        rng.choice(spellings),
        [*spellings, f"{n}"],
        [*others, f"{n + 1}", spellings[0].replace(str(n), str(n + 1))],
        plain=True,
        number=True,
    )


@kind
def percentages(rng):
    n = rng.choice([rng.randint(1, 99), rng.randint(101, 400)])
    v = Fraction(n, 100)
    equal = [f"{n}%", rf"{n}\%", f"{n} percent", f"{n}.0%", f"{n} pct", rf"{n}\text{{ percent}}"]
    wrong = [
        f"{n + 1}%",
        f"-{n}%",
        f"{n * 10}%",
        f"{n}.5%",
        frac(v + 1),
        f"{n + 1} percent",
        f"{n}%%",
    ]
    gold = rng.choice([f"{n}%", rf"{n}\%", frac(v), f"{n}"])
    equal += (
        [frac(v), f"{float(v)}"]
        if gold != f"{n}" and v.denominator > 1
        else [f"{n}"]
        if gold == f"{n}"
        else []
    )
    return Gold(gold, equal, wrong)


_WORDS = "ellipse hyperbola Monday Tuesday east west even odd Alice Bob red blue yes no true false increasing circle triangle Paris convergent divergent".split()  # fmt: skip


@kind
def words(rng):
    word, *others = rng.sample(_WORDS, 4)
    gold = rng.choice([word, rf"\text{{{word}}}"])
    equal = [
        word,
        word.lower(),
        word.upper(),
        word.capitalize(),
        rf"\text{{{word}}}",
        rf"\textbf{{{word}}}",
    ]
    wrong = [
        *others,
        f"not {word}",
        f"{word} or {others[0]}",
        word[::-1],
        f"{word} and {others[1]}",
        f"maybe {word}",
        word + "x",
        "18",
    ]
    wrong = [w for w in wrong if w.lower() != word.lower()]
    return Gold(gold, equal, wrong, plain=True, words=True)


@kind
def choices(rng):
    letter, other = rng.sample("ABCDE", 2)
    gold = rng.choice([letter, rf"\text{{({letter})}}", rf"\textbf{{({letter})}}", f"({letter})"])
    equal = [
        letter,
        f"({letter})",
        rf"\text{{{letter}}}",
        rf"\text{{({letter})}}",
        rf"\textbf{{({letter})}}",
        f"[{letter}]",
        rf"\mathrm{{{letter}}}",
    ]
    wrong = [
        other,
        f"({other})",
        f"{letter} or {other}",
        f"{letter}{other}",
        f"{letter}, {other}",
        rf"\text{{{letter} or {other}}}",
        f"{letter}'",
        f"not {letter}",
        rf"{letter}\ldots",
        "1",
    ]
    return Gold(gold, equal, wrong, plain=True, words=True)


@kind
def phrases(rng):
    gold, equal, wrong = rng.choice([
        ("no solution", ["No solution", "no solutions", r"\text{No solution}", "No solutions exist"], ["one solution", "solution", "0", "infinitely many solutions", "all real numbers"]),
        ("all real numbers", ["All real numbers", r"(-\infty,\infty)", r"\mathbb{R}", r"x\in\mathbb{R}"], [r"(0,\infty)", "no solution", "all integers", "x", r"[0,\infty)"]),
        ("undefined", ["Undefined", r"\text{undefined}"], ["defined", "0", r"\infty", "1"]),
        ("Alice, Bob", ["Bob, Alice", "Alice and Bob", "Bob and Alice", r"\text{Alice and Bob}"], ["Alice", "Bob", "Alice, Carol", "Alice or Bob", "Alice, Bob, Carol"]),
        ("x-axis", ["the x-axis", "X-axis", r"\text{x-axis}"], ["y-axis", "axis", "x"]),
        ("right triangle", ["a right triangle", "Right Triangle"], ["triangle", "left triangle", "not a right triangle"]),
    ])  # fmt: skip
    return Gold(gold, [gold, *equal], wrong, plain=True, words=True)


@kind
def scales(rng):
    n, (word, factor) = (
        rng.randint(2, 99),
        rng.choice(
            [
                ("million", 10**6),
                ("thousand", 1000),
                ("billion", 10**9),
                ("lakh", 10**5),
                ("hundred", 100),
            ]
        ),
    )
    tenth = rng.randint(1, 9)
    value = (10 * n + tenth) * factor // 10
    equal = [
        f"{n}.{tenth} {word}",
        f"{value}",
        f"{value:,}",
        rf"{n}.{tenth}\text{{ {word}}}",
        f"${n}.{tenth} {word}",
        f"{n}.{tenth} {word} people",
    ]
    wrong = [
        f"{n}.{tenth}",
        f"{n}.{tenth} trillion",
        f"{n + 1}.{tenth} {word}",
        f"{value + 1}",
        f"-{value}",
        f"{n} {word}",
    ]
    return Gold(f"{value}", equal, wrong, plain=True, number=True)


@kind
def ordinals(rng):
    n = rng.randint(4, 20)
    equal = [f"{n}th", f"{n}", rf"{n}^{{\text{{th}}}}", f"{n}th place", rf"{n}\text{{th}}"]
    return Gold(
        f"{n}",
        equal,
        [f"{n + 1}th", f"{n}ths", rf"{n + 1}^{{\text{{th}}}}", f"-{n}", f"{n}^2"],
        plain=True,
    )


@kind
def ratios(rng):
    a, b, k = rng.randint(1, 9), rng.randint(1, 9), rng.randint(2, 7)
    if math.gcd(a, b) > 1 or a == b:
        return ratios(rng)
    equal = [
        f"{a}:{b}",
        rf"{a}\text{{ to }}{b}",
        f"{a * k}:{b * k}" if b * k < 10 or b * k > 59 else f"{a}:{b}",
        f"{a}/{b}",
        f"{a} : {b}",
    ]
    wrong = [
        f"{b}:{a}",
        f"{a}:{b + 1}",
        f"{a + b}",
        f"{a}",
        f"{a}:{b}:1",
        f"{a}{b}",
        rf"{b}\text{{ to }}{a}",
    ]
    return Gold(f"{a}:{b}", equal, wrong)


@kind
def times_of_day(rng):
    hour, minute = rng.randint(1, 12), rng.randint(10, 58)
    gold = f"{hour}:{minute}"
    return Gold(
        gold,
        [gold, f"{hour:02d}:{minute}"],
        [
            f"{hour}:{minute + 1}",
            f"{hour % 12 + 1}:{minute}",
            f"{minute}",
            f"{hour}",
            f"{hour}.{minute}",
            f"{hour}{minute}",
        ],
    )


@kind
def numerals(rng):
    base = rng.choice([5, 6, 7, 8, 9])
    digits = str(rng.randint(1, base - 1)) + "".join(
        str(rng.randint(0, base - 1)) for _ in range(3)
    )
    other = str(int(digits) + 1)
    equal = [f"{digits}_{base}", f"{digits}_{{{base}}}", digits, rf"{digits}_{{\text{{{base}}}}}"]
    return Gold(
        f"{digits}_{base}",
        equal,
        [
            f"{digits}_{base + 1}",
            f"{other}_{base}",
            other,
            f"-{digits}_{base}",
            f"{digits[::-1]}1_{base}",
        ],
    )


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


@kind
def labels(rng):
    n = rng.randint(10, 500)
    left = rng.choice(
        [
            r"\angle ABC",
            "AB",
            "|AB|",
            r"\overline{AB}",
            "a+b",
            "x+y+z",
            "P(A)",
            r"x_{\max}",
            "S_{10}",
            "a_n",
            r"|\vec{v}|",
            "f(3)",
            r"\sum_{k=1}^{n}a_k",
            r"\int_0^1 f(x)\,dx",
        ]
    )
    return Gold(
        f"{n}",
        [f"{left}={n}", f"{n}={left}", f"{left} = {n}"],
        [
            f"{left}={n + 1}",
            left,
            f"{left}={n}={n + 1}",
            f"{left}>{n}",
            f"{left}={n},{n + 1}",
            rf"{left}\ne {n}",
        ],
    )


@kind
def parametric_names(rng):
    n, (name, other) = (
        rng.randint(2, 400),
        rng.choice([("x", "y"), ("k", "n"), ("a", "b"), (r"\theta", r"\alpha"), ("x_1", "x_2")]),
    )
    gold = f"{name}={n}"
    return Gold(
        gold,
        [gold, f"{n}={name}", f"{n}", f"{name} = {n}.0", f"{name}=\\frac{{{2 * n}}}{{2}}"],
        [
            f"{other}={n}",
            f"{name}={n + 1}",
            f"{name}=-{n}",
            f"{name}",
            f"{name}>{n}",
            f"{name}={n},{n + 1}",
            f"{name}'={n}",
        ],
    )
