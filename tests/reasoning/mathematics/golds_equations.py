"""Gold answers that are equations, functions and values with a name."""

from tests.reasoning.mathematics.golds import Gold, kind, nonzero, signed, term


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
        rf"\frac{{x}}{{{c}x{signed(b)}}}+\frac{{{a}}}{{{c}x{signed(b)}}}",
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
    gold, equal, wrong = rng.choice(
        [
            (
                rf"\sin {a}x",
                [rf"\sin({a}x)", rf"\cos(\frac{{\pi}}{{2}}-{a}x)"],
                [rf"{a}\sin x", rf"\cos {a}x", rf"\sin {a + 1}x", rf"-\sin {a}x"],
            ),
            (
                rf"e^{{{a}x}}",
                [rf"(e^x)^{{{a}}}", rf"\exp({a}x)", rf"e^{{{a - 1}x}}\cdot e^x"],
                [rf"e^{{{a + 1}x}}", rf"{a}e^x", rf"e^{{-{a}x}}", rf"e^{{{a}}}x"],
            ),
            (
                r"\frac{1}{\sqrt{x}}",
                [r"x^{-1/2}", r"\sqrt{1/x}", r"\frac{\sqrt{x}}{x}"],
                [r"\sqrt{x}", r"\frac{1}{x}", r"\frac{2}{\sqrt{x}}", r"x^{1/2}"],
            ),
            (
                rf"\ln(x^{{{n}}}+{a})",
                [rf"\ln({a}+x^{{{n}}})"],
                [
                    rf"\ln(x^{{{n}}})+{a}",
                    rf"\ln(x^{{{n + 1}}}+{a})",
                    rf"{n}\ln(x+{a})",
                    rf"\log_2(x^{{{n}}}+{a})",
                ],
            ),
            (
                r"\tan x",
                [r"\frac{\sin x}{\cos x}", r"\frac{1}{\cot x}"],
                [r"\cot x", r"\sin x", r"\tan 2x", r"-\tan x"],
            ),
            (
                rf"|x-{a}|",
                [rf"|{a}-x|", rf"\left|x-{a}\right|", rf"\sqrt{{(x-{a})^2}}"],
                [rf"x-{a}", rf"|x+{a}|", rf"|x|-{a}", rf"(x-{a})^2"],
            ),
            (
                r"\sin^2 x",
                [r"1-\cos^2 x", r"(\sin x)^2", r"\frac{1-\cos 2x}{2}"],
                [r"\sin x^2", r"\cos^2 x", r"2\sin x", r"1-\sin^2 x"],
            ),
            (
                rf"\frac{{n(n+{a})}}{{2}}",
                [rf"\frac{{n^2+{a}n}}{{2}}", rf"\frac12 n(n+{a})", rf"n(n+{a})/2"],
                [
                    rf"\frac{{n(n+{a + 1})}}{{2}}",
                    rf"n(n+{a})",
                    rf"\frac{{n(n-{a})}}{{2}}",
                    rf"\frac{{n+{a}}}{{2}}",
                ],
            ),
            ("abc", ["bca", "cab", r"a\cdot b\cdot c"], ["abd", "ab", "ab+c", "a^2bc"]),
            (r"A^T", [r"A^{T}"], ["A", "A'", "-A^T", "A^2"]),
            (
                rf"{n}^x",
                [rf"{n}\cdot {n}^{{x-1}}", rf"e^{{x\ln {n}}}"],
                [rf"x^{n}", rf"{n}x", rf"{n + 1}^x", rf"{n}^{{-x}}"],
            ),
        ]
    )
    return Gold(gold, [gold, *equal], [*wrong, f"{gold}+1", "0", "1"])


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
