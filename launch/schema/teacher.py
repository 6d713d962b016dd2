"""The schema of a collection of data from a teacher: `launch.run_teacher`."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from launch.schema.fields import Recipe, Section, Setting
from launch.schema.sections import (
    MaxNewTokens,
    SamplerRows,
    Seed,
    Temperature,
    Template,
    check_checkpoint,
    check_task,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherSource(Section):
    """The teacher: a server or a checkpoint."""

    server: Annotated[str, Setting("URL of a server with OpenAI's interface", empty=True)]
    model: Annotated[str, Setting("name of the model on the server", empty=True)]
    api_key_env: Annotated[
        str, Setting("environment variable that holds the API key; '' sends no key", empty=True)
    ]
    prices: Annotated[str, Setting("JSON file of prices per million tokens", empty=True)]
    max_cost: Annotated[
        float | None,
        Setting("most that may be spent; None sets no limit", unit="as prices", least=0),
    ]
    requests_per_minute: Annotated[int | None, Setting("most requests per minute", least=1)]
    tokens_per_minute: Annotated[
        int | None, Setting("most tokens per minute", unit="tokens", least=1)
    ]
    concurrency: Annotated[int, Setting("requests in flight", least=1, most=4096)]
    timeout_s: Annotated[float, Setting("time limit of one attempt", unit="seconds", above=0)]
    attempts: Annotated[int, Setting("attempts per request", least=1)]
    checkpoint: Annotated[
        str, Setting("checkpoint: a folder, hf://org/name, gguf:FILE or pip:PACKAGE", empty=True)
    ]
    rows: SamplerRows

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        if bool(self.server) == bool(self.checkpoint):
            yield "server", "give one of teacher.server=URL and teacher.checkpoint=DIR"
        if self.server and not self.server.startswith(("http://", "https://")):
            yield "server", "must begin with http:// or https://"
        if self.server and not self.model:
            yield "model", "must name the server's model"
        if self.max_cost is not None and not self.prices:
            yield "max_cost", "needs prices, a JSON file"
        if self.prices and not Path(self.prices).expanduser().is_file():
            yield "prices", "no such file"
        yield from check_checkpoint("checkpoint", self.checkpoint)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherConfig(Recipe):
    """A config of `launch.run_teacher`."""

    entry_point = "launch.run_teacher"
    example = "configs/teacher.py"

    seed: Seed
    task: Annotated[str, Setting("task whose problems are asked, such as gsm8k", empty=True)]
    prompts: Annotated[str, Setting("instead of task: a JSONL file of prompts", empty=True)]
    problems: Annotated[
        int | None, Setting("problems to draw at random; None takes all", unit="problems", least=1)
    ]
    template: Template
    form: Annotated[
        str,
        Setting(
            "required form of a response",
            choices="reasoning.training_data.teacher_data:FORMS",
        ),
    ]
    num_samples: Annotated[int, Setting("responses sampled for each problem", least=1)]
    max_new_tokens: MaxNewTokens
    temperature: Temperature
    top_p: Annotated[
        float, Setting("nucleus (top-p) sampling; 1 samples from all tokens", above=0, most=1)
    ]
    teacher: TeacherSource

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        if bool(self.task) == bool(self.prompts):
            yield "task", "give one of task=SPEC and prompts=FILE"
        if self.task:
            yield from check_task("task", self.task)
        if self.prompts and not Path(self.prompts).expanduser().is_file():
            yield "prompts", "no such file"
