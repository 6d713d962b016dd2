"""Opens the safetensors files of a checkpoint, and answers questions about what they hold."""

import collections
import contextlib
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from models.checkpoint_source import read_json
from models.hf import float8

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

# safetensors' names of dtypes -> ours.
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
# Rows of a matrix that are compared at a time.
_ROWS = 4096
# Where the exponent of a float lies: all its bits set is infinite or no number.
_EXPONENT = {"float32": 0x7F80_0000, "bfloat16": 0x7F80, "float16": 0x7C00}


def has_weights(directory: Path) -> bool:
    """Whether the directory holds weights in one of the two forms that are read."""
    return any((directory / name).exists() for name in (WEIGHTS_FILE, INDEX_FILE))


def tensor_names(directory: Path) -> set[str]:
    """Names of all tensors of a checkpoint; reads the index, or the header of the one file."""
    if not (directory / WEIGHTS_FILE).exists():
        return set(_weight_map(directory))
    with contextlib.ExitStack() as stack:
        return set(_open(directory / WEIGHTS_FILE, stack).keys())


def open_tensors(directory: Path, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Name -> lazily read tensor, of all files of the checkpoint; nothing is read yet.

    Raises:
      OSError, ValueError: a file that is missing, damaged, or outside the directory, or a tensor
        that two files hold.
    """
    tensors: dict[str, Any] = {}
    files_of: dict[str, Path] = {}
    for name in _files(directory):
        if not (directory / name).is_file():
            raise FileNotFoundError(f"{directory} lacks {name}, which {INDEX_FILE} names")
        handle = _open(directory / name, stack)
        for key in handle.keys():
            if key in tensors:
                raise ValueError(
                    f"{directory}: the tensor {key} is in {files_of[key].name} and in {name};"
                    " remove the file that does not belong there"
                )
            tensors[key], files_of[key] = handle.get_slice(key), directory / name
    header_of = functools.cache(float8.read_header)
    for key in [key for key, tensor in tensors.items() if tensor.get_dtype() == float8.DTYPE]:
        # Of another file, perhaps.
        if (scales := tensors.pop(key + float8.SUFFIX, None)) is not None:
            file = files_of[key]
            tensors[key] = float8.ScaledTensor(file, header_of(file), key, scales)
    return tensors


def stored_dtype(tensors: Mapping[str, Any]) -> str:
    """The dtype that most tensors have; scaled 8-bit floats count as bfloat16, which holds them."""
    counts = collections.Counter(
        "bfloat16"
        if isinstance(tensor, float8.ScaledTensor)
        else _DTYPES.get(tensor.get_dtype(), "float32")
        for tensor in tensors.values()
    )
    return counts.most_common(1)[0][0]


def differs(tensors: Mapping[str, Any], one: str, other: str) -> bool:
    """Whether two matrices are both there and differ; reads up to the first rows that do."""
    if one not in tensors or other not in tensors:
        return False
    a, b = tensors[one], tensors[other]
    shape = list(a.get_shape())
    if shape != list(b.get_shape()):
        return True
    rows = shape[0] if shape else 0
    parts = (slice(start, min(start + _ROWS, rows)) for start in range(0, rows, _ROWS))
    return any(not np.array_equal(a[part], b[part]) for part in parts)


def bits_are_finite(array: np.ndarray) -> bool:
    """Whether all values of a float array are finite, by their bits: fast for bfloat16, too."""
    mask = _EXPONENT.get(array.dtype.name)
    if mask is None:
        return bool(np.all(np.isfinite(array)))
    bits = np.ascontiguousarray(array).view(np.uint32 if mask > 0xFFFF else np.uint16).reshape(-1)
    # In pieces, whose masks stay in the processor's cache.
    size = 1 << 18
    return not any(
        np.any((bits[start : start + size] & mask) == mask) for start in range(0, len(bits), size)
    )


def _files(directory: Path) -> list[str]:
    if (directory / WEIGHTS_FILE).exists():
        return [WEIGHTS_FILE]
    if (directory / INDEX_FILE).exists():
        return sorted(set(_weight_map(directory).values()))
    remedy = ""
    if any(directory.glob("pytorch_model*.bin")):
        remedy = "; convert its pytorch_model.bin with transformers' `save_pretrained`"
    raise FileNotFoundError(f"{directory} has neither {WEIGHTS_FILE} nor {INDEX_FILE}{remedy}")


def _weight_map(directory: Path) -> dict[str, str]:
    """Name of each tensor -> its file, a name without a folder."""
    path = directory / INDEX_FILE
    files = read_json(path).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise ValueError(f"{path}: weight_map={files!r:.80} is not an object of file names")
    for name in set(map(str, files.values())):
        # Only files beside the index: others may be anything that this user can read.
        if os.path.basename(name) != name or name in ("", ".", "..") or "\0" in name:
            raise ValueError(f"{path}: {name!r:.80} is not the name of a file beside it")
    for key, name in files.items():
        if not isinstance(name, str):
            raise ValueError(f"{path}: weight_map has {name!r:.80} for {key!r:.80}, no file name")
    return files


def _open(path: Path, stack: contextlib.ExitStack) -> Any:
    try:
        return stack.enter_context(safe_open(path, framework="numpy"))
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}); fetch it again"
        ) from None
