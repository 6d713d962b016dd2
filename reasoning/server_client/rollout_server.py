"""Samples the rollouts of RL on a server that gets the new weights before each.

The server speaks SGLang's native interface: `/generate` with token ids and log-probs, and
`/update_weights_from_disk`. `launch.run_serve --rollouts` does, too. It must see the folder into
which the weights are written.
"""

import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION
from pathlib import Path
from typing import Any

import numpy as np

from models.decoder import LanguageModel
from models.decoding.samples import Samples
from models.decoding.sampling import SamplingParams
from models.hf.export import export_model
from models.host.interruption import STOPS, Interrupted
from models.seeds import derive_seed
from models.tokens.tokenizer import Tokenizer
from reasoning.generation.generator import Completion
from reasoning.server_client.api_client import ApiClient, ServerError

# Seconds between two looks whether the job is to stop.
LOOK_SECONDS = 0.5


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
        self._client = ApiClient(url, version="", api_key_env=api_key_env, timeout_s=timeout_s)
        self._model, self.tokenizer, self._directory = model, tokenizer, directory
        self._concurrency = concurrency
        self.layout_seconds = 0.0

    def check(self) -> None:
        """Raises `ServerError` if the server is not there."""
        self._client.check("/health")

    @contextlib.contextmanager
    def holding(self, params: Any) -> Iterator["RolloutServer"]:
        """Returns a context in which the server samples with `params`.

        Raises:
          ServerError: the server did not take the weights.
        """
        start = time.perf_counter()
        export_model(self._directory, self._model.config, params, self.tokenizer, overwrite=True)

        def parse(reply: Mapping[str, Any]) -> None:
            if reply["success"] is not True:
                raise ServerError(f"the server did not take the weights: {reply.get('message')}")

        self._client.post(
            "/update_weights_from_disk", {"model_path": str(self._directory.resolve())}, parse,
            prompt_tokens=0, completion_tokens=0, stop=threading.Event(),
        )  # fmt: skip
        self.layout_seconds = time.perf_counter() - start
        yield self

    def release(self) -> None:
        """Does nothing: the weights are on the server."""

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
          ServerError: the server did not answer, or not with the tokens of a whole sample.
        """
        del kept
        stop = threading.Event()
        drawing = {
            "max_new_tokens": max_new_tokens,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k or -1,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
        }

        def sample(place: tuple[int, int]) -> Completion:
            ids = list(prompt_ids[place[0]])
            own_seed = {"sampling_seed": derive_seed(seed, *place)}
            return self._client.post(
                "/generate",
                {
                    "input_ids": ids, "sampling_params": drawing | own_seed,
                    "return_logprob": True,
                },
                self._completion, prompt_tokens=len(ids), completion_tokens=max_new_tokens,
                stop=stop,
            )  # fmt: skip

        places = [(i, g) for i in range(len(prompt_ids)) for g in range(num_samples)]
        with concurrent.futures.ThreadPoolExecutor(self._concurrency) as pool:
            futures = [pool.submit(sample, place) for place in places]
            try:
                while concurrent.futures.wait(futures, LOOK_SECONDS, FIRST_EXCEPTION).not_done:
                    if STOPS.here():
                        raise Interrupted(STOPS.reason)
                    if any(future.done() and future.exception() for future in futures):
                        break
                drawn = [future.result() for future in futures]
            except BaseException:
                stop.set()  # The others need not wait for retries.
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [drawn[i : i + num_samples] for i in range(0, len(drawn), num_samples)]

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
