"""A teacher's responses: asked for, kept, and turned into what a student is trained on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from launch import flops, stages
from launch.stages import Workspace
from models.sampler import SamplingParams
from reasoning import teacher_data
from reasoning.problem import Problem
from reasoning.prompts import get_template
from reasoning.response_log import ResponseLog
from train.data import Example, encode_records, read_jsonl

DATA_FILE = "data.jsonl"
# Prompts whose answers a kill may lose.
BATCH = 1024


def write(
    teacher: Workspace, params: Any, problems: Sequence[Problem], config: Any, directory: Path
) -> float:
    """Asks the teacher, and writes those of its responses that it is to be imitated in.

    What was answered before is not asked again. Leaves `responses.jsonl`, all of them, and
    `data.jsonl`; see `reasoning.teacher_data`.

    Args:
      config: samples (of each problem), max_new_tokens, temperature, sampler_rows, and form.

    Returns:
      FLOPs of sampling, of what was not kept too.

    Raises:
      ValueError: no response is worth keeping.
    """
    template = get_template(teacher.config.template, teacher.tokenizer)
    items = teacher_data.make_items(problems, template)
    stages.check_prompts(teacher, [item.prompt for item in items], config.max_new_tokens)
    settings = {name: config[name] for name in ("samples", "max_new_tokens", "temperature")}
    generator = teacher.generator(config.sampler_rows)
    generator.params = params
    with (
        ResponseLog(directory / "responses.jsonl", settings | {"seed": teacher.seed}) as log,
        jax.set_mesh(teacher.mesh),
    ):
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
        generator.params = None
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
    lengths = [len(ids) for ids in teacher.tokenizer.encode_batch([i.prompt for i in items])]
    return flops.sampling(
        teacher.model.config, lengths, np.array([drawn[item.key] for item in items])
    )


def read(work: Workspace, path: Path) -> list[Example]:
    """Question and answer of each record, in the template and the tokens of `work`.

    Records are those of `write`, or of `launch.run_teacher`. They are shuffled, so that a share of
    them is like all of them.

    Raises:
      FileNotFoundError, ValueError: in one line that names the file, or file and line.
    """
    template = get_template(work.config.template, work.tokenizer)
    pairs, wheres = [], []
    for where, record in read_jsonl(path):
        try:
            *before, user, assistant = record["messages"]
            roles = [each["role"] for each in (*before, user, assistant)]
            question, answer = user["content"], assistant["content"]
        except (TypeError, KeyError, ValueError):
            roles = []
        if roles not in (["user", "assistant"], ["system", "user", "assistant"]):
            raise ValueError(
                f"{where}: needs 'messages' of one user and one assistant, with 'role' and 'content'"
            )
        prompt = template(question)
        # As a sampled response goes on behind the prompt.
        space = "" if prompt[-1].isspace() else " "
        pairs.append({"prompt": prompt, "response": space + answer})
        wheres.append(where)
    order = np.random.default_rng([work.seed, len(pairs)]).permutation(len(pairs))
    return encode_records(
        [pairs[i] for i in order],
        work.tokenizer,
        add_special_tokens=False,
        wheres=[wheres[i] for i in order],
    )
