"""The schema of the recipe on a checkpoint, such as a small published model."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated

from launch.schema.fields import Setting
from launch.schema.recipe import RecipeConfig
from launch.schema.sections import Dtype, ExportDtype, Remat, check_checkpoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmallConfig(RecipeConfig):
    """The recipe on a checkpoint."""

    world = "launch.recipe.worlds.checkpoint"
    example = "configs/small.py"

    model: Annotated[str, Setting("checkpoint: a folder, hf://org/name, gguf:FILE or pip:PACKAGE")]
    dtype: Dtype
    export_dtype: ExportDtype = "auto"
    remat: Remat
    max_prompt_tokens: Annotated[
        int | None,
        Setting(
            "leave out training problems with longer prompts; None refuses those that do not fit",
            unit="tokens",
            least=1,
        ),
    ] = None

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        yield from super().check()
        yield from check_checkpoint("model", self.model)
        for section in ("cold_start.shots", "search.shots"):
            name, _, field = section.partition(".")
            if getattr(getattr(self, name), field, 0):
                yield section, "must be 0: tasks of a checkpoint have no worked examples"
