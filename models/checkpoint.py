"""Opens a model from wherever it is: in Hugging Face layout or GGUF, on disk or on the Hub."""

import os
from typing import Any

from jax.sharding import Mesh

import models.gguf.load as gguf
import models.hf.load as hf
from models.checkpoint_source import locate
from models.config import ModelConfig
from models.decoder import LanguageModel
from models.hf.load import LoadedModel
from models.tokens.tokenizer import Tokenizer


def load_config(source: str | os.PathLike, **changes: Any) -> ModelConfig:
    """The `ModelConfig` of a model, with fields changed, e.g. `dtype="bfloat16"`.

    Raises:
      OSError, ValueError: one line that says what is missing or does not fit.
    """
    path = locate(source)
    return (gguf if path.is_file() else hf).load_config(path, **changes)


def load_tokenizer(source: str | os.PathLike) -> Tokenizer:
    """The tokenizer of a model, with its chat template. Raises as `load_config`."""
    path = locate(source)
    return gguf.load_tokenizer(path) if path.is_file() else Tokenizer.from_directory(path)


def load_params(source: str | os.PathLike, config: ModelConfig, mesh: Mesh | None = None) -> Any:
    """The weights of a model, in `config.param_dtype`, sharded over `mesh`.

    Args:
      source: see `models.checkpoint_source.locate`.
      config: what it must hold, as `load_config` returns it.
      mesh: where the weights go; None is the first device.

    Raises:
      OSError, ValueError: one line that says what is missing or does not fit.
    """
    path = locate(source)
    return (gguf if path.is_file() else hf).load_params(path, config, mesh)


def load_model(source: str | os.PathLike, mesh: Mesh | None = None, **changes: Any) -> LoadedModel:
    """Config, weights and tokenizer of a model.

    Args:
      source: see `models.checkpoint_source.locate`.
      mesh: where the weights go; None is the first device.
      **changes: fields of `ModelConfig` to set otherwise, e.g. `dtype="bfloat16"`.

    Raises:
      OSError, ValueError: one line that says what is missing or does not fit.
    """
    path = locate(source)
    config = load_config(path, **changes)
    tokenizer = load_tokenizer(path)
    tokenizer.check_fits(config.vocab_size)
    return LoadedModel(LanguageModel(config), load_params(path, config, mesh), tokenizer)
