"""Chains of thought from a teacher, to distil from: asked for once, verified, filtered.

DeepSeek-R1 (arXiv:2501.12948, 2.3.3 and 2.4): several responses a problem, of which those that are
right and readable become training data of a smaller model.
"""

import collections
import dataclasses
import functools
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from models.decoding.sampling import SamplingParams
from models.files import atomic_file
from reasoning.generation.generator import Completion, Generator, fold_seed
from reasoning.jsonl import read_jsonl, text_field
from reasoning.problem import Problem
from reasoning.response import THINK_CLOSE, THINK_OPEN, parse_response, whole_response
from reasoning.server_client.api_client import ServerError
from reasoning.server_client.openai_generator import Messages, OpenAIGenerator, Request
from reasoning.server_client.response_log import ResponseLog
from reasoning.statistics import mean_with_ci, shares_with_ci
from reasoning.tasks import get_task

# What a response must look like: the R1 tags; a chain in think tags, then an answer; anything.
FORMS = ("tags", "think", "any")
_task = functools.cache(get_task)
# Responses verified at a time.
_BATCH = 256
# A server that fails so many prompts in a row, each after its retries, is given up.
FAILURES_IN_A_ROW = 20


@dataclasses.dataclass(frozen=True)
class Item:
    """A problem as the teacher is asked it.

    Attributes:
      key: of the prompt, the same in every run.
      problem: without a task where nothing can be verified.
      prompt: text, or messages for a chat.
    """

    key: str
    problem: Problem
    prompt: str | Messages


@dataclasses.dataclass
class Collected:
    """What came of asking.

    Attributes:
      answered: prompts answered now.
      failed: prompts without an answer; asked again by the next run.
      last_failure: why, of the last one.
    """

    answered: int = 0
    failed: int = 0
    last_failure: str = ""


def make_items(
    problems: Iterable[Problem], prompt: Callable[[str], str | Messages]
) -> list[Item]:
    """Problems with their prompts; a prompt that occurs twice is asked once."""
    items = {}
    for problem in problems:
        asked = prompt(problem.question)
        text = json.dumps(asked, sort_keys=True)
        key = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
        items.setdefault(key, Item(key, problem, asked))
    return list(items.values())


def read_prompts(path: str) -> list[Problem]:
    """Problems that have no reference answer, from JSONL with `prompt` (or `question`).

    Raises:
      FileNotFoundError, ValueError: in one line that names the file and the line.
    """
    problems = [
        Problem("", text_field(record, ("prompt", "question", "problem"), path, number), "")
        for number, record in read_jsonl(path)
    ]
    if not problems:
        raise ValueError(f"{path} holds no prompts: give JSON Lines with a field prompt")
    return problems


def collect(
    generator: Generator,
    log: ResponseLog,
    items: Sequence[Item],
    *,
    num_samples: int,
    max_new_tokens: int,
    sampling: SamplingParams,
    seed: int,
    batch: int,
    should_stop: Callable[[], bool] = lambda: False,
    on_answer: Callable[[Collected], None] = lambda collected: None,
) -> Collected:
    """Asks for what the log has not, and logs each answer as it comes.

    Args:
      batch: prompts a call of a generator that cannot yield answers one by one; what a kill loses
        of its work.
      should_stop: once true, what is in flight is the last.

    Raises:
      ServerError, SpendingCapError: the work cannot go on; all that was answered is logged, and the
        same call goes on from there.
    """
    missing = [item for item in items if item.key not in log.keys]
    batch = max(1, min(batch, len(missing)))
    arguments = dict(num_samples=num_samples, max_new_tokens=max_new_tokens, sampling=sampling)
    collected, in_a_row = Collected(), 0
    for item, result in _answers(generator, missing, arguments, seed, batch, should_stop):
        if isinstance(result, ServerError):
            collected.failed += 1
            collected.last_failure, in_a_row = str(result), in_a_row + 1
            if in_a_row == FAILURES_IN_A_ROW:
                raise ServerError(f"{in_a_row} prompts in a row failed; the last: {result}")
        else:
            log.append(_record(item, result, generator))
            collected.answered, in_a_row = collected.answered + 1, 0
        on_answer(collected)
    return collected


def _answers(generator, items, arguments, seed, batch, should_stop):
    """(item, completions or error) as they come."""
    if isinstance(generator, OpenAIGenerator):
        requests = (Request(item.prompt, fold_seed(seed, item.key)) for item in items)
        answers = generator.stream(requests, **arguments, should_stop=should_stop)
        try:
            for index, result in answers:
                yield items[index], result
        finally:
            answers.close()
        return
    for start in range(0, len(items), batch):
        if should_stop():
            return
        part = items[start : start + batch]
        prompts = [item.prompt for item in part]
        # The whole batch has one shape: the last one is filled up.
        padded = list(itertools.islice(itertools.cycle(prompts), batch))
        groups = generator.generate(padded, **arguments, seed=fold_seed(seed, part[0].key))
        yield from zip(part, groups)


def _record(item: Item, completions: Sequence[Completion], generator) -> dict[str, Any]:
    paid = isinstance(generator, OpenAIGenerator)
    return {
        "key": item.key,
        "samples": [
            {"text": each.text, "finish": each.finish, "tokens": len(each.token_ids)}
            for each in completions
        ],
        # By all runs so far, so that a cap holds over all of them.
        "spent": generator.ledger.spent if paid else 0.0,
    }


@dataclasses.dataclass(frozen=True)
class TeacherResponse:
    """One response, judged.

    Attributes:
      correct: None where nothing can verify it.
      fault: why it is no training data; empty where it is.
    """

    item: Item
    text: str
    tokens: int
    correct: bool | None
    well_formed: bool
    fault: str

    def example(self) -> dict[str, Any]:
        """For SFT; see `train.data`."""
        return {
            "messages": [
                {"role": "user", "content": self.item.problem.question},
                {"role": "assistant", "content": self.text},
            ],
            "task": self.item.problem.task,
            "answer": self.item.problem.answer,
            "tokens": self.tokens,
        }


def grade(log: ResponseLog, items: Sequence[Item], form: str) -> Iterator[list[TeacherResponse]]:
    """Yields the graded responses of each answered item, in the order they were logged.

    A response is training data if it was not cut off, is the first of its wording for its problem,
    has the form, and is right as far as that can be verified.

    Raises:
      ValueError: an unknown form.
    """
    if form not in FORMS:
        raise ValueError(f"form={form!r} is unknown; choose one of {', '.join(FORMS)}")
    known = {item.key: item for item in items}
    records = (record for record in log if record["key"] in known)
    while part := list(itertools.islice(records, _BATCH)):
        rows = [(known[r["key"]], sample) for r in part for sample in r["samples"]]
        verdicts = iter(_verdicts(rows))
        for record in part:
            seen: set[str] = set()
            item = known[record["key"]]
            yield [
                _graded(item, sample, next(verdicts), form, seen) for sample in record["samples"]
            ]


def _verdicts(rows):
    """Verdict of each (item, sample); None where there is no verifier."""
    verdicts: list[Any] = [None] * len(rows)
    by_task: dict[str, list[int]] = {}
    for i, (item, _) in enumerate(rows):
        if item.problem.task:
            by_task.setdefault(item.problem.task, []).append(i)
    for name, places in by_task.items():
        task = _task(name)
        answers = [task.extract(_whole_text(*rows[i])) or "" for i in places]
        found = task.verify_all([rows[i][0].problem for i in places], answers)
        for i, verdict in zip(places, found, strict=True):
            verdicts[i] = verdict
    return verdicts


def _whole_text(item, sample):
    """A response with what its prompt, or the server's chat template, began it with."""
    text = sample["text"].strip()
    if isinstance(item.prompt, str):
        text = whole_response(item.prompt, text).strip()
    # A server's template is not known here; a chain that ends was begun.
    return text if THINK_CLOSE not in text or THINK_OPEN in text else THINK_OPEN + text


def _graded(item, sample, verdict, form, seen):
    text = _whole_text(item, sample)
    malformed = _form_fault(text, form)
    fault = ""
    if sample["finish"] == "length":
        fault = "cut off"
    elif malformed:
        fault = f"form: {malformed}"
    elif verdict is not None and not verdict.correct:
        fault = "wrong"
    elif text in seen:
        fault = "repeated"
    if not fault:
        seen.add(text)
    correct = None if verdict is None else verdict.correct
    return TeacherResponse(item, text, sample["tokens"], correct, not malformed, fault)


def _form_fault(text, form):
    """What is wrong with a response's form, or an empty string."""
    if form == "tags":
        response = parse_response(text)
        return "" if response.well_formed else response.reason
    if not text:
        return "empty"
    if form == "any":
        return ""
    chain, closed, answer = text.removeprefix(THINK_OPEN).partition(THINK_CLOSE)
    if not text.startswith(THINK_OPEN) or not closed:
        return "no chain in think tags"
    if any(tag in part for tag in (THINK_OPEN, THINK_CLOSE) for part in (chain, answer)):
        return "several think tags"
    return "" if chain.strip() and answer.strip() else "an empty chain or answer"


def write_examples(
    path: str | os.PathLike, graded: Iterable[Sequence[TeacherResponse]]
) -> dict[str, Any]:
    """Writes what is training data to a JSONL file, which is whole or not there.

    Returns:
      `{"problems", "responses", "kept", "faults": {fault: count}, "metrics": {name: figure}}`, the
      figures (`correct`, `well_formed`, `kept`, `response_tokens`) with the problem as the unit of
      chance; `correct` only where there is something to verify.
    """
    faults: collections.Counter[str] = collections.Counter()
    columns: dict[str, list[float]] = collections.defaultdict(list)
    responses = 0
    with atomic_file(path, errors="replace") as file:
        for group in graded:
            responses += len(group)
            faults.update(each.fault for each in group)
            columns["kept"].append(np.mean([not each.fault for each in group]))
            columns["well_formed"].append(np.mean([each.well_formed for each in group]))
            columns["response_tokens"].append(np.mean([each.tokens for each in group]))
            if group[0].correct is not None:
                columns["correct"].append(np.mean([each.correct for each in group]))
            for each in group:
                if not each.fault:
                    file.write(json.dumps(each.example(), ensure_ascii=False) + "\n")
    metrics = {
        name: (mean_with_ci if name == "response_tokens" else shares_with_ci)(values)
        for name, values in columns.items()
    }
    kept = faults.pop("", 0)
    return {
        "problems": len(columns["kept"]),
        "responses": responses,
        "kept": kept,
        "faults": dict(faults.most_common()),
        "metrics": metrics,
    }
