"""Labels the steps of sampled solutions by rollouts from each step, without human annotators.

Math-Shepherd (arXiv:2312.08935, section 3.3) rates a step by what can still be made of it. From the
prefix that ends with the step, K completions are sampled. The soft label is the share of them that
reach the right answer; the hard label is 1 if any does. Nothing follows the last step, so its label
is the verdict on the solution itself.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from models.decoding.sampling import SamplingParams
from models.files import read_json
from models.seeds import derive_seed
from reasoning.generation.generator import Completion
from reasoning.generation.jax_generator import JaxGenerator
from reasoning.generation.step_splitter import StepSplitter
from reasoning.jsonl import read_jsonl, write_jsonl
from reasoning.problem import Problem
from reasoning.prompts import PromptTemplate
from reasoning.response import opened_by
from reasoning.tasks import Task

SETTINGS_FILE = "settings.json"


@dataclasses.dataclass(frozen=True)
class LabelSettings:
    """How solutions are sampled and labelled.

    Attributes:
      solutions: the number of solutions sampled for each problem.
      completions: K, the number of completions sampled from each distinct prefix.
      max_new_tokens: the length limit of a whole response; a completion may use what its prefix
        leaves.
      temperature: the sampling temperature of solutions. Above the policy's usual one, they fail in
        more ways.
      completion_temperature: the sampling temperature of completions; None takes that of solutions.
        If the policy mostly finishes right what began right, a low temperature separates right
        steps from wrong ones with few completions. At 0, one completion is enough.
      delimiter: the text that ends a step, see `StepSplitter`.
      chunk: the number of problems that are labelled and saved together.
      seed: decides every random draw.

    Raises:
      ValueError: a number is out of range, or completions at temperature 0 would be equal.
    """

    solutions: int
    completions: int
    max_new_tokens: int
    temperature: float = 1.0
    completion_temperature: float | None = None
    delimiter: str = "\n"
    chunk: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("solutions", "completions", "max_new_tokens", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: give at least 1")
        if not self.temperature > 0:
            raise ValueError(
                f"temperature={self.temperature}: give more than 0, because solutions must differ"
            )
        if self.completion_temperature == 0 and self.completions > 1:
            raise ValueError(
                f"completions={self.completions} would be equal at completion_temperature=0: set"
                " completions=1, or set the temperature above 0"
            )


@dataclasses.dataclass(frozen=True)
class LabelledSolution:
    """A sampled solution with a label for each step, and the tokens that its labels cost.

    Attributes:
      question, prompt: the question of the problem, without and with the template.
      token_ids: the tokens of the response, with the end-of-sequence token if it was sampled.
      step_ends: indices into `token_ids` of the tokens that end a step.
      labels: the soft label of each step; all except the last are multiples of 1 / K.
      correct: the verdict on the solution itself.
      generated_tokens: the tokens generated for this solution and for the completions of its
        prefixes. A prefix that several solutions of a problem share counts for the first of them,
        so the sum over solutions is the whole cost.
      prefill_tokens: the tokens of prompts and prefixes, counted in the same way; each is prefilled
        once for all its samples.
    """

    question: str
    prompt: str
    token_ids: list[int]
    step_ends: list[int]
    labels: list[float]
    correct: bool
    generated_tokens: int
    prefill_tokens: int


def hard_labels(labels: Sequence[float]) -> list[float]:
    """Converts soft labels to hard ones: 1 if any completion was right, else 0."""
    return [float(label > 0) for label in labels]


def label_steps(
    generator: JaxGenerator,
    task: Task,
    problems: Sequence[Problem],
    template: PromptTemplate,
    settings: LabelSettings,
    directory: str | Path,
    told: Callable[[int], None] = lambda labelled: None,
) -> list[LabelledSolution]:
    """Samples solutions of the problems and labels their steps. An interrupted run can be resumed.

    Args:
      generator: samples the solutions, and the completions from token ids.
      task: verifies the answers.
      problems: the problems to solve.
      template: makes a prompt from a question.
      settings: how to sample and label.
      directory: gets one JSONL file per chunk; a file exists only if it is complete. The same
        arguments give the same files.
      told: is called with the number of problems that are labelled, after each chunk.

    Returns:
      `settings.solutions` solutions of every problem, in order.

    Raises:
      ValueError: there are no problems, or the directory has labels of other settings or problems.
    """
    if not problems:
        raise ValueError("there are no problems to label: check the task and its split")
    directory, prompts = Path(directory), [template(problem.question) for problem in problems]
    _claim(directory, settings, task, prompts)
    splitter = StepSplitter(generator.tokenizer, settings.delimiter)
    labelled = []
    for number, start in enumerate(range(0, len(problems), settings.chunk)):
        path, members = directory / f"{number:05d}.jsonl", slice(start, start + settings.chunk)
        if not path.exists():
            chunk = _label_chunk(
                generator, task, problems[members], prompts[members], splitter, settings, number
            )
            write_jsonl(path, map(dataclasses.asdict, chunk))
        labelled += [LabelledSolution(**record) for _, record in read_jsonl(path)]
        told(min(start + settings.chunk, len(problems)))
    return labelled


def _claim(directory: Path, settings: LabelSettings, task: Task, prompts: Sequence[str]) -> None:
    """Raises ValueError if the directory has labels of other settings, problems or tasks."""
    digest = hashlib.sha256("\0".join(prompts).encode()).hexdigest()
    wanted = dataclasses.asdict(settings) | {"task": task.name, "prompts": digest}
    path = directory / SETTINGS_FILE
    if not path.exists():
        write_jsonl(path, [wanted])
    found = read_json(path, f"remove the folder {directory} to sample its solutions again")
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise ValueError(
                f"{directory} holds step labels with {name}={found.get(name)!r}, not"
                f" {wanted.get(name)!r}: use its settings, or another directory"
            )


def _label_chunk(generator, task, problems, prompts, splitter, settings, number):
    prompt_ids = generator.tokenizer.encode_prompts(prompts)
    samples = generator.generate_from_ids(
        prompt_ids,
        num_samples=settings.solutions,
        max_new_tokens=settings.max_new_tokens,
        sampling=SamplingParams(temperature=settings.temperature),
        seed=derive_seed(settings.seed, task.name, number, "solutions"),
    )
    solutions = [(p, sample) for p, group in enumerate(samples) for sample in group]
    opened = [opened_by(prompt) for prompt in prompts]
    texts = [(problems[p], opened[p] + sample.text) for p, sample in solutions]
    verdicts = _verdicts(task, texts)
    ends = [splitter.ends(sample.token_ids) for _, sample in solutions]

    # (Problem, prefix) -> the first solution that has it. Equal prefixes are rolled out only once.
    first: dict[tuple[int, tuple[int, ...]], int] = {}
    prefixes_of = []
    for i, (p, sample) in enumerate(solutions):
        prefixes_of.append([(p, tuple(sample.token_ids[: end + 1])) for end in ends[i][:-1]])
        for prefix in prefixes_of[-1]:
            first.setdefault(prefix, i)

    shares: dict[tuple[int, tuple[int, ...]], float] = {}
    generated = [len(sample.token_ids) for _, sample in solutions]
    prefilled = [0] * len(solutions)
    for p, ids in enumerate(prompt_ids):
        prefilled[p * settings.solutions] += len(ids)
    if first:
        temperature = settings.completion_temperature
        temperature = settings.temperature if temperature is None else temperature
        completed = generator.generate_from_ids(
            [[*prompt_ids[p], *ids] for p, ids in first],
            num_samples=settings.completions,
            max_new_tokens=settings.max_new_tokens,
            limits=[settings.max_new_tokens - len(ids) for _, ids in first],
            sampling=SamplingParams(temperature=temperature),
            seed=derive_seed(settings.seed, task.name, number, "completions"),
        )
        texts = [
            (problems[p], opened[p] + _joined(generator.tokenizer, ids, completion))
            for (p, ids), group in zip(first, completed, strict=True)
            for completion in group
        ]
        wins = np.reshape(_verdicts(task, texts), (len(first), settings.completions)).mean(1)
        for (prefix, i), group, share in zip(first.items(), completed, wins, strict=True):
            shares[prefix] = float(share)
            generated[i] += sum(len(completion.token_ids) for completion in group)
            prefilled[i] += len(prompt_ids[prefix[0]]) + len(prefix[1])
    return [
        LabelledSolution(
            question=problems[p].question,
            prompt=prompts[p],
            token_ids=sample.token_ids,
            step_ends=ends[i],
            labels=[*(shares[prefix] for prefix in prefixes_of[i]), float(verdicts[i])],
            correct=verdicts[i],
            generated_tokens=generated[i],
            prefill_tokens=prefilled[i],
        )
        for i, (p, sample) in enumerate(solutions)
    ]


def _verdicts(task: Task, responses: Sequence[tuple[Problem, str]]) -> list[bool]:
    """Says whether each response is right. Equal answers to a problem are verified only once."""
    keys = [(problem.question, task.extract(text) or "") for problem, text in responses]
    distinct = {key: problem for key, (problem, _) in zip(keys, responses)}
    verdicts = task.verify_all(list(distinct.values()), [answer for _, answer in distinct])
    by_key = dict(zip(distinct, verdicts, strict=True))
    return [bool(by_key[key].correct) for key in keys]


def _joined(tokenizer, prefix: Sequence[int], completion: Completion) -> str:
    """Decodes a prefix and its completion together, since a character may lie across the cut."""
    ids = [*prefix, *completion.token_ids]
    return tokenizer.decode(ids[:-1] if completion.finish == "stop" else ids)
