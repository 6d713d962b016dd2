"""Training records from the worked solutions that come with a task's problems, such as GSM8K's."""

from collections.abc import Mapping
from typing import Any

from models.tokens.tokenizer import Tokenizer
from reasoning.prompts import get_template
from reasoning.response import tagged
from reasoning.tasks import Task

# Templates that ask for the R1 format.
TAGGED = ("r1_zero", "chat_r1")


def worked_records(
    task: Task, template: str, tokenizer: Tokenizer | None
) -> list[Mapping[str, Any]]:
    """Returns `{"prompt", "response"}` for every training problem that has a worked solution.

    The response ends with "The answer is ..."; under a template that asks for the R1 format, chain
    and answer are in their tags.

    Args:
      task: the task.
      template: name of the prompt template; see `reasoning.prompts`.
      tokenizer: the model's tokenizer, whose chat template the prompt may need.

    Raises:
      ValueError: no problem has a worked solution.
    """
    prompt, in_tags = get_template(template, tokenizer), template.partition("?")[0] in TAGGED
    records: list[Mapping[str, Any]] = []
    for problem in task.problems("train", None, seed=0):
        solution = task.worked_solution(problem)
        if solution is None:
            continue
        steps, answer = solution
        plain = "\n".join([*steps, f"The answer is {answer}."])
        response = tagged(steps, answer) if in_tags else plain
        records.append({"prompt": prompt(problem.question), "response": response})
    if not records:
        raise ValueError(f"task {task.name!r} has no worked solutions to train on")
    return records
