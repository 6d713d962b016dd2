"""Training records from the worked solutions that come with a task's problems, such as GSM8K's."""

from collections.abc import Mapping
from typing import Any

from models.tokens.tokenizer import Tokenizer
from reasoning.prompts import get_template
from reasoning.response import opened_by, tagged, without_opening
from reasoning.tasks import Task

# Templates that ask for the R1 format.
TAGGED = ("r1_zero", "chat_r1")
# The template that asks for the answer alone.
DIRECT = "chat_direct"


def worked_records(
    task: Task, template: str, tokenizer: Tokenizer | None
) -> list[Mapping[str, Any]]:
    """Returns `{"prompt", "response"}` for every training problem that has a worked solution.

    The response is the chain, and then "The answer is ...". Under a template that asks for the R1
    format, or opens its tags, chain and answer are in tags; under one that asks for the answer
    alone, there is no chain.

    Args:
      task: the task.
      template: name of the prompt template; see `reasoning.prompts`.
      tokenizer: the model's tokenizer, whose chat template the prompt may need.

    Raises:
      ValueError: no problem has a worked solution.
    """
    make_prompt, name = get_template(template, tokenizer), template.partition("?")[0]
    records: list[Mapping[str, Any]] = []
    for problem in task.problems("train", None, seed=0):
        solution = task.worked_solution(problem)
        if solution is None or not solution[0]:
            continue
        (steps, answer), prompt = solution, make_prompt(problem.question)
        if name in TAGGED or opened_by(prompt):
            response = without_opening(prompt, tagged(steps, answer))
        else:
            chain = [] if name == DIRECT else steps
            response = "\n".join([*chain, f"The answer is {answer}."])
        records.append({"prompt": prompt, "response": response})
    if not records:
        raise ValueError(f"task {task.name!r} has no worked solutions to train on")
    return records
