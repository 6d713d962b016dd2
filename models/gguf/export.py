"""Writes a model as a GGUF file that llama.cpp runs."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import jax
import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType
from jax.experimental import multihost_utils

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.gguf.config import config_to_gguf
from models.gguf.tensors import ROPE_FACTORS, gguf_name, row_order
from models.gguf.vocabulary import fields_of_tokenizer
from models.hf.export import gather
from models.hf.tensors import stored_tensors
from models.tokens.tokenizer import Tokenizer

# Name -> storage type of matrices and type of the file; vectors stay float32.
TYPES = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
# The version of the block layout of quantized tensors.
QUANTIZATION_VERSION = 2


def export_gguf(
    path: str | os.PathLike,
    config: ModelConfig,
    params: Any,
    tokenizer: Tokenizer,
    *,
    kind: str = "f16",
    name: str = "ergo",
    overwrite: bool = False,
) -> Path:
    """Writes config, tokenizer, chat template and weights into one file, all or nothing.

    Every process of a multi-host run must call this; process 0 writes. The host holds one tensor in
    memory at a time.

    Args:
      path: path of the file. A rename at the end makes it appear or replaces it.
      config: the config of the model: Llama, Qwen2 or Qwen3.
      params: the parameters, as NumPy arrays or as JAX arrays with any sharding.
      tokenizer: the tokenizer to write into the file.
      kind: storage type of matrices, one of `TYPES`. A matrix whose rows do not divide into q8_0
        blocks (32 numbers) is stored as f16.
      name: the model's name in the file's fields.
      overwrite: whether to replace an existing file.

    Returns:
      The path.

    Raises:
      FileExistsError: if the file exists and `overwrite` is not set.
      ValueError: if `kind` is unknown, llama.cpp cannot run the model or the tokenizer, or weights
        are not finite or too large for `kind`.
    """
    path = Path(path)
    if kind not in TYPES:
        raise ValueError(f"kind={kind!r} is unknown; choose one of {', '.join(TYPES)}")
    if path.is_dir():
        raise FileExistsError(f"{path} is a directory; give the path of a file")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; remove it, choose another, or pass overwrite=True")
    tokenizer.check_fits(config.vocab_size)
    fields, factors = config_to_gguf(config)
    fields |= fields_of_tokenizer(tokenizer, config.vocab_size)
    fields |= {
        "general.type": "model",
        "general.name": name,
        "general.file_type": int(TYPES[kind][1]),
        "general.quantization_version": QUANTIZATION_VERSION,
    }
    tensors = _tensors(config, params, kind)
    if jax.process_index() != 0:
        for _ in tensors:  # Gathering is a collective operation, so every process takes part.
            pass
    else:
        _write(path, config, fields, factors, kind, tensors)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"export {path}")
    return path


def _write(
    path: Path,
    config: ModelConfig,
    fields: dict[str, Any],
    factors: np.ndarray | None,
    kind: str,
    tensors: Iterator[np.ndarray],
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        writer = gguf.GGUFWriter(scratch, config.family)
        for field, value in fields.items():
            _add_field(writer, field, value)
        if factors is not None:
            _add_info(writer, ROPE_FACTORS, factors.shape, GGMLQuantizationType.F32)
        for hf_name, shape, *_ in stored_tensors(LanguageModel(config)):
            _add_info(writer, gguf_name(hf_name), shape, _stored_as(shape, kind))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors)
        for tensor in tensors:
            writer.write_tensor_data(tensor)
        writer.close()
        os.chmod(scratch, 0o644)  # mkstemp makes it private.
        os.replace(scratch, path)
    finally:
        Path(scratch).unlink(missing_ok=True)


def _add_field(writer: gguf.GGUFWriter, field: str, value: Any) -> None:
    if field == "general.architecture":  # The writer's constructor has set it.
        return
    if isinstance(value, bool):
        writer.add_bool(field, value)
    elif isinstance(value, int):
        writer.add_uint32(field, value)
    elif isinstance(value, float):
        writer.add_float32(field, value)
    elif isinstance(value, str):
        writer.add_string(field, value)
    else:
        writer.add_array(field, value)


def _add_info(
    writer: gguf.GGUFWriter, name: str, shape: tuple[int, ...], stored: GGMLQuantizationType
) -> None:
    block, block_bytes = gguf.GGML_QUANT_SIZES[stored]
    row_bytes = shape[-1] // block * block_bytes
    size = int(np.prod(shape[:-1], dtype=int)) * row_bytes
    if stored == GGMLQuantizationType.Q8_0:
        # The writer expects the shape in bytes and derives the other one.
        shape = (*shape[:-1], row_bytes)
        writer.add_tensor_info(name, shape, np.dtype(np.uint8), size, raw_dtype=stored)
    else:
        dtype = np.float16 if stored == GGMLQuantizationType.F16 else np.float32
        writer.add_tensor_info(name, shape, np.dtype(dtype), size)


def _stored_as(shape: tuple[int, ...], kind: str) -> GGMLQuantizationType:
    stored = TYPES[kind][0]
    if len(shape) == 1:
        return GGMLQuantizationType.F32
    if shape[-1] % gguf.GGML_QUANT_SIZES[stored][0]:
        return GGMLQuantizationType.F16
    return stored


def _tensors(config: ModelConfig, params: Any, kind: str) -> Iterator[np.ndarray]:
    """Yields the stored tensors one at a time, in the order of `stored_tensors`."""
    for hf_name, shape, rule, index in stored_tensors(LanguageModel(config)):
        tensor = gather(params, rule, index, np.dtype(np.float32))
        if (order := row_order(hf_name, config)) is not None:
            stored = np.empty_like(tensor)
            stored[order] = tensor
            tensor = stored
        with np.errstate(over="ignore", invalid="ignore"):  # Reported below.
            written = gguf.quantize(tensor, _stored_as(shape, kind))
            # Blocks of q8_0 begin with a scale of 16 bits.
            rounded = tensor if kind == "f32" else tensor.astype(np.float16)
        if not np.isfinite(rounded).all():
            raise ValueError(
                f"{gguf_name(hf_name)} has values that are not finite or too large for {kind}: the"
                " model is broken, or needs kind=f32"
            )
        yield written
