"""Two routes for RL in another process: samples with their token ids, and new weights.

They follow SGLang's native interface, `/generate` and `/update_weights_from_disk`, as far as
`reasoning.server_client.rollout_server` uses it. Whoever may call them can make the server read any
folder as weights, so a server has them only if it was started with `--rollouts`.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from models.decoding.sampling import SamplingParams
from reasoning.serving.batch.engine import Drawn, Job, Ticket
from reasoning.serving.batch.response import EngineStopped
from reasoning.serving.models import Checkpoint

PATHS = ("/generate", "/update_weights_from_disk")


class Drawing(BaseModel):
    """`sampling_params` of `/generate`."""

    model_config = ConfigDict(strict=True, extra="forbid")
    max_new_tokens: int = Field(default=128, ge=1, le=2**31 - 1)
    temperature: float = Field(default=1.0, ge=0, le=100)
    top_k: int = Field(default=-1, ge=-1, le=2**31 - 1, description="-1 keeps all tokens")
    top_p: float = Field(default=1.0, gt=0, le=1)
    min_p: float = Field(default=0.0, ge=0, le=1)
    sampling_seed: int = Field(default=0, ge=0, lt=2**32)

    @property
    def sampling(self) -> SamplingParams:
        """How tokens are drawn."""
        return SamplingParams(
            temperature=self.temperature, top_k=max(0, self.top_k), top_p=self.top_p,
            min_p=self.min_p,
        )  # fmt: skip


class GenerateRequest(BaseModel):
    """The body of `/generate`."""

    model_config = ConfigDict(strict=True, extra="forbid")
    input_ids: list[int] = Field(min_length=1)
    sampling_params: Drawing = Drawing()
    return_logprob: bool = False


class WeightsRequest(BaseModel):
    """The body of `/update_weights_from_disk`."""

    model_config = ConfigDict(strict=True, extra="forbid")
    model_path: str = Field(min_length=1, max_length=4096)


class Rollout:
    """One sample of token ids; `start` submits it."""

    def __init__(self, checkpoint: Checkpoint, request: GenerateRequest):
        """Checks the prompt.

        Raises:
          ValueError: it holds a token outside the vocabulary.
        """
        checkpoint.vocabulary.check(request.input_ids)
        self._checkpoint, self._request = checkpoint, request
        self._parts: asyncio.Queue[Drawn] = asyncio.Queue()
        self._ticket: Ticket | None = None
        self._tokens = 0

    def start(self) -> None:
        """Submits the sample; its tokens come to the event loop that runs.

        Raises:
          QueueFull: too many requests wait.
          ValueError: the prompt does not fit.
        """
        loop, drawing = asyncio.get_running_loop(), self._request.sampling_params
        job = Job(
            self._request.input_ids, drawing.max_new_tokens, drawing.sampling,
            drawing.sampling_seed,
        )  # fmt: skip

        def sink(drawn: Drawn) -> None:
            loop.call_soon_threadsafe(self._parts.put_nowait, drawn)

        (self._ticket,) = self._checkpoint.engine.submit([job], [sink])

    def cancel(self) -> None:
        """Frees the slot."""
        if self._ticket is not None:
            self._ticket.cancel()

    @property
    def usage(self) -> dict[str, Any]:
        """The tokens used so far."""
        return {
            "prompt_tokens": len(self._request.input_ids), "completion_tokens": self._tokens,
            "completion_tokens_details": {"reasoning_tokens": 0},
        }  # fmt: skip

    async def whole(self) -> dict[str, Any]:
        """Returns the whole sample; a token that ends it is among its tokens, not in its text."""
        tokens: list[int] = []
        logprobs: list[float] = []
        finish = ""
        while not finish:
            drawn = await self._parts.get()
            tokens += drawn.tokens
            logprobs += drawn.logprobs
            self._tokens, finish = len(tokens), drawn.finish
        if finish not in ("stop", "length"):
            raise EngineStopped
        text = self._checkpoint.tokenizer.decode(tokens[:-1] if finish == "stop" else tokens)
        about: dict[str, Any] = {
            "finish_reason": {"type": finish},
            "prompt_tokens": len(self._request.input_ids),
            "completion_tokens": len(tokens),
        }
        if self._request.return_logprob:
            pairs = zip(logprobs, tokens, strict=True)
            about["output_token_logprobs"] = [[logprob, token, None] for logprob, token in pairs]
        return {"text": text, "output_ids": tokens, "meta_info": about}


def update_weights(
    checkpoint: Checkpoint, load: Callable[[str], Any], request: WeightsRequest
) -> dict[str, Any]:
    """Loads the weights of a folder and gives them to the engine once no sample runs.

    Args:
      checkpoint: the model that gets them.
      load: reads the parameters of a folder; raises `ValueError` or `OSError` if they are not of
        this model.
      request: names the folder.
    """
    checkpoint.engine.replace(load(request.model_path))
    return {"success": True, "message": f"took the weights of {request.model_path}"}
