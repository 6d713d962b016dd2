"""Opens models to ask, a checkpoint on this machine or a server, behind one interface."""

import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Sequence
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

# "auto" is the model's chat template if it has one, else the bare turn.
AUTO = "auto"
_CHAT_SYSTEMS = {"chat": "", "chat_r1": R1_SYSTEM, "chat_direct": DIRECT_SYSTEM}
# All axes of the mesh; the weights are divided over all devices.
_MESH = {"data": 1, "fsdp": -1, "tensor": 1}


@dataclasses.dataclass(frozen=True)
class Opened:
    """A model that is ready to be asked.

    Attributes:
      generator: samples whole responses.
      steps: extends partial responses; None if the model cannot continue a response.
      config: the model's sizes, to count FLOPs; None for a server.
      tokenizer: the model's tokenizer; None for a server.
      certainty: scores responses by the model's own certainty; None for a server.
    """

    generator: Generator
    steps: StepGenerator | None
    config: ModelConfig | None
    tokenizer: Tokenizer | None
    certainty: Verifier | None


class LocalModel:
    """A checkpoint on this machine. It is checked at once; `open` reads its weights.

    Attributes:
      name: the name that the user gave.
      path: where the checkpoint was found.
      template: question -> prompt.
      continues: whether the model can continue a response, which searches over steps need.
      version: changes when other weights get the same name.
    """

    continues = True

    def __init__(self, name: str, template: str = AUTO, dtype: str = "auto"):
        """Checks the checkpoint and reads everything but its weights.

        Args:
          name: see `models.checkpoint_source`.
          template: a name of `reasoning.prompts`, or "auto".
          dtype: dtype of the computation; "auto" is float32 on CPU and bfloat16 elsewhere.

        Raises:
          OSError, ValueError: one line that says what is missing or does not fit.
        """
        self.name, self.path = name, locate(name)
        model, self.tokenizer = open_checkpoint(self.path, dtype)
        # The weights are frozen, so they need no wider dtype than the computation.
        self.model = LanguageModel(model.config.replace(param_dtype=model.config.dtype))
        if template == AUTO:
            template = "plain" if self.tokenizer.template is None else "chat"
        self.template_name, self.template = template, get_template(template, self.tokenizer)
        self.version = _version(self.path)

    def check_prompts(self, prompts: Sequence[str], max_new_tokens: int) -> None:
        """Raises `ValueError` if a prompt and its response exceed the context."""
        longest = max(map(len, self.tokenizer.encode_prompts(list(prompts))))
        if longest + max_new_tokens > (context := self.model.config.max_length):
            raise ValueError(
                f"a prompt of {longest} tokens and max_new_tokens={max_new_tokens} exceed the"
                f" context of {self.name}, {context} tokens: shorten one of them"
            )

    @contextlib.contextmanager
    def open(self, rows: int, questions: Collection[str] = ()) -> Iterator[Opened]:
        """Loads the weights and yields an `Opened`; frees the weights at the end.

        Args:
          rows: sequences to sample at a time.
          questions: not used here; see `ServerModel`.
        """
        del questions
        # One device needs no mesh.
        mesh = make_mesh(_MESH) if jax.device_count() > 1 else None
        params = load_params(self.path, self.model.config, mesh)
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
    """A model that a server with OpenAI's interface runs; it has the attributes of `LocalModel`.

    With a chat template the server gets messages and cannot continue a response; otherwise it gets
    text.
    """

    version = ""

    def __init__(self, name: str, url: str, template: str = AUTO, api_key_env: str = ""):
        """Connects to the server and checks that it has the model.

        Args:
          name: the server's name for the model.
          url: the server's URL.
          template: a name of `reasoning.prompts`; "auto" is "chat".
          api_key_env: the environment variable that holds the server's key.

        Raises:
          OSError, ValueError: the server does not answer or has no such model; one line.
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
        """Does nothing, since the length of the server's context is not known."""

    @contextlib.contextmanager
    def open(self, rows: int, questions: Collection[str] = ()) -> Iterator[Opened]:
        """Yields an `Opened`.

        Args:
          rows: not used here; see `LocalModel`.
          questions: all questions that will be asked.
        """
        del rows
        generator, steps = self.generator, None
        if self.continues:
            steps = TextStepGenerator(generator)
        else:
            generator = WholeResponses(generator, {self.template(each) for each in questions})
        yield Opened(generator, steps, None, None, None)


class WholeResponses:
    """A generator that answers prompts and does not continue responses.

    A chat server would take the text of a prompt and half a response for a user's message. So a
    response that was cut off stays cut off.
    """

    def __init__(self, generator: Generator, prompts: Collection[str]):
        self._generator, self._prompts = generator, frozenset(prompts)

    def generate(
        self, prompts: Sequence[str], *, num_samples: int = 1, **arguments: Any
    ) -> list[list[Completion]]:
        """Samples responses; see `Generator`. A prompt that is not known gets empty completions."""
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
    """Returns size and newest time of a model's files, which differ after another training."""
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    stamps = [file.stat() for file in files]
    newest = max((stamp.st_mtime_ns for stamp in stamps), default=0)
    return f"{sum(stamp.st_size for stamp in stamps)} bytes of {newest}"
