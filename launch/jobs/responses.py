"""Asks a teacher for responses, keeps them, and turns them into a student's training data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from launch.parts import flops, stages
from launch.parts.stages import Workspace
from launch.schema.distill import TeacherResponses
from models.decoding.sampling import SamplingParams
from reasoning.problem import Problem
from reasoning.prompts import get_template
from reasoning.response import without_opening
from reasoning.server_client.response_log import ResponseLog
from reasoning.training_data import distillation_data, teacher_data
from reasoning.training_data.curation import Decontaminator
from train.data import Example, encode_records, read_records

DATA_FILE = "data.jsonl"
# Prompts that are asked at a time: a kill loses at most their answers.
BATCH = 1024


def write(
    teacher: Workspace,
    params: Any,
    problems: Sequence[Problem],
    config: TeacherResponses,
    directory: Path,
) -> float:
    """Asks the teacher, and writes its responses and the training data made of them.

    Problems that were answered before are not asked again. The directory gets `responses.jsonl`,
    with all responses, and `data.jsonl`, with those that a student may imitate; see
    `reasoning.training_data.teacher_data`.

    Args:
      teacher: the teacher's workspace.
      params: the teacher's parameters.
      problems: the problems to ask.
      config: samples (of each problem), max_new_tokens, temperature, sampler_rows, and form.
      directory: where the files go.

    Returns:
      The FLOPs of sampling, those of discarded responses included.

    Raises:
      ValueError: no response can be imitated.
    """
    template = get_template(teacher.config.template, teacher.tokenizer)
    items = teacher_data.make_items(problems, template)
    prompts = [str(item.prompt) for item in items]  # The template makes text, not messages.
    stages.check_prompts(teacher, prompts, config.max_new_tokens)
    settings = {
        name: getattr(config, name) for name in ("samples", "max_new_tokens", "temperature")
    }
    generator = teacher.generator(config.sampler_rows)
    with (
        ResponseLog(directory / "responses.jsonl", settings | {"seed": teacher.seed}) as log,
        jax.set_mesh(teacher.mesh),
    ):
        with generator.holding(params):
            teacher_data.collect(
                generator,
                log,
                items,
                num_samples=config.samples,
                max_new_tokens=config.max_new_tokens,
                sampling=SamplingParams(temperature=config.temperature),
                seed=teacher.seed,
                batch=BATCH,
            )
        summary = teacher_data.write_examples(
            directory / DATA_FILE, teacher_data.grade(log, items, config.form)
        )
        drawn = {record["key"]: [each["tokens"] for each in record["samples"]] for record in log}
    print(f"teacher: {summary['kept']} of {summary['responses']} responses kept", flush=True)
    if not summary["kept"]:
        raise ValueError(
            f"none of the teacher's {summary['responses']} responses can be imitated"
            f" ({summary['faults']}): set another data.form, or use another teacher"
        )
    lengths = [len(ids) for ids in teacher.tokenizer.encode_prompts(prompts)]
    return flops.sampling(
        teacher.model.config, lengths, np.array([drawn[item.key] for item in items])
    )


def read(work: Workspace, files: str, ngram: int | None) -> list[Example]:
    """Reads questions and answers in random order, in the template and the tokens of `work`.

    Args:
      work: the student's workspace.
      files: a JSONL file of chats, as `write` and `launch.run_teacher` make it; or several files
        with their shares of the mixture, `A.jsonl=3,B.jsonl=1`.
      ngram: leave out records that share this many words in a row with a question of the
        evaluation; None keeps all.

    Raises:
      FileNotFoundError, ValueError: the line names the file, or the file and its line.
    """
    shares = _shares(files)
    sources = {path: [_pair(where, r) for where, r in read_records(path)] for path in shares}
    records = distillation_data.mix(sources, shares, work.seed)
    if ngram is not None:
        chosen = stages.evaluation_problems(work.config.evaluation, work.seed)
        held_out = [problem.question for _, problems in chosen.values() for problem in problems]
        kept = distillation_data.clean(records, Decontaminator(held_out, ngram))
        if not kept:
            raise ValueError(
                f"all records of {files} share {ngram} words in a row with the evaluation: give"
                " other data, or raise data.ngram"
            )
        if len(kept) < len(records):
            print(f"{len(records) - len(kept)} records share words with the evaluation: left out")
        records = kept
    template = get_template(work.config.template, work.tokenizer)
    pairs = []
    for record in records:
        prompt = template(record["messages"][0]["content"])
        response = without_opening(prompt, record["messages"][1]["content"])
        # A sampled response follows its prompt in the same way.
        space = "" if prompt[-1].isspace() or response[:1].isspace() else " "
        pairs.append({"prompt": prompt, "response": space + response})
    return encode_records(pairs, work.tokenizer)


def paths(files: str) -> list[str]:
    """Returns the files of a mixture; see `read`."""
    return list(_shares(files)) if files else []


def _shares(files: str) -> dict[str, float]:
    shares = {}
    for part in files.split(","):
        path, _, share = part.rpartition("=")
        try:
            shares[path or part] = float(share) if path else 1.0
        except ValueError:
            raise ValueError(
                f"data.responses: {share!r} in {part!r} is no share: write FILE=NUMBER"
            ) from None
    return shares


def _pair(where: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the record without its system prompt; the student's template has its own."""
    try:
        messages = [each for each in record["messages"] if each["role"] != "system"]
        if [each["role"] for each in messages] == ["user", "assistant"]:
            if all(isinstance(each["content"], str) for each in messages):
                return {"messages": messages}
    except (TypeError, KeyError):
        pass
    raise ValueError(
        f"{where}: needs 'messages' of one user and one assistant, with 'role' and 'content'"
    )
