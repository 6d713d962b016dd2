"""Collects chains of thought from a teacher for distillation: asks once, then verifies and filters.

DeepSeek-R1 (arXiv:2501.12948, 2.3.3 and 2.4) samples several responses per problem; those that are
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

# The forms that a response can be required to have: "tags" is the R1 format, "think" is a chain in
# think tags before an answer, "any" is any text.
FORMS = ("tags", "think", "any")
_task = functools.cache(get_task)
# The number of log records whose responses are verified together.
_BATCH = 256
# The server is given up after this many failed prompts in a row, each after its retries.
FAILURES_IN_A_ROW = 20


@dataclasses.dataclass(frozen=True)
class Item:
    """A problem in the form in which the teacher gets it.

    Attributes:
      key: identifies the prompt; the same in every run.
      problem: the problem; its task is empty if nothing can be verified.
      prompt: a text, or the messages of a chat.
    """

    key: str
    problem: Problem
    prompt: str | Messages


@dataclasses.dataclass
class Collected:
    """The counts of a run that asks the teacher.

    Attributes:
      answered: the prompts that this run got an answer to.
      failed: the prompts without an answer; the next run asks them again.
      last_failure: the reason of the last failure.
    """

    answered: int = 0
    failed: int = 0
    last_failure: str = ""


def make_items(problems: Iterable[Problem], prompt: Callable[[str], str | Messages]) -> list[Item]:
    """Pairs problems with their prompts. A prompt that occurs twice is asked only once."""
    items = {}
    for problem in problems:
        asked = prompt(problem.question)
        text = json.dumps(asked, sort_keys=True)
        key = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
        items.setdefault(key, Item(key, problem, asked))
    return list(items.values())


def read_prompts(path: str) -> list[Problem]:
    """Reads problems without reference answers from JSONL with a field `prompt` (or `question`).

    Raises:
      FileNotFoundError, ValueError: the file or a record is bad; one line names the file and the
        line.
    """
    problems = [
        Problem("", text_field(record, ("prompt", "question", "problem"), path, number), "")
        for number, record in read_jsonl(path)
    ]
    if not problems:
        raise ValueError(f"{path} holds no prompts: write JSON Lines with a field prompt")
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
    """Asks for the answers that the log lacks, and logs each answer as it arrives.

    Args:
      generator: the teacher.
      log: the file of answers.
      items: the problems with their prompts.
      num_samples: the number of responses per prompt.
      max_new_tokens: the length limit of a response.
      sampling: how to sample.
      seed: decides every sample.
      batch: the prompts per call of a generator that cannot yield answers one by one; a crash loses
        at most one batch.
      should_stop: once it returns True, the requests in flight are the last.
      on_answer: called after each answer or failure.

    Raises:
      ServerError, SpendingCapError: the work cannot go on; all answers so far are logged, and the
        same call continues from there.
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
    """Yields (item, completions or error) as they arrive."""
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
        # Repeated prompts fill the last batch up, so that every batch has the same shape.
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
        # This is the spending of all runs so far, so that a cap holds over all of them.
        "spent": generator.ledger.spent if paid else 0.0,
    }


@dataclasses.dataclass(frozen=True)
class TeacherResponse:
    """One response with its verdict.

    Attributes:
      correct: whether it is right; None if nothing can verify it.
      fault: why it is no training data; empty if it is.
    """

    item: Item
    text: str
    tokens: int
    correct: bool | None
    well_formed: bool
    fault: str

    def example(self) -> dict[str, Any]:
        """Returns the response as a record for SFT; see `train.data`."""
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
    """Yields the graded responses of each answered item, in the order in which they were logged.

    A response is training data if it was not cut off, is the first with its wording for its
    problem, has the form, and is not found wrong.

    Args:
      log: the file of answers.
      items: the problems with their prompts; other records of the log are skipped.
      form: the form that a response must have, one of `FORMS`.

    Raises:
      ValueError: the form is unknown.
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
    """Returns the verdict on each (item, sample), or None if there is no verifier."""
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
    """Returns a response with the beginning that the prompt or the chat template gave it."""
    text = sample["text"].strip()
    if isinstance(item.prompt, str):
        text = whole_response(item.prompt, text).strip()
    # The server's template is unknown here, but a chain that ends must have begun.
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
    """Says what is wrong with the form of a response; returns an empty string if nothing is."""
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
    path: str | os.PathLike[str], graded: Iterable[Sequence[TeacherResponse]]
) -> dict[str, Any]:
    """Writes the training data to a JSONL file. The file appears only when it is complete.

    Returns:
      `{"problems", "responses", "kept", "faults": {fault: count}, "metrics": {name: figure}}`. The
        figures (`correct`, `well_formed`, `kept`, `response_tokens`) have confidence intervals over
        problems. `correct` is there only if something can be verified.
    """
    faults: collections.Counter[str] = collections.Counter()
    columns: dict[str, list[float]] = collections.defaultdict(list)
    responses = 0
    with atomic_file(path, errors="replace") as file:
        for group in graded:
            responses += len(group)
            faults.update(each.fault for each in group)
            columns["kept"].append(float(np.mean([not each.fault for each in group])))
            columns["well_formed"].append(float(np.mean([each.well_formed for each in group])))
            columns["response_tokens"].append(float(np.mean([each.tokens for each in group])))
            if group[0].correct is not None:
                columns["correct"].append(float(np.mean([bool(each.correct) for each in group])))
            for answer in group:
                if not answer.fault:
                    file.write(json.dumps(answer.example(), ensure_ascii=False) + "\n")
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
