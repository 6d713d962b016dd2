"""Gold answers with units, money and percentages, and gold answers in words."""

from fractions import Fraction

from tests.reasoning.mathematics.golds import Gold, frac, kind

_UNITS = [
    (
        ["cm", r"\text{ cm}", r"\mathrm{~cm}", " centimeters", r"\,\text{cm}"],
        ["m", "cm^2", "kg", "inches"],
    ),
    (["km/h", r"\text{ km/h}", r"\mathrm{~km/h}", " kilometers per hour"], ["mph", "km", "m/s"]),
    (
        [r"\text{ cm}^2", " square centimeters", r"\mathrm{~cm}^2", r"\text{ cm}^{2}", " cm^2"],
        ["cm", "m^2", "cm^3"],
    ),
    ([" hours", " hrs", " h", r"\text{ hours}"], ["minutes", "days", "seconds"]),
    ([" minutes", " mins", r"\text{ min}"], ["hours", "seconds"]),
    ([r"^\circ", " degrees", "°", r"^{\circ}"], ["radians", "cm"]),
    ([r"^\circ\text{C}", " degrees Celsius", r"^\circ C"], [r"degrees Fahrenheit", "kelvin"]),
    ([" kg", r"\text{ kg}", " kilograms", r"\mathrm{kg}"], ["g", "pounds", "km"]),
    ([" apples", r"\text{ apples}", " apple"], ["oranges", "pears"]),
    ([r"\text{ m}^3", " cubic meters", r"\mathrm{~m}^3"], ["m^2", "m"]),
]


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
    spellings, others = rng.choice(
        [
            ([f"€{n}", f"{n} euros", f"EUR {n}", f"{n} €", f"{n}€"], [f"${n}", f"£{n}"]),
            ([f"₹{n}", f"Rs {n}", f"Rs. {n}", f"{n} rupees"], [f"${n}", f"€{n}"]),
            ([f"£{n}", f"GBP {n}"], [f"${n}", f"{n} euros"]),
            ([f"{n}元", f"{n} 元", f"{n} yuan"], [f"{n}円", f"${n}"]),
        ]
    )
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


_WORDS = (
    "ellipse hyperbola Monday Tuesday east west even odd Alice Bob red blue yes no true false"
    " increasing circle triangle Paris convergent divergent"
).split()


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
    gold, equal, wrong = rng.choice(
        [
            (
                "no solution",
                ["No solution", "no solutions", r"\text{No solution}", "No solutions exist"],
                ["one solution", "solution", "0", "infinitely many solutions", "all real numbers"],
            ),
            (
                "all real numbers",
                ["All real numbers", r"(-\infty,\infty)", r"\mathbb{R}", r"x\in\mathbb{R}"],
                [r"(0,\infty)", "no solution", "all integers", "x", r"[0,\infty)"],
            ),
            ("undefined", ["Undefined", r"\text{undefined}"], ["defined", "0", r"\infty", "1"]),
            (
                "Alice, Bob",
                ["Bob, Alice", "Alice and Bob", "Bob and Alice", r"\text{Alice and Bob}"],
                ["Alice", "Bob", "Alice, Carol", "Alice or Bob", "Alice, Bob, Carol"],
            ),
            ("x-axis", ["the x-axis", "X-axis", r"\text{x-axis}"], ["y-axis", "axis", "x"]),
            (
                "right triangle",
                ["a right triangle", "Right Triangle"],
                ["triangle", "left triangle", "not a right triangle"],
            ),
        ]
    )
    return Gold(gold, [gold, *equal], wrong, plain=True, words=True)
