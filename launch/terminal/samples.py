"""Shows how the answers to a few held-out problems change while RL trains."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from launch.parts.stages import Workspace, evaluation_problems
from launch.schema.rl import Reinforcement
from models import processes
from models.decoding.sampling import SamplingParams
from models.files import salvage_jsonl, write_jsonl
from reasoning.evaluation import Graded, grade
from reasoning.problem import Problem
from reasoning.prompts import get_template
from reasoning.tasks import Task

FILE = "watched.jsonl"
# The first test problem of so many domains is watched, of those whose answers can be checked.
DOMAINS = 2
# Characters of a response that a line shows.
SHOWN = 150


class Watched:
    """Answers the same held-out problems again and again, prints and keeps the answers.

    Every call samples a group of responses to each problem, with the same draws, by the program
    that RL has compiled for its rollouts. It prints the first of them, and how many are right.
    """

    def __init__(self, work: Workspace, config: Reinforcement, directory: Path):
        """Chooses the problems.

        Args:
          work: the run.
          config: the settings of RL, which say how to sample.
          directory: the folder of the training; `watched.jsonl` in it gets the answers.
        """
        self._work, self._config, self._path = work, config, directory / FILE
        found = evaluation_problems(work.config.evaluation, work.seed)
        checkable = [
            (domain, task, problems[0])
            for domain, (task, problems) in found.items()
            if problems and task.figure == "pass@1"
        ]
        checkable.sort(key=lambda each: each[0] != "math")
        self._problems: list[tuple[str, Task, Problem]] = checkable[:DOMAINS]

    def __call__(self, step: int, params: Any) -> None:
        """Answers the problems with the parameters that RL has after `step` updates."""
        if not self._problems:
            return
        config, template = self._config, get_template(
            self._work.config.template, self._work.tokenizer
        )  # fmt: skip
        prompts = [template(problem.question) for *_, problem in self._problems]
        generator = self._work.generator(config.sampler_rows)
        with generator.holding(params), jax.set_mesh(self._work.mesh):
            samples = generator.generate(
                prompts,
                num_samples=config.group,
                max_new_tokens=config.max_new_tokens,
                sampling=SamplingParams(temperature=config.temperature),
                seed=self._work.seed,
            )
        known = salvage_jsonl(self._path)[0] if self._path.exists() else []
        kept = [each for each in known if each["step"] < step]
        for (domain, task, problem), prompt, group in zip(
            self._problems, prompts, samples, strict=True
        ):
            (graded,) = grade(task, [problem], [prompt], [group])
            record = _record(step, domain, graded)
            before = [each for each in kept if each["question"] == record["question"]]
            for line in told(record, before):
                print(line, flush=True)
            kept.append(record)
        if processes.is_main():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_jsonl(self._path, kept)

    def begin(self, params: Any) -> None:
        """Answers the problems before the first update, unless an earlier run has done so."""
        if not processes.from_main(self._path.exists()):
            self(0, params)


def told(record: dict[str, Any], before: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the lines that show a record; none if nothing has changed.

    Args:
      record: a line of `watched.jsonl`.
      before: earlier records of the same problem.
    """
    count = f"{record['right']} of {record['sampled']} right"
    if before and all(before[-1][name] == record[name] for name in ("response", "right")):
        return []
    lines = []
    if not before:
        question = f"{_short(record['question'])} (answer: {record['answer']})"
        lines.append(f"watching {record['domain']}: {question}")
    verdict = "right" if record["correct"] else "wrong"
    response = json.dumps(_short(record["response"]), ensure_ascii=False)
    step = f"  {record['domain']}, step {record['step']}"
    lines.append(f"{step}: {count}; one of them, {verdict}: {response}")
    return lines


def _record(step: int, domain: str, graded: Sequence[Graded]) -> dict[str, Any]:
    first = graded[0]
    return {
        "step": step,
        "domain": domain,
        "question": first.problem.question,
        "answer": first.problem.answer,
        "response": first.completion.text,
        "correct": first.verdict.correct,
        "reason": first.verdict.reason,
        "right": sum(each.verdict.correct for each in graded),
        "sampled": len(graded),
    }


def _short(text: str) -> str:
    """Returns a text on one line, without its middle if it is long."""
    text = " ".join(text.split())
    half = SHOWN // 2 - 2
    return text if len(text) <= SHOWN else f"{text[:half]} … {text[-half:]}"
