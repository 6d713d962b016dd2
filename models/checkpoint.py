"""Loads a model from any supported source: Hugging Face layout or GGUF, on disk or on the Hub.

`models.hf` and `models.gguf` read the two formats.
"""

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
    """Returns the `ModelConfig` of a model.

    Args:
      source: see `models.checkpoint_source.locate`.
      **changes: fields to change, such as `dtype="bfloat16"`.

    Raises:
      OSError, ValueError: one line that says what is missing or does not fit.
    """
    path = locate(source)
    return (gguf if path.is_file() else hf).load_config(path, **changes)


def load_dtype(source: str | os.PathLike) -> str:
    """Returns the dtype in which to export weights of this model; float32 if it is a GGUF file."""
    path = locate(source)
    return "float32" if path.is_file() else hf.load_dtype(path)


def load_tokenizer(source: str | os.PathLike, config: ModelConfig) -> Tokenizer:
    """Returns the tokenizer of a model, with its chat template.

    Raises:
      OSError, ValueError: one line that says what is missing, or that it does not fit the model.
    """
    path = locate(source)
    if not path.is_file():
        return hf.load_tokenizer(path, config)
    tokenizer = gguf.load_tokenizer(path)
    try:
        tokenizer.check_fits(config.vocab_size)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return tokenizer


def load_params(source: str | os.PathLike, config: ModelConfig, mesh: Mesh | None = None) -> Any:
    """Loads the weights of a model in `config.param_dtype`, sharded over `mesh`.

    Args:
      source: see `models.checkpoint_source.locate`.
      config: the config that the weights must fit, as `load_config` returns it.
      mesh: devices for the weights; None means the first device.

    Raises:
      OSError, ValueError: one line that says what is missing or does not fit.
    """
    path = locate(source)
    return (gguf if path.is_file() else hf).load_params(path, config, mesh)


def load_model(
    source: str | os.PathLike, mesh: Mesh | None = None, **changes: Any
) -> LoadedModel[LanguageModel]:
    """Loads config, weights and tokenizer of a model.

    Args:
      source: see `models.checkpoint_source.locate`.
      mesh: devices for the weights; None means the first device.
      **changes: fields of `ModelConfig` to change, such as `dtype="bfloat16"`.

    Raises:
      OSError, ValueError: one line that says what is missing or does not fit.
    """
    path = locate(source)
    config = load_config(path, **changes)
    tokenizer = load_tokenizer(path, config)
    return LoadedModel(LanguageModel(config), load_params(path, config, mesh), tokenizer)
