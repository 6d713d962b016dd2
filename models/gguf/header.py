"""Reads the header of a GGUF file: its fields and the place of each tensor.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The reader of the `gguf`
package trusts the file (a wrong length makes it loop forever) and takes seconds for a vocabulary.
This reader checks every length against the file's size before it reads. The names of types and the
sizes of blocks come from the package.
"""

import math
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4
# Fewest header bytes of a field and of a tensor; they bound how many the file can hold.
_LEAST_FIELD, _LEAST_TENSOR = 13, 24

_SCALARS = {
    GGUFValueType.UINT8: "<u1",
    GGUFValueType.INT8: "<i1",
    GGUFValueType.UINT16: "<u2",
    GGUFValueType.INT16: "<i2",
    GGUFValueType.UINT32: "<u4",
    GGUFValueType.INT32: "<i4",
    GGUFValueType.UINT64: "<u8",
    GGUFValueType.INT64: "<i8",
    GGUFValueType.FLOAT32: "<f4",
    GGUFValueType.FLOAT64: "<f8",
    GGUFValueType.BOOL: "?",
}


class TensorInfo(NamedTuple):
    """The place and the storage type of a tensor in the file.

    Attributes:
      kind: storage type of its numbers.
      shape: rows first, as in NumPy and safetensors (the file lists the dimensions backwards).
      offset: position of its first byte in the file.
      row_bytes: bytes of one row, along the last axis.
    """

    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    row_bytes: int


class Header:
    """The fields and the tensor table of one GGUF file, without its weights.

    Attributes:
      path: path of the file.
      fields: field name -> number, bool, string, list of strings, or array.
      tensors: tensor name -> `TensorInfo`.
    """

    def __init__(self, path: str | os.PathLike):
        """Reads and checks the header.

        Args:
          path: path of a GGUF file: version 2 or 3, little-endian, in one part.

        Raises:
          FileNotFoundError: if there is no such file.
          ValueError: if it is not a GGUF file, or is damaged, truncated or of an unsupported kind;
            the message is one line that names the file.
        """
        self.path = Path(path)
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            if start[:4] != MAGIC:
                raise ValueError(
                    f"{self.path} is not a GGUF file: it begins with {start[:4]!r}, not {MAGIC!r};"
                    " give a GGUF file, or a directory in Hugging Face layout"
                )
            self._check_version(start[4:])
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                reader = _Reader(self.path, content, size)
                self.fields = dict(self._read_fields(reader))
                self.tensors = dict(self._read_tensors(reader))
        if (parts := self.fields.get("split.count", 1)) not in (0, 1):
            raise ValueError(
                f"{self.path} is one of {parts} parts of a model; join them first by llama.cpp's"
                " `llama-gguf-split --merge`"
            )

    def _check_version(self, stored: bytes) -> None:
        if len(stored) < 4:
            raise ValueError(f"{self.path} is truncated within its first 8 bytes; fetch it again")
        (version,) = struct.unpack("<I", stored)
        if version not in VERSIONS:
            swapped = int.from_bytes(stored, "big") in VERSIONS
            found = "big-endian" if swapped else f"version {version}"
            raise ValueError(
                f"{self.path} is a GGUF file of a kind that is not supported ({found}); convert it"
                f" to version {VERSIONS[-1]}, little-endian"
            )

    def _read_fields(self, reader: "_Reader") -> Iterator[tuple[str, Any]]:
        self._num_tensors = reader.count("number of tensors", _LEAST_TENSOR)
        seen = set()
        for _ in range(reader.count("number of fields", _LEAST_FIELD)):
            name = reader.text("the name of a field")
            if name in seen:
                raise ValueError(f"{self.path} has the field {name} twice; fetch the file again")
            seen.add(name)
            yield name, reader.value(name)

    def _read_tensors(self, reader: "_Reader") -> Iterator[tuple[str, TensorInfo]]:
        alignment = self.fields.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise ValueError(f"{self.path}: general.alignment={alignment!r} is not a power of two")
        infos: dict[str, tuple] = {}
        for _ in range(self._num_tensors):
            name = reader.text("the name of a tensor")
            if name in infos:
                raise ValueError(f"{self.path} has the tensor {name} twice; fetch the file again")
            dimensions = reader.scalar(GGUFValueType.UINT32, f"the shape of {name}")
            if not 1 <= dimensions <= MAX_DIMENSIONS:
                raise ValueError(
                    f"{self.path}: {name} has {dimensions} dimensions; GGUF allows 1 to"
                    f" {MAX_DIMENSIONS}"
                )
            shape = reader.array(GGUFValueType.UINT64, dimensions, f"the shape of {name}")
            kind = reader.scalar(GGUFValueType.UINT32, f"the type of {name}")
            offset = reader.scalar(GGUFValueType.UINT64, f"the offset of {name}")
            infos[name] = tuple(int(length) for length in shape[::-1]), kind, offset
        start = -(-reader.position // alignment) * alignment
        for name, (shape, kind, offset) in infos.items():
            if offset % alignment:
                raise ValueError(
                    f"{self.path}: {name} lies at {offset}, no multiple of {alignment}; the file is"
                    " damaged, fetch it again"
                )
            yield name, self._place(name, shape, kind, start + offset, reader.size)

    def _place(
        self, name: str, shape: tuple[int, ...], kind: int, offset: int, size: int
    ) -> TensorInfo:
        try:
            stored = GGMLQuantizationType(kind)
        except ValueError:
            raise ValueError(
                f"{self.path}: {name} is stored as type {kind}, which the installed gguf package"
                " does not know; `pip install --upgrade gguf`, or convert the file to q8_0"
            ) from None
        block, block_bytes = GGML_QUANT_SIZES[stored]
        if min(shape) < 1 or shape[-1] % block:
            raise ValueError(
                f"{self.path}: {name} has shape {list(shape)}, whose rows are not whole blocks of"
                f" {block}, as {stored.name} has them"
            )
        row_bytes = shape[-1] // block * block_bytes
        if offset + math.prod(shape[:-1]) * row_bytes > size:
            raise ValueError(
                f"{self.path} is truncated: {name} ends beyond the file's {size} bytes; fetch it"
                " again"
            )
        return TensorInfo(stored, shape, offset, row_bytes)

    def integer(self, name: str, default: int | None = None, least: int = 1) -> int:
        """Returns a whole number of at least `least`; raises `ValueError` for anything else."""
        value = self._field(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self._fault(name, value, f"a whole number of at least {least}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """Returns a positive finite number; raises `ValueError` for anything else."""
        value = self._field(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._fault(name, value, "a number")
        if not math.isfinite(value) or value <= 0:
            raise self._fault(name, value, "a positive finite number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """Returns a bool; raises `ValueError` for anything else."""
        value = self._field(name, default)
        if not isinstance(value, bool):
            raise self._fault(name, value, "true or false")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """Returns a string; raises `ValueError` if it is missing or something else."""
        value = self._field(name, default)
        if not isinstance(value, str):
            raise self._fault(name, value, "a text")
        return value

    def texts(self, name: str) -> list[str]:
        """Returns a list of strings; raises `ValueError` if it is missing or something else."""
        value = self._field(name, None)
        if not isinstance(value, list):
            raise self._fault(name, value, "a list of texts")
        return value

    def _field(self, name: str, default: Any) -> Any:
        value = self.fields.get(name, default)
        if value is None:
            raise ValueError(
                f"{self.path} has no field {name}; it is not a complete language model"
            )
        return value

    def _fault(self, name: str, value: Any, wanted: str) -> ValueError:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        return ValueError(f"{self.path}: {name}={shown} is not {wanted}")


class _Reader:
    """Reads the values of the header one after another."""

    def __init__(self, path: Path, content: mmap.mmap, size: int):
        self.path, self.size, self.position = path, size, 8
        self._content = content

    def count(self, what: str, least_bytes: int) -> int:
        number = self.scalar(GGUFValueType.UINT64, what)
        if number * least_bytes > self.size:
            raise ValueError(
                f"{self.path}: {number} as the {what} is more than {self.size} bytes can hold; the"
                " file is damaged, fetch it again"
            )
        return number

    def scalar(self, kind: GGUFValueType, what: str) -> Any:
        value = self.array(kind, 1, what)[0]
        # Returns 1e-05, not 9.999999747378752e-06: the number before it was rounded to 32 bits.
        return float(str(value)) if kind == GGUFValueType.FLOAT32 else value.item()

    def array(self, kind: GGUFValueType, length: int, what: str) -> np.ndarray:
        dtype = np.dtype(_SCALARS[kind])
        place = self._advance(length * dtype.itemsize, what)
        # Copy the values, because the memory map is closed after the header is read.
        return np.frombuffer(self._content, dtype, length, place).copy()

    def text(self, what: str) -> str:
        length = self.scalar(GGUFValueType.UINT64, what)
        place = self._advance(length, what)
        try:
            return self._content[place : place + length].decode()
        except UnicodeDecodeError:
            raise ValueError(
                f"{self.path}: {what} is not UTF-8; the file is damaged, fetch it again"
            ) from None

    def texts(self, length: int, what: str) -> list[str]:
        """Reads many strings like `text`, but without a call for each: vocabularies are large."""
        content, position, size = self._content, self.position, self.size
        unpack, found = struct.Struct("<Q").unpack_from, []
        try:
            for _ in range(length):
                start = position + 8
                position = start + unpack(content, position)[0]
                if position > size:
                    raise struct.error
                found.append(content[start:position].decode())
        except struct.error:
            raise self._truncated(what) from None
        except UnicodeDecodeError:
            raise ValueError(
                f"{self.path}: entry {len(found)} of {what} is not UTF-8; the file is damaged,"
                " fetch it again"
            ) from None
        self.position = position
        return found

    def value(self, name: str) -> Any:
        kind = self._kind(name)
        if kind == GGUFValueType.STRING:
            return self.text(name)
        if kind != GGUFValueType.ARRAY:
            return self.scalar(kind, name)
        kind = self._kind(name)
        if kind == GGUFValueType.ARRAY:
            raise ValueError(f"{self.path}: {name} is a list of lists, which is not supported")
        length = self.scalar(GGUFValueType.UINT64, name)
        if kind == GGUFValueType.STRING:
            return self.texts(length, name)
        return self.array(kind, length, name)

    def _kind(self, name: str) -> GGUFValueType:
        number = self.scalar(GGUFValueType.UINT32, name)
        try:
            return GGUFValueType(number)
        except ValueError:
            raise ValueError(
                f"{self.path}: {name} has the unknown type {number}; the file is damaged, fetch it"
                " again"
            ) from None

    def _advance(self, length: int, what: str) -> int:
        start = self.position
        if start + length > self.size:
            raise self._truncated(what)
        self.position += length
        return start

    def _truncated(self, what: str) -> ValueError:
        return ValueError(f"{self.path} is truncated: it ends within {what}; fetch it again")
