"""Samples the rollouts of RL on a server, which gets the new weights before each rollout.

The server speaks SGLang's native interface: `/generate` with token ids and log-probs, and
`/update_weights_from_disk`. `launch.run_serve --rollouts` does, too. It must see the folder into
which the weights are written.
"""

import concurrent.futures
import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from models.decoder import LanguageModel
from models.decoding.samples import Samples
from models.decoding.sampling import SamplingParams
from models.decoding.self_check import Sampled, SamplerCheck
from models.hf.export import export_model
from models.host.interruption import STOPS, Interrupted
from models.host.storage import remove_tree
from models.seeds import derive_seed
from models.tokens.tokenizer import Tokenizer
from reasoning.generation.generator import Completion
from reasoning.server_client.api_client import ApiClient, ServerError

T = TypeVar("T")

# How often the client looks whether a signal ends the job.
LOOK_SECONDS = 0.5
# Seconds in which a server must answer before a run starts.
CHECK_SECONDS = 30.0


class RolloutServer:
    """Stands in for `JaxGenerator` where RL samples.

    Attributes:
      tokenizer: the model's tokenizer.
      layout_seconds: how long the server took for the latest weights, their export included.
      last: None; samples of a server are not kept when a job stops.
    """

    last: Samples | None = None

    def __init__(
        self,
        url: str,
        model: LanguageModel,
        tokenizer: Tokenizer,
        directory: Path,
        *,
        api_key_env: str = "",
        timeout_s: float = 600.0,
        concurrency: int = 64,
    ):
        """Makes the client; nothing is sent yet.

        Args:
          url: address of the server, such as http://localhost:30000.
          model: the model that is trained, which the weights belong to.
          tokenizer: its tokenizer.
          directory: where the weights are written; the server reads the same path.
          api_key_env: name of the environment variable that holds the key; "" sends none.
          timeout_s: how long a sample, or the loading of the weights, may take.
          concurrency: requests that run at a time.
        """
        # The paths of this interface have no version.
        settings: dict[str, Any] = {"version": "", "api_key_env": api_key_env}
        self._client = ApiClient(url, timeout_s=timeout_s, **settings)
        self._checker = ApiClient(url, timeout_s=CHECK_SECONDS, attempts=1, **settings)
        self._model, self.tokenizer, self._directory = model, tokenizer, directory
        self._concurrency, self._params = concurrency, None
        self._check = SamplerCheck(model, "server")
        self.layout_seconds = 0.0

    def check(self) -> None:
        """Draws one token.

        Raises:
          ServerError: the server is not there, does not know the key, or does not sample.
        """
        self._sample(self._checker, [0], {"max_new_tokens": 1}, threading.Event())

    @contextlib.contextmanager
    def holding(self, params: Any) -> Iterator["RolloutServer"]:
        """Returns a context in which the server samples with `params`.

        Raises:
          Interrupted: a signal ends the job.
          ServerError: the server did not take the weights.
        """
        start = time.perf_counter()
        export_model(self._directory, self._model.config, params, self.tokenizer, overwrite=True)
        self._all([self._push])
        self.layout_seconds = time.perf_counter() - start
        self._params = params
        try:
            yield self
        finally:
            self._params = None

    def _push(self, stop: threading.Event) -> None:
        def parse(reply: Mapping[str, Any]) -> None:
            if reply["success"] is not True:
                raise ServerError(f"the server did not take the weights: {reply.get('message')}")

        self._client.post(
            "/update_weights_from_disk", {"model_path": str(self._directory.resolve())}, parse,
            prompt_tokens=0, completion_tokens=0, stop=stop, abandon=True,
        )  # fmt: skip

    def release(self) -> None:
        """Removes the folder of the weights."""
        remove_tree(self._directory)

    def generate_from_ids(
        self,
        prompt_ids: Sequence[Sequence[int]],
        *,
        num_samples: int = 1,
        max_new_tokens: int,
        sampling: SamplingParams = SamplingParams(),
        seed: int = 0,
        kept: Samples | None = None,
    ) -> list[list[Completion]]:
        """Samples completions of prompts given as token ids; see `JaxGenerator`.

        Raises:
          Interrupted: a signal ends the job.
          SamplerMismatch: the log-probabilities of the server differ from those that a forward pass
            of the trainer gives. Only some calls are checked.
          ServerError: the server did not answer, or not with the tokens of a whole sample.
        """
        del kept
        drawing = {
            "max_new_tokens": max_new_tokens,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k or -1,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
        }
        calls = [
            functools.partial(
                self._sample, self._client, ids,
                drawing | {"sampling_seed": derive_seed(seed, i, g)},
            )
            for i, ids in enumerate(prompt_ids)
            for g in range(num_samples)
        ]  # fmt: skip
        drawn = self._all(calls)
        if self._params is not None and self._check.due():
            samples = [
                Sampled(ids, each.token_ids, cast(np.ndarray, each.logprobs))
                for ids, each in zip(prompt_ids, drawn[::num_samples], strict=True)
            ]
            self._check(self._params, samples, sampling.temperature)
        return [drawn[i : i + num_samples] for i in range(0, len(drawn), num_samples)]

    def _sample(
        self,
        client: ApiClient,
        ids: Sequence[int],
        drawing: Mapping[str, Any],
        stop: threading.Event,
    ) -> Completion:
        return client.post(
            "/generate",
            {"input_ids": list(ids), "sampling_params": drawing, "return_logprob": True},
            self._completion, prompt_tokens=len(ids), completion_tokens=drawing["max_new_tokens"],
            stop=stop, abandon=True,
        )  # fmt: skip

    def _all(self, calls: Sequence[Callable[[threading.Event], T]]) -> list[T]:
        """Returns the results of calls that run side by side; a failure or a signal ends all."""
        stop = threading.Event()
        with concurrent.futures.ThreadPoolExecutor(self._concurrency) as pool:
            futures = [pool.submit(call, stop) for call in calls]
            try:
                while concurrent.futures.wait(futures, LOOK_SECONDS, FIRST_EXCEPTION).not_done:
                    if STOPS.here():
                        raise Interrupted(STOPS.reason)
                    if any(future.done() and future.exception() for future in futures):
                        break
                failed = [f for f in futures if f.done() and f.exception()]
                return [future.result() for future in failed or futures]
            finally:
                stop.set()  # Requests that still run, or wait for another attempt, end.
                for future in futures:
                    future.cancel()

    def _completion(self, reply: Mapping[str, Any]) -> Completion:
        about = reply["meta_info"]
        finish, pairs = about["finish_reason"]["type"], about["output_token_logprobs"]
        if finish not in ("stop", "length") or not pairs:
            raise ValueError(f"a sample ended with {finish!r} after {len(pairs)} tokens")
        logprobs, ids = zip(*(pair[:2] for pair in pairs))
        ended = ids[-1] in self.tokenizer.stop_ids
        if finish == "stop" and not ended:
            raise ServerError(
                "the server left out the token that ended a response, which RL trains: let it"
                " return that token, too",
                fatal=True,
            )
        text = self.tokenizer.decode(list(ids[:-1] if ended else ids))
        return Completion(text, list(ids), np.array(logprobs, np.float32), finish)
