"""Tests the grader on generated answers: equivalent spellings must pass, near misses must not.

    python -m tests.reasoning.mathematics.grading_fuzzer --cases=50000 --seed=1

Each case has a gold answer of some kind, an answer that is equal or wrong by construction, and a
form of response around it. The exit status is 1 if a wrong answer was accepted, or if more than one
in a hundred right answers was refused. `golds_*.py` hold the kinds.
"""

import argparse
import collections
import dataclasses
import random
import re
import sys
import time
from collections.abc import Iterator

from tests.reasoning.mathematics import (  # noqa: F401  they register their kinds
    golds,
    golds_equations,
    golds_irrational,
    golds_numbers,
    golds_sets,
    golds_words,
)


@dataclasses.dataclass(frozen=True)
class Case:
    """One graded response.

    Attributes:
        kind: Name of the kind of gold and of the form of response.
        gold: The reference.
        response: All that the model wrote.
        expected: Whether it is right.
    """

    kind: str
    gold: str
    response: str
    expected: bool


# Forms of response. {m}: the answer as a formula, {b}: bare.
FORMULA_FORMS = {
    "box": r"So we have \boxed{{{b}}}.",
    "box in dollars": r"Thus $\boxed{{{b}}}$",
    "box, display": "Hence\n\\[\n\\boxed{{{b}}}\n\\]",
    "box in bold": r"**Final answer:** $\boxed{{{b}}}$.",
    "box in tags": r"<think>Let me see: 7, then 12.</think><answer>\boxed{{{b}}}</answer>",
    "box, then words": r"The result is $\boxed{{{b}}}$, as 4 of the 9 steps above show.",
    "box after another": r"First I had \boxed{{987654}}. That is wrong; it is \boxed{{{b}}}.",
    "tags": "<think>Some thoughts about 5 things.</think> <answer>{b}</answer>",
    "tags, formula": "<think>Thoughts.</think>\n<answer>\n${b}$\n</answer>",
    "tags, announced": "<think>Thoughts.</think><answer>The answer is ${b}$.</answer>",
    "announced": "After 3 steps we are done. The answer is ${b}$.",
    "announced, colon": "We use 12 of them.\nAnswer: ${b}$",
    "announced, final": "It took 2 tries. Therefore, the final answer is: ${b}$.",
    "announced, brackets": r"Thus the answer is \({b}\).",
    "announced, next line": "Two steps.\n\n**Final Answer:**\n\n$${b}$$",
    "announced, display": "The answer is:\n\\[\n{b}\n\\]",
    "heading": "Step 1: think.\n\n### Final Answer: ${b}$",
    "heading, next line": "Step 1: think.\n\n### Final Answer\n\n${b}$",
    "bold announcement": "**The answer is ${b}$.**",
    "bold answer": "The final answer is **${b}$**.",
    "check mark": "✅ Final Answer: **${b}$**",
    "clause": "The answer is ${b}$, which is what we wanted to find.",
    "clause because": "The answer is ${b}$ because the 2 terms cancel.",
    "sentence after": "The answer is ${b}$. This agrees with the 3 checks above.",
    "remark": "The answer is ${b}$ (see the steps above).",
    "last formula": "Adding all of it up, we get ${b}$.",
    "French": "La réponse est ${b}$.",
    "Chinese": "所以答案是 ${b}$。",
    "Spanish": "La respuesta es ${b}$.",
}
PLAIN_FORMS = {
    "hashes": "3 + 4 is used.\n#### {b}",
    "hashes, bold": "Some steps.\n#### **{b}**",
    "A:": "There are 7 of them at first.\nA: {b}",
    "plain announcement": "There were 3 days. The answer is {b}.",
    "plain clause": "The answer is {b}, which is the total.",
    "plain, not": "The answer is {b}, not 987654.",
    "plain bold": "The answer is **{b}**.",
    "plain next line": "The answer is:\n{b}",
    "tags, plain": "<think>7 + 8</think><answer>{b}</answer>",
    "tags, bold": "<think>7 + 8</think><answer>**{b}**</answer>",
    "box, plain": r"\boxed{{{b}}}",
    "underlined": "Answer: __{b}__",
}
NUMBER_FORMS = {
    "last number": "Adding the 3 parts, the total comes to {b}.",
    "hash sentence": "Some steps.\n#### There are {b} of them.",
    "last number, bold": "In the end there are **{b}**.",
}


def cases(count: int, seed: int) -> Iterator[Case]:
    """Cases of all kinds in turn; the same arguments give the same cases."""
    rng = random.Random(seed)
    made, kinds = 0, list(golds.KINDS.items())
    while made < count:
        for name, make in kinds:
            gold = make(rng)
            answers = [(answer, True) for answer in gold.equal]
            answers += [(answer, False) for answer in gold.wrong]
            for answer, expected in rng.sample(answers, min(4, len(answers))):
                yield Case(*_response(rng, name, gold, answer), expected)
                made += 1
                if made == count:
                    return


def _response(rng, name, gold, answer):
    forms = dict(PLAIN_FORMS) if gold.plain else dict(FORMULA_FORMS)
    if (
        gold.plain
        and gold.number
        and answer.lstrip("-").replace(",", "").replace(".", "").isdigit()
    ):
        forms |= NUMBER_FORMS
    if gold.plain and "$" not in answer and not gold.words:
        forms |= FORMULA_FORMS
    if "**" in answer:  # the power of Python inside bold text is nothing that anybody writes
        forms = {name: form for name, form in forms.items() if "**" not in form}
    if re.search(r"[A-Za-z]{2,} [A-Za-z]{2,}", re.sub(r"\\text\w*\{[^{}]*\}", "", answer)):
        # Words stand outside of formulas, or in \text{...}.
        forms = {name: form for name, form in (forms | PLAIN_FORMS).items() if "$" not in form}
    if gold.words:
        forms = {name: form for name, form in forms.items() if name != "plain, not"}
    form = rng.choice(list(forms))
    return f"{name} / {form}", gold.gold, forms[form].format(b=answer)


def grade(batch: list[Case]) -> list[tuple[Case, str | None, bool, str]]:
    """(case, answer found, verdict, reason) of each case."""
    from reasoning.mathematics.answers import extract_answer
    from reasoning.mathematics.verifier import verify_math_all

    found = [extract_answer(case.response) for case in batch]
    verdicts = verify_math_all([(case.gold, a or "") for case, a in zip(batch, found)])
    return [(case, a, v.correct, v.reason) for case, a, v in zip(batch, found, verdicts)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=20, help="faults to print of each sort")
    arguments = parser.parse_args()
    start = time.perf_counter()
    batch, right, wrong, false = [], 0, 0, collections.defaultdict(list)
    for i, case in enumerate(cases(arguments.cases, arguments.seed), start=1):
        batch.append(case)
        if len(batch) == 2000 or i == arguments.cases:
            for case, answer, correct, reason in grade(batch):
                right, wrong = right + case.expected, wrong + (not case.expected)
                if correct != case.expected:
                    false[correct].append((case, answer, reason))
            batch = []
    for accepted, faults in false.items():
        for case, answer, reason in faults[: arguments.show]:
            label = "ACCEPTED" if accepted else "REFUSED "
            print(f"{label} [{case.kind}] {case.gold!r} <- {case.response!r}: {answer!r}, {reason}")
    by_kind = collections.Counter(case.kind.split(" /")[0] for case, _, _ in false[False])
    seconds = time.perf_counter() - start
    print("false refusals by kind:", dict(by_kind.most_common()))
    print(
        f"false accepts {len(false[True])} of {wrong},"
        f" false refusals {len(false[False])} of {right}"
    )
    print(f"seed {arguments.seed}, {arguments.cases} cases in {seconds:.0f} s")
    sys.exit(bool(false[True]) or len(false[False]) > 0.01 * right)


if __name__ == "__main__":
    main()
