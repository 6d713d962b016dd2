"""The `hidden` kind: a small head on the decoder's own hidden states of the query.

The head reads the final hidden state, averaged over the tokens of the query and at its last token,
and gives for every route the logit of being right and the cost. `launch.jobs.routing.router_head`
trains it with the project's own step. The decoder itself is not trained. A saved head also holds
the features of one fixed query, so that it is never used with another model.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.decoder import LanguageModel
from models.files import atomic_file
from models.tokens.tokenizer import Tokenizer
from reasoning.router.calibration import Outcomes
from reasoning.router.predictor import Features, Predictions
from reasoning.router.route import Route

# (features, outcomes, seed) -> the arrays of a head.
TrainHead = Callable[[np.ndarray, Outcomes, int], dict[str, np.ndarray]]
# The least length that prompts are padded to, and the most rows of a batch. Lengths and rows are
# powers of two, so that few programs are compiled.
_PAD, _ROWS = 64, 16
# The query whose features a saved head holds, and how far those of the same model may differ from
# them, as a share of their length: another dtype rounds otherwise.
_PROBE, _TOLERANCE = "hello", 0.1


class HiddenFeatures:
    """Reads queries with a decoder; its result is float32 `[n, 2 D]`.

    Args:
      model: the decoder.
      params: its parameters.
      tokenizer: its tokenizer.
      template: question -> prompt, the one that answers will be sampled with.
    """

    def __init__(
        self,
        model: LanguageModel,
        params: Any,
        tokenizer: Tokenizer,
        template: Callable[[str], str],
    ):
        self._params, self._tokenizer, self._template = params, tokenizer, template
        self._most = model.config.max_length

        def read(params: Any, tokens_BT: jax.Array, length_B: jax.Array) -> jax.Array:
            at = jnp.arange(tokens_BT.shape[1])
            real_BT = at < length_B[:, None]
            positions_BT = jnp.broadcast_to(at, tokens_BT.shape)
            hidden_BTD = model.hidden(params, tokens_BT, positions_BT, real_BT.astype(jnp.int32))
            hidden_BTD = hidden_BTD.astype(jnp.float32)
            mean_BD = (hidden_BTD * real_BT[..., None]).sum(1) / length_B[:, None]
            last_BD = jnp.take_along_axis(hidden_BTD, (length_B - 1)[:, None, None], 1)[:, 0]
            return jnp.concatenate([mean_BD, last_BD], -1)

        self._read = jax.jit(read)

    def __call__(self, queries: Sequence[str]) -> np.ndarray:
        """Returns the features of each query; a prompt beyond the context keeps its end."""
        prompts = self._tokenizer.encode_prompts([self._template(query) for query in queries])
        prompts = [list(ids)[-self._most :] for ids in prompts]
        found: list[np.ndarray | None] = [None] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        for first in range(0, len(order), _ROWS):
            batch = order[first : first + _ROWS]
            longest = max(_PAD, 1 << (len(prompts[batch[-1]]) - 1).bit_length())
            longest = min(longest, self._most)
            rows = min(_ROWS, 1 << (len(batch) - 1).bit_length())
            tokens = np.zeros((rows, longest), np.int32)
            lengths = np.ones(rows, np.int32)
            for row, i in enumerate(batch):
                tokens[row, : len(prompts[i])], lengths[row] = prompts[i], len(prompts[i])
            values = np.asarray(self._read(self._params, tokens, lengths))
            for row, i in enumerate(batch):
                found[i] = values[row]
        return np.stack([each for each in found if each is not None])


def head(params: dict[str, Any], x_BF: Any) -> tuple[Any, Any]:
    """Returns logits of being right and costs, both `[B, R]`; traceable.

    Args:
      params: `mean`, `deviation` `[F]`; `inner/kernel` `[F, H]`, `inner/bias` `[H]`;
        `outer/kernel` `[H, 2 R]`, `outer/bias` `[2 R]`; `typical` `[R]`, the mean cost of each
        route.
      x_BF: features.
    """
    x_BF = (x_BF - params["mean"]) / params["deviation"]
    h_BH = jnp.tanh(x_BF @ params["inner/kernel"] + params["inner/bias"])
    out = h_BH @ params["outer/kernel"] + params["outer/bias"]
    logits_BR, cost_BR = jnp.split(out, 2, -1)
    return logits_BR, params["typical"] * jnp.exp(jnp.clip(cost_BR, -3, 3))


class HiddenPredictor:
    """Predicts with a trained head.

    Args:
      routes: the routes.
      features: reads the queries.
      params: see `head`.
    """

    def __init__(self, routes: Sequence[Route], features: Features, params: dict[str, np.ndarray]):
        self.routes, self._features, self._params = tuple(routes), features, params

    def predict(self, queries: Sequence[str]) -> Predictions:
        """Predicts accuracy and cost of every route; see `Predictor`."""
        logits, cost = head(self._params, jnp.asarray(self._features(queries)))
        accuracy = np.asarray(jax.nn.sigmoid(logits), np.float64)
        return Predictions(accuracy, np.asarray(cost, np.float64))

    def explain(self, query: str) -> str:
        """Says what the prediction rests on."""
        del query
        return "the model's own hidden states of the query"

    def save(self, directory: Path) -> None:
        """Writes the head; the decoder stays where it is."""
        with atomic_file(directory / "hidden.npz", "wb") as file:
            arrays = {name.replace("/", "."): x for name, x in self._params.items()}
            probe = self._features([_PROBE])[0]
            np.savez(file, allow_pickle=False, probe=probe, **arrays)


def load(
    directory: Path, routes: Sequence[Route], features: Features | None = None
) -> HiddenPredictor:
    """Reads what `HiddenPredictor.save` wrote.

    Raises:
      ValueError: `features` is missing, or comes from another model or template than the head was
        fitted with.
    """
    if features is None:
        raise ValueError(
            f"{directory} holds a router of kind hidden: it needs its model's features"
        )
    with np.load(directory / "hidden.npz", allow_pickle=False) as found:
        params = {name.replace(".", "/"): found[name] for name in found.files}
    expected, read = params.pop("probe", np.zeros(0)), features([_PROBE])[0]
    if read.shape != expected.shape or not (
        np.linalg.norm(read - expected) <= _TOLERANCE * np.linalg.norm(expected)
    ):
        raise ValueError(
            f"{directory} was fitted with another model or template: give that model, or fit the"
            " router again"
        )
    return HiddenPredictor(routes, features, params)
