"""Tests the whole grader: generated answers, collected cases, real solutions, documented
examples.
"""

import dataclasses
import json
import os
import pathlib
import random
import re

import pytest

from reasoning.mathematics.answers import extract_answer
from reasoning.mathematics.options import GradingOptions
from reasoning.mathematics.verifier import verify_math, verify_math_all
from reasoning.problem import Problem
from reasoning.tasks import get_task
from reasoning.tasks.gsm8k import final_number
from tests.reasoning.mathematics import golds
from tests.reasoning.mathematics.grading_fuzzer import cases, grade
from tests.reasoning.mathematics.grading_pairs import NOT_SAME, SAME

ROOT = pathlib.Path(__file__).parents[3]
SHARED = pathlib.Path(os.environ.get("ERGO_DATA", ROOT.parent / "shared" / "data")).parent
# Whatever is true of everything, or says nothing.
EMPTY_CLAIMS = [
    "0=1", "1=2", "0=0", "x=x", "y=y", "7=7", r"\emptyset", r"\mathbb{R}", "true", "yes", "x",
    "...", r"(-\infty,\infty)",
    "any number", "the correct answer", "?", r"\ldots", r"\text{answer}",
]  # fmt: skip


def test_made_up_answers_are_graded_right():
    graded = grade(list(cases(2500, seed=2024)))
    accepted = [
        (c.gold, c.response, a) for c, a, correct, _ in graded if correct and not c.expected
    ]
    refused = [(c.gold, c.response, a) for c, a, correct, _ in graded if c.expected and not correct]
    assert accepted == []
    assert len(refused) <= 0.01 * sum(case.expected for case, *_ in graded), refused
    kinds = {case.kind.split(" /")[0] for case, *_ in graded}
    assert kinds == set(golds.KINDS) and len(kinds) > 45


def test_the_fuzzer_repeats_itself_and_differs_by_seed():
    assert list(cases(300, seed=5)) == list(cases(300, seed=5)) != list(cases(300, seed=6))


@pytest.fixture(scope="module")
def verdicts():
    pairs = SAME + NOT_SAME
    return dict(zip(pairs, verify_math_all(pairs)))


@pytest.mark.parametrize("pair", SAME, ids=" == ".join)
def test_same(verdicts, pair):
    assert verdicts[pair].correct, verdicts[pair].reason


@pytest.mark.parametrize("pair", NOT_SAME, ids=" != ".join)
def test_not_same(verdicts, pair):
    assert not verdicts[pair].correct, verdicts[pair].reason


def _shared(*parts):
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no {path}")
    return path.read_text(encoding="utf-8")


def test_collected_cases():
    rows = [json.loads(line) for line in _shared("cases", "grading.jsonl").splitlines()]
    answers = [extract_answer(row["response"]) or "" for row in rows]
    verdicts = verify_math_all([(row["gold"], answer) for row, answer in zip(rows, answers)])
    wrong = [row for row, v in zip(rows, verdicts) if v.correct != row["expected"]]
    assert rows and not wrong


def test_real_solutions_are_graded_as_their_authors_labelled_them():
    lines = _shared("data", "gsm8k", "example_model_solutions.jsonl").splitlines()
    pairs, labels = [], []
    for record in map(json.loads, lines):
        gold = record["ground_truth"].rpartition("A:")[2].strip()
        for solution in (value for value in record.values() if isinstance(value, dict)):
            pairs.append((gold, extract_answer(solution["solution"]) or ""))
            labels.append(solution["is_correct"])
    verdicts = verify_math_all(pairs)
    assert len(labels) > 5000
    assert [p for p, v, label in zip(pairs, verdicts, labels) if v.correct != label] == []


@pytest.mark.parametrize("split", ["train", "test"])
def test_gsm8k_references_accept_themselves_in_their_solutions(split):
    lines = _shared("data", "gsm8k", f"{split}.jsonl").splitlines()
    solutions = [json.loads(line)["answer"] for line in lines]
    pairs = [(final_number(text), extract_answer(text) or "") for text in solutions]
    assert [pair for pair, v in zip(pairs, verify_math_all(pairs)) if not v.correct] == []


def test_math500_references_accept_their_solutions_and_no_empty_claim():
    rows = json.loads(_shared("data", "math500", "math500_test.json"))
    pairs = [(row["answer"], extract_answer(row["solution"]) or "") for row in rows]
    assert [pair for pair, v in zip(pairs, verify_math_all(pairs)) if not v.correct] == []
    claims = [
        (row["answer"], claim)
        for row in rows
        for claim in EMPTY_CLAIMS
        if row["answer"] != claim.rpartition("=")[2]  # "7=7" does give the answer 7
    ]
    assert [pair for pair, v in zip(claims, verify_math_all(claims)) if v.correct] == []


@pytest.mark.parametrize(
    "gold", ["2+3=5", "x^2+1=0", "y=2x+3", "x=5", "3", r"\{1,2\}", "[0,1]", "C"]
)
def test_no_empty_claim_passes(gold):
    assert [c for c in EMPTY_CLAIMS if verify_math(gold, c).correct] == []


def test_math_verify_agrees_on_expressions():
    """An independent oracle, where it is exact: polynomials, surds, fractions and their like."""
    math_verify = pytest.importorskip("math_verify")
    rng = random.Random(7)
    kinds = ("polynomials", "factored", "sums_of_surds", "fractions", "rational_functions")
    answers = [(gold.gold, a) for k in kinds for gold in [golds.KINDS[k](rng) for _ in range(3)]
               for a in rng.sample([*gold.equal[:5], *gold.wrong[:3]], 6)]  # fmt: skip
    ours = [verdict.correct for verdict in verify_math_all(answers)]
    parsed = [
        [math_verify.parse(f"${text}$", parsing_timeout=None) for text in pair] for pair in answers
    ]
    theirs = [math_verify.verify(*pair, timeout_seconds=None) for pair in parsed]
    assert sum(a == b for a, b in zip(ours, theirs)) >= 0.9 * len(answers)


# --- The examples of the page that documents the conventions.


def _documented():
    page = (ROOT / "docs" / "grading.md").read_text(encoding="utf-8")
    row = re.compile(
        r"^\| `(.+?)` \| `(.+?)` \| (right|wrong) \|(?: `([^`]*)`)? *\|$", re.MULTILINE
    )
    return row.findall(page)


@pytest.mark.parametrize("reference, response, verdict, options", _documented())
def test_documented_examples(reference, response, verdict, options):
    task = get_task(f"jsonl:none.jsonl?{options}")
    answer = task.extract(response.replace(r"\n", "\n"))
    graded = task.verify(Problem(task.name, "", reference), answer or "")
    assert graded.correct == (verdict == "right"), (answer, graded.reason)


def test_every_option_is_documented_with_an_example():
    named = "&".join(options for *_, options in _documented())
    assert len(_documented()) > 60
    assert {field.name for field in dataclasses.fields(GradingOptions)} <= set(
        re.findall(r"(\w+)=", named)
    )


@pytest.mark.parametrize(
    "query, message",
    [
        ("units=maybe", "units='maybe'.*optional, required, ignored"),
        ("number_words=2", "number_words=2.*false, true"),
        ("min_significant=0", "min_significant=0"),
        ("colour=red", "colour"),
    ],
)
def test_unknown_options_are_one_clear_line(query, message):
    with pytest.raises(ValueError, match=message):
        get_task(f"jsonl:none.jsonl?{query}")
