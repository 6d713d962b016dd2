"""Gold answers that are intervals, sets, lists, tuples and matrices."""

from tests.reasoning.mathematics.golds import Gold, kind


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
        f"A{gold}",
        f"-{gold}",
        f"{gold}+{gold}",
        f"{entries[0][0]}",
        f"{gold}^T" if transposed != entries else "7",
        matrix(entries, "vmatrix"),
    ]
    if transposed != entries:
        wrong.append(matrix(transposed))
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
