"""Models to be asked: a checkpoint on this machine or a server, behind one interface."""

import contextlib
import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import jax

from launch.jobs.finetune import open_checkpoint
from launch.parts.servers import open_server
from models.checkpoint import load_params
from models.checkpoint_source import locate
from models.config import ModelConfig
from models.decoder import LanguageModel
from models.sharding import make_mesh
from models.tokens.tokenizer import Tokenizer
from reasoning.generation.generator import Completion, Generator
from reasoning.generation.jax_generator import JaxGenerator
from reasoning.generation.jax_steps import JaxStepGenerator
from reasoning.generation.steps import StepGenerator
from reasoning.generation.text_steps import TextStepGenerator
from reasoning.prompts import DIRECT_SYSTEM, R1_SYSTEM, TEMPLATES, PromptTemplate, get_template
from reasoning.verifiers import Verifier
from reasoning.verifiers.likelihood import SelfCertainty

# "auto": the model's chat template where it has one, else the bare turn.
AUTO = "auto"
_CHAT_SYSTEMS = {"chat": "", "chat_r1": R1_SYSTEM, "chat_direct": DIRECT_SYSTEM}
# All axes of the mesh; the weights are divided over all devices.
_MESH = {"data": 1, "fsdp": -1, "tensor": 1}


@dataclasses.dataclass(frozen=True)
class Opened:
    """A model with its weights at hand.

    Attributes:
      generator: samples whole responses.
      steps: extends partial ones; None where the model cannot go on with a response.
      config: its sizes, to count FLOPs; None of a server.
      tokenizer: None of a server.
      certainty: scores responses by the model's own certainty; None of a server.
    """

    generator: Generator
    steps: StepGenerator | None
    config: ModelConfig | None
    tokenizer: Tokenizer | None
    certainty: Verifier | None


class LocalModel:
    """A checkpoint, checked but for its weights, which `open` reads.

    Attributes:
      name: as it was given.
      template: question -> prompt.
      continues: it can go on with a response, as searches over steps ask it to.
      version: tells the weights from others of the same name.
    """

    continues = True

    def __init__(self, name: str, template: str = AUTO, dtype: str = "auto"):
        """Args:
        name: see `models.checkpoint_source`.
        template: a name of `reasoning.prompts`, or "auto".
        dtype: to compute with; "auto" is float32 on CPU and bfloat16 elsewhere.

        Raises:
          OSError, ValueError: one line that says what is missing or does not fit.
        """
        self.name, self._path = name, locate(name)
        model, self.tokenizer = open_checkpoint(self._path, dtype)
        # Frozen weights are stored as they are computed with.
        self.model = LanguageModel(model.config.replace(param_dtype=model.config.dtype))
        if template == AUTO:
            template = "plain" if self.tokenizer.template is None else "chat"
        self.template_name, self.template = template, get_template(template, self.tokenizer)
        self.version = _version(self._path)

    def check_prompts(self, prompts: Sequence[str], max_new_tokens: int) -> None:
        """Raises `ValueError` where a prompt and its response exceed the context."""
        longest = max(map(len, self.tokenizer.encode_prompts(list(prompts))))
        if longest + max_new_tokens > (context := self.model.config.max_length):
            raise ValueError(
                f"a prompt of {longest} tokens and max_new_tokens={max_new_tokens} exceed the"
                f" context of {self.name}, {context} tokens: shorten one"
            )

    @contextlib.contextmanager
    def open(self, rows: int, questions: Collection[str] = ()):
        """Yields an `Opened`; the weights are let go of behind it.

        Args:
          rows: sequences that are sampled at a time.
        """
        del questions
        # One device needs no mesh.
        mesh = make_mesh(_MESH) if jax.device_count() > 1 else None
        params = load_params(self._path, self.model.config, mesh)
        parts = self.model, params, self.tokenizer
        with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
            yield Opened(
                generator=JaxGenerator(*parts, rows=rows),
                steps=JaxStepGenerator(*parts),
                config=self.model.config,
                tokenizer=self.tokenizer,
                certainty=SelfCertainty(*parts),
            )


class ServerModel:
    """A model that a server with OpenAI's interface runs; attributes as of `LocalModel`.

    With a chat template it is sent messages, and cannot go on with a response; otherwise text.
    """

    version = ""

    def __init__(self, name: str, url: str, template: str = AUTO, api_key_env: str = ""):
        """Args:
        name: as the server calls the model.
        url: of the server.
        template: a name of `reasoning.prompts`; "auto" is "chat".
        api_key_env: the environment variable that holds its key.

        Raises:
          OSError, ValueError: the server is not there or has no such model; one line.
        """
        self.name = name
        template = "chat" if template == AUTO else template
        if template not in TEMPLATES:
            raise ValueError(
                f"template={template!r} is unknown; choose {AUTO} or one of {', '.join(TEMPLATES)}"
            )
        self.continues = template not in _CHAT_SYSTEMS
        self.template_name, self.template = template, _server_template(template)
        self.generator = open_server(url, name, chat=not self.continues, api_key_env=api_key_env)
        self.generator.check()

    def check_prompts(self, prompts: Sequence[str], max_new_tokens: int) -> None:
        """Nothing is known of the server's context."""

    @contextlib.contextmanager
    def open(self, rows: int, questions: Collection[str] = ()):
        """Yields an `Opened`.

        Args:
          questions: all that will be asked.
        """
        del rows
        generator, steps = self.generator, None
        if self.continues:
            steps = TextStepGenerator(generator)
        else:
            generator = WholeResponses(generator, {self.template(each) for each in questions})
        yield Opened(generator, steps, None, None, None)


class WholeResponses:
    """A generator that answers prompts and does not go on with responses.

    To a chat server the text of a prompt and half a response would be a user's message. What was
    cut off stays cut off.
    """

    def __init__(self, generator: Generator, prompts: Collection[str]):
        self._generator, self._prompts = generator, frozenset(prompts)

    def generate(
        self, prompts: Sequence[str], *, num_samples: int = 1, **arguments: Any
    ) -> list[list[Completion]]:
        """See `Generator`; prompts that are none of those known get empty completions."""
        known = [prompt for prompt in prompts if prompt in self._prompts]
        found = iter([])
        if known:
            found = iter(self._generator.generate(known, num_samples=num_samples, **arguments))
        nothing = [Completion("", [], None, "length")] * num_samples
        return [next(found) if prompt in self._prompts else nothing for prompt in prompts]


def _server_template(name: str) -> PromptTemplate:
    if name not in _CHAT_SYSTEMS:
        return get_template(name, None)
    system = _CHAT_SYSTEMS[name]
    return lambda question: f"{system}\n\n{question}" if system else question


def _version(path: Path) -> str:
    """Sizes and times of the newest of a model's files: weights that were trained anew differ."""
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    stamps = [file.stat() for file in files]
    newest = max((stamp.st_mtime_ns for stamp in stamps), default=0)
    return f"{sum(stamp.st_size for stamp in stamps)} bytes of {newest}"
