"""Opens the models that a server offers: weights, engines and the router."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launch.jobs.asked import LocalModel
from models.checkpoint import load_params
from models.checkpoint_source import locate
from models.decoding.slot_sampler import SlotSampler
from models.host.storage import is_remote
from reasoning.router import PredictiveRouter, load
from reasoning.router.hidden import HiddenFeatures
from reasoning.router.predictor import Features
from reasoning.router.route import LONG_CHAIN, SHORT_CHAIN, VOTE, Route, direct
from reasoning.router.rules import RulesPredictor
from reasoning.serving.batch.engine import Engine
from reasoning.serving.batch.text import Vocabulary
from reasoning.serving.models import Checkpoint
from reasoning.serving.routes import Models


def open_models(
    model: str, cheap: str = "", router: str = "", *, slots: int, context: int, queue: int,
    dtype: str = "auto", lock: Any = None, chunk: int = 64, named_budgets: bool = False,
) -> Models:  # fmt: skip
    """Loads checkpoints and starts their engines.

    Args:
      model: the reasoner; see `models.checkpoint_source`.
      cheap: another checkpoint for cheap answers; empty for the same one without a chain.
      router: the folder of a router; empty for rules. One of the kind `hidden` was fitted with the
        reasoner.
      slots, context, queue: sizes of the engines.
      lock: held while a program runs on the device.
      named_budgets: whether the models were trained to keep a budget that the question names.

    Raises:
      OSError, ValueError: something is missing or does not fit; one line.
    """
    settings = slots, context, queue, lock, chunk, named_budgets
    local, params = _load(model, dtype)
    chosen = load(router, _features(local, params, lock)) if router else _rules(context)
    reasoner, other = _checkpoint(local, params, *settings), None
    if cheap:
        other = _checkpoint(*_load(cheap, dtype), *settings)
    for checkpoint in [reasoner, *([other] if other else [])]:
        checkpoint.engine.start()
    return Models(reasoner, other, chosen)


def weights_loader(model: str, dtype: str = "auto") -> Callable[[str], Any]:
    """Returns a function that reads the parameters of a folder, for a model that is served.

    The function raises `ValueError`, in one line, if there is no such folder on this machine or a
    remote store, or if it holds another model.
    """
    config = LocalModel(model, dtype=dtype).model.config

    def load(folder: str) -> Any:
        if not (is_remote(folder) or Path(folder).is_absolute()):
            raise ValueError(f"model_path={folder!r}: give the absolute path of a folder")
        try:
            return load_params(locate(folder), config, None)
        except OSError as error:
            raise ValueError(str(error)) from None

    return load


def _load(name: str, dtype: str) -> tuple[LocalModel, Any]:
    """Returns a checkpoint and its parameters."""
    local = LocalModel(name, dtype=dtype)
    return local, load_params(local.path, local.model.config, None)


def _features(local: LocalModel, params: Any, lock: Any) -> Features:
    """Returns what reads queries for a router, in turns with the engines; see `HiddenFeatures`."""
    read = HiddenFeatures(local.model, params, local.tokenizer, local.template)

    def features(queries):
        with lock or contextlib.nullcontext():
            return read(queries)

    return features


def _checkpoint(local, params, slots, context, queue, lock, chunk, named_budgets) -> Checkpoint:
    config = local.model.config
    # Whole chunks, so that the last one fits as well.
    columns = max(chunk, min(context, config.max_length) // chunk * chunk)
    shown = Path(local.name).name or local.name
    vocabulary = Vocabulary(local.tokenizer, config.vocab_size)
    sampler = SlotSampler(
        local.model, params, slots=slots, columns=columns, stop_ids=local.tokenizer.stop_ids,
        visible=vocabulary.visible, chunk=chunk,
    )  # fmt: skip
    engine = Engine(sampler, queue=queue, lock=lock)
    return Checkpoint(shown, vocabulary, engine, named_budgets)


def _rules(context: int) -> PredictiveRouter:
    chain = max(64, context // 4)
    routes = (
        direct(),
        Route(SHORT_CHAIN, max(16, chain // 8)),
        Route(LONG_CHAIN, chain),
        Route(VOTE, chain, 8),
    )
    return PredictiveRouter(RulesPredictor(routes))
