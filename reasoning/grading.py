"""Grades completions. Evaluation, rewards and `run_grade` share this one function."""

import dataclasses
from collections.abc import Callable, Sequence

from reasoning.problem import Problem, Verdict
from reasoning.response import Response, parse_response, whole_response
from reasoning.tasks import Task

# (task, problems, answers) -> verdicts
Verify = Callable[[Task, Sequence[Problem], Sequence[str]], list[Verdict]]


@dataclasses.dataclass(frozen=True)
class Grade:
    """The grade of one completion.

    Attributes:
      text: the whole response: the tags that the prompt opened, then the completion.
      response: the parsed text, and whether it has the format.
      answer: the final answer that was found, or None.
      verdict: whether the answer is right, and why.
    """

    text: str
    response: Response
    answer: str | None
    verdict: Verdict


def grade_completions(
    problems: Sequence[Problem],
    prompts: Sequence[str],
    completions: Sequence[str],
    task_of: Callable[[Problem], Task],
    *,
    require_format: bool = False,
    verify: Verify | None = None,
) -> list[Grade]:
    """Grades completions, each of one prompt for one problem.

    The tags that a prompt opened (`reasoning.response.opened_by`) belong to the response: after a
    prompt that ends in `<think>`, a completion begins inside the chain.

    Args:
      problems, prompts, completions: sequences of equal length.
      task_of: returns the task whose `extract` and `verify_all` grade a problem.
      require_format: if set, read the answer only from the answer block of a well-formed response.
        Otherwise `Task.extract` searches leniently, but never inside the think block.
      verify: replaces `Task.verify_all`, for example by a function that divides its work.
    """
    texts = [whole_response(*each) for each in zip(prompts, completions, strict=True)]
    responses = [parse_response(text) for text in texts]
    answers: list[str | None] = []
    verdicts: list[Verdict] = []
    by_task: dict[int, tuple[Task, list[int]]] = {}
    for i, (problem, text, response) in enumerate(zip(problems, texts, responses, strict=True)):
        task = task_of(problem)
        if not require_format:
            answers.append(task.extract(text))
            verdicts.append(Verdict(False, "no answer found in the response"))
        else:
            answers.append(response.answer if response.well_formed else None)
            verdicts.append(Verdict(False, f"not well formed: {response.reason}"))
        if answers[i] is not None:
            by_task.setdefault(id(task), (task, []))[1].append(i)
    for task, places in by_task.values():
        asked = [problems[i] for i in places], [answers[i] or "" for i in places]
        found = task.verify_all(*asked) if verify is None else verify(task, *asked)
        for i, verdict in zip(places, found, strict=True):
            verdicts[i] = verdict
    return [Grade(*each) for each in zip(texts, responses, answers, verdicts, strict=True)]
