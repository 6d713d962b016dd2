"""Opens a GGUF file: config, tokenizer, and weights dequantized straight into sharded arrays."""

import functools
import os
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.gguf.config import HEAD, config_from_gguf
from models.gguf.header import Header
from models.gguf.tensors import ROPE_FACTORS, GgufTensor, gguf_name, row_order
from models.gguf.vocabulary import tokenizer_from_gguf
from models.hf.load import place_tensors
from models.hf.tensors import stored_tensors
from models.tokens.tokenizer import Tokenizer


def load_config(path: str | os.PathLike, **changes: Any) -> ModelConfig:
    """Loads the `ModelConfig` of a file; `changes` override fields, see `config_from_gguf`."""
    return config_from_gguf(_header(path), **changes)


def load_tokenizer(path: str | os.PathLike) -> Tokenizer:
    """Loads the tokenizer of a file; see `tokenizer_from_gguf`."""
    return tokenizer_from_gguf(_header(path))


def load_params(path: str | os.PathLike, config: ModelConfig, mesh: Mesh | None = None) -> Any:
    """Loads the parameters of a file, dequantized to `config.param_dtype` and sharded over `mesh`.

    The function checks every name, shape and type before it reads any weights. It then reads one
    shard at a time, dequantizes and casts it and puts it on its devices, so that a host never holds
    more than its largest shard.

    Args:
      path: path of the file.
      config: the config that the file must match.
      mesh: the devices for the weights, laid out by `models.sharding`; None means the first device.

    Raises:
      OSError, ValueError: if a file, tensor or field is missing or does not fit; the message names
        it.
    """
    header = _header(path)
    model = LanguageModel(config)
    stored = {gguf_name(name): (name, shape) for name, shape, *_ in stored_tensors(model)}
    extra = set(header.tensors) - set(stored) - {ROPE_FACTORS}
    if config.tie_embeddings:
        extra.discard(HEAD)
    for fault, names in (("lacks", set(stored) - set(header.tensors)), ("has unexpected", extra)):
        if names:
            raise ValueError(
                f"{header.path} {fault} tensors ({len(names)}, such as {min(names)}); its weights"
                " do not belong to the model that its fields describe"
            )
    tensors = {}
    for name, (hf_name, shape) in stored.items():
        info = header.tensors[name]
        if info.shape != shape:
            raise ValueError(
                f"{header.path}: {name} has shape {list(info.shape)}, but the fields imply"
                f" {list(shape)}"
            )
        tensors[hf_name] = GgufTensor(header.path, name, info, row_order(hf_name, config))
    return place_tensors(model, tensors, mesh)


def _header(path: str | os.PathLike) -> Header:
    path = Path(path)
    stamp = path.stat()
    return _read_header(path, stamp.st_mtime_ns, stamp.st_size)


# Callers load config, tokenizer and weights one after another; the header is read once.
@functools.lru_cache(maxsize=2)
def _read_header(path: Path, *stamp: int) -> Header:
    del stamp  # Only a key of the cache: a replaced file is read again.
    return Header(path)
