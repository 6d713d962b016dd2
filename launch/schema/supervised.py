"""The schema of supervised fine-tuning: `launch.run_sft`."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from launch.schema.fields import Setting
from launch.schema.sections import (
    Dtype,
    ExportDtype,
    Lora,
    Microbatches,
    Packed,
    Remat,
    Run,
    TooLong,
    check_checkpoint,
    check_task,
)

# Data that begin so are the worked solutions of a task.
WORKED = "task:"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftConfig(Packed, Run):
    """A config of `launch.run_sft`."""

    entry_point = "launch.run_sft"
    example = "configs/sft.py"

    model: Annotated[str, Setting("checkpoint: a folder, hf://org/name, gguf:FILE or pip:PACKAGE")]
    dtype: Dtype
    export_dtype: ExportDtype = "auto"
    remat: Remat
    data: Annotated[
        str,
        Setting(
            "training data: a JSONL file, or task:SPEC, the worked solutions of a task's training"
            " problems",
            empty=True,
        ),
    ]
    num_epochs: Annotated[int, Setting("passes over the data", unit="passes", least=1)]
    microbatches: Microbatches
    lora: Lora = Lora()
    too_long: TooLong
    beyond_context: Annotated[
        bool, Setting("allow rows longer than the context that the model was trained with")
    ] = False
    task: Annotated[str, Setting("task of the evaluation; '' evaluates nothing", empty=True)]

    @property
    def data_task(self) -> str | None:
        """The task whose worked solutions are the data; None if they are a file."""
        return self.data.removeprefix(WORKED) if self.data.startswith(WORKED) else None

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        yield from super().check()
        yield from check_checkpoint("model", self.model)
        yield from self.lora.check_optimizer(self.optimizer)
        if self.data_task is not None:
            yield from check_task("data", self.data_task)
        elif self.data and not Path(self.data).expanduser().is_file():
            yield "data", "does not exist"
        if self.rows % self.microbatches:
            yield "rows", f"must divide into microbatches={self.microbatches}"
