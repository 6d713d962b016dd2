"""Opens a model from wherever it is: Hugging Face layout or GGUF, on disk, on the Hub, in a package.

    DIR                      a directory in Hugging Face layout
    hf://org/name[@revision] a repository of the Hugging Face Hub
    gguf:FILE, or FILE.gguf  a file of llama.cpp's format
    pip:PACKAGE              a package that ships a model, see `models.gguf.packages`
"""

import os
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

import models.gguf.load as gguf
import models.hf.load as hf
from models.config import ModelConfig
from models.decoder import LanguageModel
from models.gguf.packages import find_packaged
from models.hf.load import LoadedModel
from models.hf.source import resolve
from models.tokenizer import Tokenizer

_GGUF, _PIP = "gguf:", "pip:"


def locate(source: str | os.PathLike) -> Path:
    """Where a model lies: a directory in Hugging Face layout, downloaded if need be, or a file.

    Args:
      source: one of the forms above; what this function returned before stays as it is.

    Raises:
      OSError, ValueError: there is no such model; one line with the remedy.
    """
    text = str(source)
    if not text:
        raise ValueError(
            "no model is given: name a directory, hf://org/name, gguf:FILE or pip:PACKAGE"
        )
    if text.startswith(_PIP):
        return find_packaged(text.removeprefix(_PIP))
    path = Path(text.removeprefix(_GGUF)).expanduser()
    if text.startswith(_GGUF) and not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"GGUF file {str(path)!r} {what}; {_GGUF} takes the path of a file")
    return path if path.is_file() else resolve(source)


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
      source: see `locate`.
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
      source: see `locate`.
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
