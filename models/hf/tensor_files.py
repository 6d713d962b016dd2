"""Opens the safetensors files of a checkpoint and inspects their contents."""

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
from models.hf.remote_file import RemoteFile, read_header
from models.host.storage import is_remote

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

# safetensors' names of dtypes -> ours.
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
# Rows of a matrix that `differs` compares at a time.
_ROWS = 4096
# Bits of a float's exponent; if all are set, the value is infinite or NaN.
_EXPONENT = {"float32": 0x7F80_0000, "bfloat16": 0x7F80, "float16": 0x7C00}


def has_weights(directory: Path) -> bool:
    """Returns whether the directory holds a single weights file or the index of several."""
    return any((directory / name).exists() for name in (WEIGHTS_FILE, INDEX_FILE))


def tensor_names(directory: Path) -> set[str]:
    """Returns the names of all tensors, from the index or from the header of the single file."""
    if not (directory / WEIGHTS_FILE).exists():
        return set(_weight_map(directory))
    with contextlib.ExitStack() as stack:
        return set(_open(directory / WEIGHTS_FILE, stack).keys())


def open_tensors(directory: Path, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Returns all tensors of a checkpoint by name; each is read only when it is sliced.

    Raises:
      OSError, ValueError: if a file is missing, damaged or outside the directory, or if two files
        hold the same tensor.
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
    header_of = functools.cache(read_header)
    for key in [key for key, tensor in tensors.items() if tensor.get_dtype() == float8.DTYPE]:
        # The scales may be in another file than the matrix.
        if (scales := tensors.pop(key + float8.SUFFIX, None)) is not None:
            file = files_of[key]
            tensors[key] = float8.ScaledTensor(file, header_of(file), key, scales)
    return tensors


def stored_dtype(tensors: Mapping[str, Any]) -> str:
    """Returns the most common dtype; scaled 8-bit floats count as bfloat16, which can hold them."""
    counts = collections.Counter(
        "bfloat16"
        if isinstance(tensor, float8.ScaledTensor)
        else _DTYPES.get(tensor.get_dtype(), "float32")
        for tensor in tensors.values()
    )
    return counts.most_common(1)[0][0]


def differs(tensors: Mapping[str, Any], one: str, other: str) -> bool:
    """Returns whether both matrices exist and differ; stops reading at the first difference."""
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
    """Returns whether all values of a float array are finite; reads the bits, which is fast."""
    mask = _EXPONENT.get(array.dtype.name)
    if mask is None:
        return bool(np.all(np.isfinite(array)))
    bits = np.ascontiguousarray(array).view(np.uint32 if mask > 0xFFFF else np.uint16).reshape(-1)
    # Work in pieces so that the masks stay in the processor's cache.
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
    """Returns the file name (without a folder) of each tensor."""
    path = directory / INDEX_FILE
    files = read_json(path).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise ValueError(f"{path}: weight_map={files!r:.80} is not an object of file names")
    for name in set(map(str, files.values())):
        # Only files beside the index are read; a path could point to any file of this user.
        if os.path.basename(name) != name or name in ("", ".", "..") or "\0" in name:
            raise ValueError(f"{path}: {name!r:.80} is not the name of a file beside it")
    for key, name in files.items():
        if not isinstance(name, str):
            raise ValueError(f"{path}: weight_map has {name!r:.80} for {key!r:.80}, no file name")
    return files


def _open(path: Path, stack: contextlib.ExitStack) -> Any:
    if is_remote(path):
        return RemoteFile(path)
    try:
        return stack.enter_context(safe_open(path, framework="numpy"))
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}); fetch it again"
        ) from None
