"""Gold answers that are rational numbers, with large and small ones."""

import math
from fractions import Fraction

from tests.reasoning.mathematics.golds import Gold, frac, kind, nonzero, signed, true_fraction


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
