"""Chooses sampled responses to show side by side, and builds the tree of a search."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from launch.report.sources import Run

# Questions shown of the evaluations, stages beside each other, samples of a training.
QUESTIONS, COLUMNS, TRAINING_SAMPLES = 6, 4, 2
# A longer response is cut here; the page says where the whole one is.
LONGEST = 2400
MOST_PATHS = 24


@dataclasses.dataclass(frozen=True)
class Answer:
    """A response with its verdict.

    Attributes:
      label: where it comes from, such as a stage.
      text: the response.
      correct: the verdict, if it was graded.
      verdicts: the reason, reward or score, in words.
      prompt: the prompt, if the responses of a card answer different ones.
    """

    label: str
    text: str
    correct: bool | None
    verdicts: Sequence[str]
    prompt: str = ""


@dataclasses.dataclass(frozen=True)
class Card:
    """A question with its reference answer, and responses to it beside each other."""

    question: str
    reference: str
    answers: Sequence[Answer]


@dataclasses.dataclass
class Node:
    """A step of a search tree, with the steps that follow it.

    Attributes:
      text: the step.
      paths: finished paths through it.
      score: the best score among them, if they have scores.
      chosen: whether the chosen path goes through it.
      answer: the answer of the path that ends here.
      children: the next steps.
    """

    text: str
    paths: int = 0
    score: float | None = None
    chosen: bool = False
    answer: str | None = None
    children: list["Node"] = dataclasses.field(default_factory=list)


def graded_cards(run: Run) -> list[Card]:
    """Returns questions that several stages (or models and methods) answered, before and after.

    Questions on which the verdicts differ come first, and tasks take turns.
    """
    stages = list(run.graded)
    if len(stages) > COLUMNS:
        stages = [*stages[:1], *stages[-(COLUMNS - 1) :]]
    answers: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for stage in stages:
        for record in run.graded[stage]:
            key = (str(record.get("task")), str(record.get("question")))
            answers.setdefault(key, {}).setdefault(stage, record)
    most = max((len(each) for each in answers.values()), default=0)
    whole = [(key, each) for key, each in answers.items() if len(each) == most]

    def changes(each):
        return len({bool(record.get("correct")) for record in each.values()}) > 1

    turns: dict[str, int] = {}
    ranked = []
    for (task, question), each in sorted(whole, key=lambda pair: not changes(pair[1])):
        turns[task] = turns.get(task, 0) + 1
        ranked.append((turns[task], len(ranked), task, question, each))
    cards = []
    for _, _, task, question, each in sorted(ranked, key=lambda r: r[:2])[:QUESTIONS]:
        first = next(iter(each.values()))
        shown = [
            Answer(
                stage,
                _cut(record.get("response")),
                bool(record.get("correct")),
                [str(record.get("reason") or "no reason given"), f"{record.get('tokens')} tokens"],
            )
            for stage, record in each.items()
        ]
        cards.append(Card(f"{task}: {question}", str(first.get("answer", "")), shown))
    return cards


def training_cards(run: Run) -> list[tuple[str, list[Card]]]:
    """Returns samples of the first and of the last steps of each training by RL."""
    found = []
    for training in run.trainings:
        steps = [each.get("step") for each in training.samples]
        if not steps:
            continue
        columns = list(dict.fromkeys((steps[0], steps[-1])))
        pools = [[s for s in training.samples if s.get("step") == step] for step in columns]
        cards = []
        for row in list(zip(*pools))[:TRAINING_SAMPLES]:
            prompts = {str(each.get("prompt")) for each in row}
            same = len(prompts) == 1
            title = prompts.pop() if same else "One prompt of each step"
            shown = [_rewarded(each, not same) for each in row]
            cards.append(Card(title, str(row[0].get("answer", "")) if same else "", shown))
        label = training.stage + (f", {training.seed}" if training.seed else "")
        if cards and training.seed in ("", run.trainings[0].seed):
            found.append((label, cards))
    return found


def search_trees(run: Run) -> list[tuple[str, str, str, list[Node]]]:
    """Returns (method, question, reference, tree) of a problem for each method that kept paths.

    All methods show the same problem, if they kept it: the first one.
    """
    found = []
    for method, records in run.found.items():
        for record in records:
            if record.get("paths"):
                question, answer = str(record.get("question")), str(record.get("reference"))
                found.append((method, question, answer, tree(record["paths"])))
                break
    return found


def tree(paths: Sequence[Mapping[str, Any]]) -> list[Node]:
    """Joins finished paths to a tree: equal beginnings are one branch.

    Args:
      paths: `{"steps", "answer", "score", "chosen"}` each. Only the first `MOST_PATHS` are drawn,
        and the chosen one.
    """
    kept = [p for i, p in enumerate(paths) if i < MOST_PATHS or p.get("chosen")]
    root = Node("")
    for path in kept:
        node = root
        for step in path.get("steps") or ["(nothing)"]:
            child = next((c for c in node.children if c.text == step), None)
            if child is None:
                child = Node(step)
                node.children.append(child)
            node = child
            score = path.get("score")
            if score is not None and (node.score is None or score > node.score):
                node.score = score
            node.paths += 1
            node.chosen = node.chosen or bool(path.get("chosen"))
        node.answer = path.get("answer")
    for child in root.children:
        _join(child)
    return root.children


def _join(node: Node) -> None:
    """Joins steps that no other path leaves to one node, down the whole tree."""
    while len(node.children) == 1 and node.answer is None:
        child = node.children[0]
        if child.paths != node.paths:
            break
        node.text = f"{node.text}\n{child.text}"
        node.answer, node.score, node.children = child.answer, child.score, child.children
    for child in node.children:
        _join(child)


def _rewarded(sample: Mapping[str, Any], with_prompt: bool) -> Answer:
    reasons = sample.get("reasons") or {}
    verdicts = [f"{name}: {reason}" for name, reason in reasons.items()]
    if sample.get("reward") is not None:
        verdicts.insert(0, f"reward {sample['reward']:.3g}")
    prompt = _cut(sample.get("prompt")) if with_prompt else ""
    label, text = f"step {sample.get('step')}", _cut(sample.get("response"))
    return Answer(label, text, None, verdicts, prompt)


def _cut(text: Any) -> str:
    text = str(text or "")
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}… ({len(text) - LONGEST} more characters)"
