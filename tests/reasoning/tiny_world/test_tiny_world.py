"""Tests of the tiny world: solutions are right where they should be, test problems are held out."""

import collections
import itertools
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reasoning.prompts import PLAIN
from reasoning.response import parse_response
from reasoning.tiny_world import corpus, domains, splits
from reasoning.tiny_world.language import LANGUAGES, consistency

ROOT = Path(__file__).parents[3]
REASONING = ("tiny_math", "tiny_logic", "tiny_code")
FACTS = ("tiny_knowledge", "tiny_chat")

# How the questions are read here, independently of how they are written there.
WORD = {"add": "+", "plus": "+", "less": "-", "minus": "-", "times": "*", "mal": "*"}


def read_question(question):
    """What is asked, language and wording aside; None if it is no reasoning problem."""
    if match := re.fullmatch(r"(?:What is|Compute|Was ist|Berechne) ([\d +]+)[?.]", question):
        return ("sum", *map(int, match[1].split(" + ")))
    if match := re.fullmatch(r"Python: (?:take|nimm) (\w), (.*)\.", question):
        steps = [step.split() for step in match[2].split(", ")]
        return ("code", match[1], *((WORD[word], operand) for word, operand in steps))
    if match := re.fullmatch(r"(.*)\. (Who wins|Wer gewinnt|Who loses|Wer verliert)\?", question):
        facts = re.findall(r"(\w+) (?:beats|schlägt) (\w+)", match[1])
        return ("contest", match[2] in ("Who loses", "Wer verliert"), *facts)
    return None


def solve(asked):
    """The answer, from the question alone."""
    kind, *parts = asked
    if kind == "sum":
        return str(sum(parts))
    if kind == "contest":
        loses, *facts = parts
        losers, winners = {b for _, b in facts}, {a for a, _ in facts}
        (last,) = losers - winners if loses else winners - losers
        return last
    start, *steps = parts
    return "".join("(" * len(steps)) + start + "".join(f" {op} {value})" for op, value in steps)


def drawn(task, split="train", seed=0, count=300):
    return list(itertools.islice(splits.problems(task, split, seed), count))


@pytest.fixture(scope="module")
def documents():
    return corpus.documents(16_000, seed=0)


def asked_in(documents):
    """The question of each document that has one."""
    for text in documents:
        if text.startswith("User: "):
            yield text.removeprefix("User: ").partition("\n")[0]


@pytest.mark.parametrize("task", REASONING)
def test_references_answer_the_questions(task):
    for problem in drawn(task):
        assert solve(read_question(problem.question)) == problem.answer


@pytest.mark.parametrize("task", REASONING)
def test_levels_are_the_number_of_steps(task):
    low, high = domains.LEVELS[task]
    levels = collections.Counter()
    for problem in drawn(task):
        parts = read_question(problem.question)
        level = len(parts) - {"tiny_math": 1, "tiny_logic": 2, "tiny_code": 2}[task]
        assert level == problem.metadata["level"]
        levels[level] += 1
    assert set(levels) == set(range(low, high + 1)) and min(levels.values()) > 30
    harder = splits.problems(task, "train", 0, levels=(high + 1, high + 2))
    assert {p.metadata["level"] for p in itertools.islice(harder, 40)} == {high + 1, high + 2}


def test_test_problems_are_not_in_the_corpus_in_any_wording_or_language(documents):
    told = {read_question(question) for question in asked_in(documents)} - {None}
    assert len(told) > 3000
    for task, seed in itertools.product(REASONING, range(3)):
        held_out = {read_question(p.question) for p in drawn(task, "test", seed, 1000)}
        assert len(held_out) > 800 and not held_out & told


def test_test_problems_are_not_training_problems():
    for task in REASONING:
        held_out = {read_question(p.question) for p in drawn(task, "test", 0, 1000)}
        for seed in (0, 1):
            training = {read_question(p.question) for p in drawn(task, "train", seed, 3000)}
            assert len(training) > 2500 and not held_out & training


@pytest.mark.parametrize("task", FACTS)
def test_wordings_of_facts_and_greetings_are_held_out(task, documents):
    held_out = {p.question for p in drawn(task, "test")}
    training = {p.question for p in drawn(task, "train")}
    assert held_out and not held_out & training and not held_out & set(asked_in(documents))


def test_every_fact_is_told_or_asked_for_in_training(documents):
    training = {p.metadata["told"] for p in drawn("tiny_knowledge")}
    assert training == {p.metadata["told"] for p in domains.all_facts()}
    held_out = drawn("tiny_knowledge", "test")
    assert 0.15 < len(held_out) / len(domains.all_facts()) < 0.35
    asked = set(asked_in(documents))
    told = {text.strip() for text in documents} | {
        p.metadata["told"] for p in domains.all_facts() if p.question in asked
    }
    assert {p.metadata["told"] for p in held_out} <= told


def test_about_a_tenth_is_held_out():
    rng = random.Random(0)
    for task in REASONING:
        low, high = domains.LEVELS[task]
        problems = [
            domains.DRAW[task](rng, LANGUAGES["en"], rng.randint(low, high)) for _ in range(3000)
        ]
        assert 0.07 < sum(map(splits.is_test, problems)) / 3000 < 0.13
        easier = [domains.DRAW[task](rng, LANGUAGES["de"], low - 1) for _ in range(300)]
        assert not any(map(splits.is_test, easier))


def test_problems_are_distinct_and_follow_from_the_seed():
    for task in domains.DRAW:
        problems = drawn(task)
        assert len({p.question for p in problems}) == len(problems)
        assert problems == drawn(task)
    assert drawn("tiny_math") != drawn("tiny_math", seed=1)
    assert corpus.documents(50, 3) == corpus.documents(50, 3) != corpus.documents(50, 4)


def test_the_seed_decides_in_every_process():
    code = "from reasoning.tiny_world import corpus; print(corpus.documents(200, 7))"
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert outputs[0] == outputs[1] == f"{corpus.documents(200, 7)}\n"


@pytest.mark.parametrize("task", domains.WORK)
@pytest.mark.parametrize("languages", [("en",), ("de",), ("en", "de")])
def test_faultless_solutions_arrive_at_the_reference(task, languages):
    rng = random.Random(0)
    for problem in drawn(task, count=100):
        lines = domains.solution_lines(problem, [LANGUAGES[code] for code in languages], rng)
        assert lines[-1] == problem.answer
        for line in lines[:-1] if task == "tiny_math" else ():
            a, b, total = map(int, re.fullmatch(r"(\d+) \w+ (\d+) \w+ (\d+)", line).groups())
            assert a + b == total


@pytest.mark.parametrize("task", REASONING)
def test_a_slip_at_any_line_gives_a_wrong_answer(task):
    for problem in drawn(task, count=100):
        right = domains.WORK[task](problem, lambda: LANGUAGES["en"], lambda line: False)
        for wrong in range(len(right) - 1):
            lines = domains.WORK[task](problem, lambda: LANGUAGES["en"], lambda line: line == wrong)
            assert lines[:wrong] == right[:wrong] and lines[wrong] != right[wrong]
            assert lines[-1] != right[-1]


def test_the_corpus_is_as_messy_as_it_says(documents):
    """Direct, untagged and tagged; of the worked ones some wrong, some checked, some mixed."""
    styles, worked = collections.Counter(), collections.Counter()
    for text in documents:
        if text.count("User:") > 1:
            continue
        question, _, response = text.removeprefix("User: ").partition("\nAssistant:")
        asked = read_question(question)
        if asked is None or asked[0] == "code":
            continue
        response = response.strip()
        *lines, last = response.splitlines()
        parsed = parse_response(response)
        styles["tagged" if parsed.well_formed else "untagged" if lines else "direct"] += 1
        if not lines:
            assert response == solve(asked)
            continue
        worked["all"] += 1
        answer = parsed.answer if parsed.well_formed else last.split()[-1]
        wrong = answer != solve(asked)
        checked = any(line.split()[0] in ("wait", "halt") for line in lines)
        worked["wrong"] += wrong
        worked["checked"] += checked
        worked["checked and wrong"] += checked and wrong
        worked["mixed"] += 0 < (consistency(response, "en") or 0) < 1
    total = sum(styles.values())
    for style, weight in corpus.STYLE_WEIGHTS.items():
        assert styles[style] / total == pytest.approx(weight / 100, abs=0.04)
    shares = {name: count / worked["all"] for name, count in worked.items()}
    assert shares["wrong"] == pytest.approx(corpus.WRONG_SHARE, abs=0.04)
    assert shares["checked"] == pytest.approx(corpus.CAREFUL_SHARE, abs=0.03)
    assert shares["checked and wrong"] == 0
    # A solution in mixed languages may happen to be in one.
    assert 0.5 * corpus.MIXED_SHARE < shares["mixed"] <= corpus.MIXED_SHARE + 0.03


def test_varied_chains_are_empty_short_or_checked_and_answered_right(documents):
    varied = corpus.documents(4000, seed=0, varied=1.0)
    assert corpus.documents(200, seed=0) == documents[:200], "nothing changes by default"
    kinds = collections.Counter()
    for text in varied:
        question, tag, rest = text.removeprefix("User: ").partition("\nAssistant: <think>\n")
        if not tag or (asked := read_question(question)) is None:
            continue
        parsed = parse_response("<think>\n" + rest)
        assert parsed.well_formed
        if asked[0] != "code":
            assert parsed.answer == solve(asked)
        lines = [x.strip() for x in rest.partition("</think>")[0].splitlines() if x.strip()]
        checks = [line.partition(" ")[2] for line in lines if line.split()[0] in ("wait", "halt")]
        if not lines:
            kinds["empty"] += 1
        elif checks:
            assert set(checks) == {parsed.answer} and len(checks) <= corpus.MOST_CHECKS
            kinds["checked"] += 1
        else:
            kinds["short"] += 1
    assert min(kinds.values()) > 0.28 * kinds.total()


def test_sheets_are_several_problems_by_one_writer(monkeypatch):
    """What follows each question is right unless the writer errs; tags are for all or for none."""
    monkeypatch.setattr(corpus, "SHEET_SHARE", 0.1)
    documents = corpus.documents(4000, 0)
    sheets = [text.split("User: ")[1:] for text in documents if text.count("User:") > 1]
    assert 0.04 < len(sheets) / len(documents) < corpus.SHEET_SHARE
    right = []
    for sheet in sheets:
        asked, responses = zip(*(part.split("\nAssistant:") for part in sheet), strict=True)
        assert len({parse_response(response).well_formed for response in responses}) == 1
        if parse_response(responses[0]).well_formed:
            answers = [parse_response(response).answer for response in responses]
            right += [solve(read_question(q)) == a for q, a in zip(asked, answers)]
        # Easier ones only: none of them can be a test problem.
        assert len({read_question(question)[0] for question in asked}) == 1
    assert len(right) > 60 and 0.7 < sum(right) / len(right) < 0.9


def test_worked_examples_are_careful_and_in_one_language():
    rng = random.Random(0)
    for task, (code, language) in itertools.product(REASONING, LANGUAGES.items()):
        for _ in range(30):
            question, response = corpus.worked_example(rng, task, language)
            parsed = parse_response(response)
            assert parsed.well_formed and parsed.answer == solve(read_question(question))
            assert language.self_check.partition(" ")[0] in parsed.chain
            assert consistency(parsed.chain, code) == 1


def test_tagged_solutions_are_well_formed():
    response = parse_response(corpus.tagged(["1 and 2 makes 3"], "3"))
    assert response.well_formed and response.answer.strip() == "3"
    assert response.chain.strip() == "1 and 2 makes 3"


def test_no_word_of_a_solution_belongs_to_both_languages():
    spoken = {}
    for code, language in LANGUAGES.items():
        lines = [
            line
            for task in domains.WORK
            for problem in drawn(task)
            if problem.metadata["language"] == code
            for line in domains.solution_lines(problem, [language], random.Random(0))[:-1]
        ] + [language.self_check, language.conclusion]
        words = {word.strip(".").lower() for line in lines for word in line.split()}
        names = set(domains.NAMES) | set(domains.COUNTRIES)
        names |= {capital for capital, _ in domains.COUNTRIES.values()}
        spoken[code] = {w for w in words if w.isalpha() and len(w) > 1} - set(map(str.lower, names))
        # Each of them tells its language.
        assert all(consistency(word, code) == 1.0 for word in spoken[code])
    assert len(spoken["en"]) > 10 < len(spoken["de"]) and not spoken["en"] & spoken["de"]


@pytest.mark.parametrize(
    "text, language, expected",
    [
        ("3 and 4 makes 7\n7 and 1 makes 8", "en", 1.0),
        ("3 and 4 makes 7\n7 and 1 makes 8", "de", 0.0),
        ("3 and 4 makes 7\n7 und 1 macht 8", "en", 0.5),
        ("<think>\n 3 und 4 macht 7\n</think><answer> 7</answer>", "de", 1.0),
        ("SO, now: Ann leads! jetzt hinkt Bob.", "en", 0.5),  # so, leads; jetzt, hinkt
        ("I recall Peru is in America.", "en", 1.0),
        ("I recall Peru gehört zu Amerika.", "en", 0.25),
        ("7", "en", None),
        ("", "en", None),
        ("Ann, Bob", "de", None),
        ("3 and 4 makes 7", None, None),
        ("3 and 4 makes 7", "fr", None),
    ],
)
def test_consistency(text, language, expected):
    assert consistency(text, language) == expected


def test_documents_are_what_the_model_is_prompted_with(documents):
    """The base model has seen the plain template, or it could not be sampled with it."""
    question = drawn("tiny_math")[0].question
    opening = PLAIN.format(question=question)
    shape = re.compile(re.escape(opening).replace(re.escape(question), ".*"))
    assert sum(shape.match(text) is not None for text in documents) > 0.7 * len(documents)


def test_unknown_split():
    with pytest.raises(ValueError, match="split='valid' is unknown; choose train or test"):
        next(splits.problems("tiny_math", "valid", 0))
