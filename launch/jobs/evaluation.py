"""Evaluates models on tasks by methods; logs of graded responses survive a kill.

A method is `greedy`, `sampled@N` (the mean over N samples), or one of `reasoning.search.methods`
at a budget, such as `majority@16`.
"""

import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from launch.jobs.asked import LocalModel, ServerModel
from launch.jobs.search import bank
from launch.parts.report import format_figure
from models.decoding.sampling import SamplingParams
from reasoning.candidate import Candidate
from reasoning.generation.generator import fold_seed
from reasoning.jsonl import write_jsonl
from reasoning.problem import Problem
from reasoning.response import parse_response
from reasoning.search import interface
from reasoning.search.common.evaluation import Entry
from reasoning.search.interface import Policy
from reasoning.search.methods import ONE_RESPONSE, ORACLE, method_entries
from reasoning.server_client.response_log import ResponseLog
from reasoning.statistics import shares_with_ci
from reasoning.tasks import Task
from reasoning.verifiers import Verifier
from reasoning.verifiers.rule import RuleVerifier
from train.progress import Progress

GREEDY, SAMPLED = "greedy", "sampled"
# Methods that choose among whole responses; they share their samples.
_VOTES = ("majority", "adaptive_majority", "confident_majority")
_SHARING = (SAMPLED, *_VOTES, "weighted_majority", "ranked_majority", ORACLE)
# Methods that a chat server can run: it cannot continue a response.
_OF_WHOLE_RESPONSES = (GREEDY, SAMPLED, "cot", *_VOTES, ORACLE, "best_of_n_logprob")
# The problems of a batch fill the sampler's rows this many times.
_FILLS = 4


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to answer, and how many responses it may take."""

    name: str
    budget: int

    def __str__(self) -> str:
        return self.name if self.name in (GREEDY, *ONE_RESPONSE) else f"{self.name}@{self.budget}"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How responses are drawn, the same for all models, tasks and methods.

    Attributes:
      max_new_tokens, step_tokens, typical_tokens, delimiter, sampling: see `Policy`.
      rows: sequences to sample at a time.
      aggregation: how a verifier's step scores are combined; see `reasoning.verifiers.aggregate`.
      wait: the text that budget forcing appends.
      seed: seed of problems and samples.
    """

    max_new_tokens: int
    step_tokens: int
    typical_tokens: int
    delimiter: str
    sampling: SamplingParams
    rows: int
    aggregation: str
    wait: str
    seed: int


def parse_methods(texts: Sequence[str], prm: bool, orm: bool) -> list[Method]:
    """Parses methods from their names, such as `majority@16`.

    Args:
      texts: the names.
      prm, orm: whether there is a process verifier, and an outcome verifier.

    Raises:
      ValueError: a name is unknown, a budget is missing, superfluous or no positive number, or a
        method lacks its verifier.
    """
    known = [GREEDY, SAMPLED, *_entries(None, None, True, True)]
    possible = [GREEDY, SAMPLED, *_entries(None, None, prm, orm)]
    methods = []
    for text in texts:
        name, at, budget = text.partition("@")
        if name not in known:
            also = "; adaptive is calibrated by launch.run_search" if name == "adaptive" else ""
            raise ValueError(f"method {name!r} is unknown; choose from {', '.join(known)}{also}")
        if name not in possible:
            needed = "--orm" if name == "best_of_n_orm" else "--prm"
            raise ValueError(f"method {name} needs a trained verifier: give one by {needed}=DIR")
        single = name in (GREEDY, *ONE_RESPONSE)
        if single == bool(at) or (at and not (budget.isdecimal() and int(budget) > 0)):
            form = name if single else f"{name}@N, N being a number of responses"
            raise ValueError(f"method {text!r}: write {form}")
        methods.append(Method(name, int(budget or 1)))
    if not methods:
        raise ValueError("there are no methods: give some, such as greedy,majority@16")
    return list(dict.fromkeys(methods))


def _entries(model: Any, settings: Settings | None, prm: Any, orm: Any, **verifiers: Any) -> dict:
    """Returns the methods of `reasoning.search.methods` for a model; without one, their names."""
    known: dict[str, Any] = {"certainty": None, "oracle": None, **verifiers}
    return method_entries(
        prm or None,
        orm or None,
        certainty=known["certainty"],
        oracle=known["oracle"],
        plain=model.template if model else str,
        aggregation=settings.aggregation if settings else "last",
        wait=settings.wait if settings else "Wait",
    )


def check(
    models: Sequence[LocalModel | ServerModel],
    tasks: Mapping[str, tuple[Task, Sequence[Problem]]],
    methods: Sequence[Method],
    max_new_tokens: int,
) -> None:
    """Raises `ValueError` for anything that would stop the evaluation later."""
    for model in models:
        for method in methods:
            if not model.continues and method.name not in _OF_WHOLE_RESPONSES:
                raise ValueError(
                    f"{method.name} continues responses, which a server's chat interface cannot"
                    f" do: give --template=plain, or choose from {', '.join(_OF_WHOLE_RESPONSES)}"
                )
            if method.name == "best_of_n_certainty" and isinstance(model, ServerModel):
                raise ValueError(
                    f"{method.name} needs the model's weights, which a server keeps: leave it out"
                )
        for _, problems in tasks.values():
            model.check_prompts([model.template(p.question) for p in problems], max_new_tokens)


def evaluate(
    model: LocalModel | ServerModel,
    tasks: Mapping[str, tuple[Task, Sequence[Problem]]],
    methods: Sequence[Method],
    settings: Settings,
    directory: Path,
    load_verifiers: Callable[[Any], Mapping[str, Verifier | None]],
    should_stop: Callable[[], bool],
) -> list[dict[str, Any]] | None:
    """Answers every problem by every method; answers in the logs are not asked for again.

    Args:
      model: the model to ask.
      tasks: spec -> the task and its problems.
      methods: the methods to answer by.
      settings: how to draw responses.
      directory: has a folder for the model with a log for each task and method.
      load_verifiers: the model's tokenizer -> `{"prm": ..., "orm": ...}`; each may be None.
      should_stop: called between batches.

    Returns:
      One record for each task and method, as in `report.json`; None if `should_stop` stopped it.
    """
    folder = directory / _file_name(model.name)
    total = len(methods) * sum(len(problems) for _, problems in tasks.values())
    with contextlib.ExitStack() as stack:
        logs = {}
        for spec, method in ((spec, method) for spec in tasks for method in methods):
            path = folder / _file_name(spec) / f"{method}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            known = _log_settings(model, spec, len(tasks[spec][1]), method, settings)
            logs[spec, method] = stack.enter_context(ResponseLog(path, known))
        done = sum(len(log.keys) for log in logs.values())
        if done < total:
            progress = Progress(model.name, total, done)
            stack.callback(progress.close)
            questions = [p.question for _, problems in tasks.values() for p in problems]
            opened = stack.enter_context(model.open(settings.rows, questions))
            verifiers = load_verifiers(opened.tokenizer)
            for spec, (task, problems) in tasks.items():
                policy = Policy(
                    generator=opened.generator, steps=opened.steps, task=task,
                    template=model.template, max_new_tokens=settings.max_new_tokens,
                    step_tokens=settings.step_tokens, typical_tokens=settings.typical_tokens,
                    delimiter=settings.delimiter, sampling=settings.sampling,
                    model=opened.config, rows=settings.rows,
                )  # fmt: skip
                of_task = {method: logs[spec, method] for method in methods}
                entries = _entries(
                    model, settings, **verifiers, certainty=opened.certainty,
                    oracle=RuleVerifier(task),
                )  # fmt: skip
                for answered in _answer(policy, entries, problems, of_task, settings):
                    done += answered
                    progress.update(done, {})
                    if should_stop():
                        return None
        return [
            {"model": model.name, "task": spec, "method": method.name, "budget": method.budget}
            | _summary(list(log))
            for (spec, method), log in logs.items()
        ]


def _answer(policy, entries, problems, logs, settings):
    """Answers the problems that the logs lack, batch by batch; yields the number of answers."""
    sharing = [m.budget for m in logs if m.name in _SHARING or m.name.startswith("best_of_n")]
    size = max(sharing, default=1)
    count = max(1, _FILLS * settings.rows // size)
    for number, first in enumerate(range(0, len(problems), count)):
        keys = [str(i) for i in range(first, min(first + count, len(problems)))]
        batch = problems[first : first + count]
        # The methods of a batch share its samples, which are then forgotten.
        seed = fold_seed(settings.seed, "eval", number)
        shared, banked = bank(policy, entries, size, batch, seed)
        for method, log in logs.items():
            if not (missing := [key for key in keys if key not in log.keys]):
                continue
            # A batch that a kill has cut is drawn again as a whole, since draws depend on the
            # place in the batch.
            records = _run(method, banked, shared, batch, seed)
            for key, record in zip(keys, records, strict=True):
                if key in missing:
                    log.append({"key": key} | record)
            yield len(missing)


def _run(
    method: Method, entries: Mapping[str, Entry], policy: Policy, problems, seed: int
) -> list[dict[str, Any]]:
    """Returns a record for each problem: the answers, their verdicts and reasons, and the cost."""
    if method.name in (GREEDY, SAMPLED):
        prompts = [policy.template(problem.question) for problem in problems]
        meters = interface.meters(policy, None, interface.prompt_lengths(policy, prompts))
        sampling = SamplingParams(temperature=0.0) if method.name == GREEDY else policy.sampling
        groups = interface.sample(
            policy, prompts, method.budget, meters, seed=seed, sampling=sampling
        )
        found = [[interface.candidate(policy, each) for each in group] for group in groups]
        spent = [meter.spent for meter in meters]
    else:
        entry = entries[method.name]
        results = entry.method(policy, entry.verifier, problems, method.budget, seed=seed)
        found = [[_chosen(result)] for result in results]
        spent = [result.spent for result in results]
    flat = [(problem, each) for problem, group in zip(problems, found) for each in group]
    verdicts = policy.task.verify_all(
        [problem for problem, _ in flat], [each.answer or "" for _, each in flat]
    )
    graded = iter(
        {
            "response": each.response,
            "answer": each.answer,
            "correct": bool(verdict.correct),
            "reason": verdict.reason if each.answer else "no answer found in the response",
            "well_formed": parse_response(each.response).well_formed,
            "complete": each.complete,
            "tokens": each.tokens,
        }
        for (_, each), verdict in zip(flat, verdicts, strict=True)
    )
    return [
        {
            "question": problem.question,
            "reference": problem.answer,
            "samples": [next(graded) for _ in group],
            "spent": dataclasses.asdict(cost),
        }
        for problem, group, cost in zip(problems, found, spent, strict=True)
    ]


def _chosen(result: interface.SearchResult) -> Candidate:
    """Returns the answer of a search with the response that holds it."""
    for candidate in result.candidates:
        if candidate.response == result.response:
            return dataclasses.replace(candidate, answer=result.answer)
    return Candidate(result.response, result.answer, None, 0, False)


def _summary(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the figures of one method on one task, with the problem as the unit of chance."""

    def share(field: str) -> dict[str, Any]:
        return shares_with_ci([np.mean([s[field] for s in r["samples"]]) for r in records])

    spent = {
        name: float(np.mean([record["spent"][name] for record in records]))
        for name in records[0]["spent"]
    }
    return {
        "accuracy": share("correct"),
        "format": share("well_formed"),
        "complete": share("complete"),
        "tokens": spent.pop("generated_tokens"),
        **spent,
    }


def _log_settings(model, spec: str, problems: int, method: Method, settings: Settings) -> dict:
    """Returns the settings that the responses in a log depend on."""
    known = dataclasses.asdict(settings)
    return known | {
        "model": model.name, "weights": model.version, "template": model.template_name,
        "task": spec, "problems": problems, "method": str(method),
    }  # fmt: skip


def write_graded(directory: Path, path: Path) -> int:
    """Writes every graded response of the logs into one file; returns their number.

    A line has the task's `question` and `answer`, as `launch.run_grade` reads them, the `response`,
    the answer `found` in it, `correct` and `reason`.
    """
    lines = []
    for log in sorted(directory.rglob("*.jsonl")):
        header, *records = map(json.loads, log.read_text(encoding="utf-8").splitlines())
        named = {name: header["settings"][name] for name in ("model", "task", "method")}
        for record in records:
            asked = {"question": record["question"], "answer": record["reference"]}
            for sample in record["samples"]:
                found = dict(sample)
                lines.append(named | asked | {"found": found.pop("answer")} | found)
    write_jsonl(path, lines)
    return len(lines)


def print_table(records: Sequence[Mapping[str, Any]]) -> None:
    """Prints accuracy with its interval, format and tokens of every model, task and method."""
    table = Table(
        "model", "task", "method", "accuracy (%)", "format (%)", "ended (%)", "tokens", "n",
        title="mean [95 % interval over problems]; tokens are generated ones a problem",
    )  # fmt: skip
    for record in records:
        figures = [format_figure(record[n], True) for n in ("accuracy", "format", "complete")]
        table.add_row(
            record["model"], record["task"], str(Method(record["method"], record["budget"])),
            *figures, f"{record['tokens']:.0f}", str(record["accuracy"]["n"]),
        )  # fmt: skip
    Console(width=150).print(table, markup=False)


def _file_name(text: str) -> str:
    """Makes a file name from any text; different texts give different names."""
    plain = re.sub(r"[^\w.=-]+", "_", text).strip("._") or "model"
    return f"{plain[-60:]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
