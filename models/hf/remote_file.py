"""Reads tensors of a safetensors file in a remote store, each by the range of its bytes."""

import json
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

# safetensors' names of dtypes -> NumPy's.
_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "I64": np.int64, "I32": np.int32, "U8": np.uint8,
    "BOOL": np.bool_,
}  # fmt: skip
# A longer header is no header; safetensors has the same limit.
_MOST_HEADER_BYTES = 100_000_000


def read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Returns the byte offset of a safetensors file's data, and the header by tensor name.

    Raises:
      ValueError: the file does not begin with a header.
    """
    with path.open("rb") as file:
        try:
            size = struct.unpack("<Q", file.read(8))[0]
            if size > _MOST_HEADER_BYTES:
                raise ValueError(f"its header would have {size} bytes")
            header = json.loads(file.read(size))
        except (struct.error, ValueError, RecursionError) as error:
            raise ValueError(
                f"{path} is not a whole safetensors file ({error}); fetch it again"
            ) from None
    return 8 + size, header


def read_array(
    path: Path, offset: int, dtype: Any, shape: Sequence[int], index: Any = ()
) -> np.ndarray:
    """Reads a part of an array that lies in a file, in C order; of its rows only those asked for.

    Args:
      path: the file.
      offset: where the array begins, in bytes.
      dtype: NumPy dtype of the array.
      shape: shape of the whole array.
      index: what to take; a slice, or slices of the leading axes.
    """
    parts = index if isinstance(index, tuple) else (index,)
    rows = range(*parts[0].indices(shape[0])) if shape and parts else None
    if rows is None or rows.step != 1:
        start, taken, rest = 0, tuple(shape), parts
    else:
        start, taken = rows.start, (len(rows), *shape[1:])
        rest = (slice(None), *parts[1:])
    item = np.dtype(dtype).itemsize
    with path.open("rb") as file:
        file.seek(offset + start * math.prod(shape[1:]) * item)
        content = file.read(math.prod(taken) * item)
    if len(content) != math.prod(taken) * item:
        raise ValueError(f"{path} is not a whole safetensors file; fetch it again")
    return np.frombuffer(content, dtype).reshape(taken)[rest]


class RemoteFile:
    """A safetensors file in a remote store, with the methods of `safetensors.safe_open`."""

    def __init__(self, path: Path):
        """Reads the header.

        Raises:
          ValueError: the file does not begin with a header.
        """
        self._path = path
        self._start, self._header = read_header(path)
        self._header.pop("__metadata__", None)

    def keys(self) -> list[str]:
        """Returns the names of the tensors."""
        return list(self._header)

    def get_slice(self, name: str) -> "RemoteTensor":
        """Returns a tensor, which is read when it is sliced."""
        return RemoteTensor(self._path, self._start, self._header[name])


class RemoteTensor:
    """A tensor of a remote file; slicing reads it."""

    def __init__(self, path: Path, start: int, entry: dict[str, Any]):
        self._path, self._offset = path, start + entry["data_offsets"][0]
        self._shape, self._dtype = entry["shape"], entry["dtype"]

    def get_shape(self) -> Sequence[int]:
        """Returns the shape of the tensor."""
        return self._shape

    def get_dtype(self) -> str:
        """Returns the name that safetensors gives the tensor's dtype."""
        return self._dtype

    def __getitem__(self, index: Any) -> np.ndarray:
        return read_array(self._path, self._offset, _DTYPES[self._dtype], self._shape, index)
