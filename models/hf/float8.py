"""Reads weights in 8-bit floats with a scale for each block, as DeepSeek-V3 publishes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from models.hf.remote_file import read_array
from models.host.storage import is_remote

# Rows and columns that share a scale (DeepSeek-V3, arXiv:2412.19437, section 3.3.2).
BLOCK = 128
DTYPE = "F8_E4M3"
# The scales of `x.weight` are `x.weight_scale_inv`; despite this name they multiply it.
SUFFIX = "_scale_inv"


class ScaledTensor:
    """A stored matrix `[out, in]` with its scales; slicing it returns their float32 product.

    Matrix and scales are read lazily. The matrix is memory-mapped, because safetensors' slices do
    not support 8-bit floats in NumPy.

    Raises:
      ValueError: if the scales do not have one entry for each block of the matrix.
    """

    def __init__(self, file: Path, header: tuple[int, dict[str, Any]], name: str, scales: Any):
        """Opens one matrix of a file.

        Args:
          file: the safetensors file.
          header: its header, see `models.hf.remote_file.read_header`.
          name: name of the matrix in the file.
          scales: the stored tensor of scales, read when it is sliced.
        """
        start, tensors = header
        self._shape, self._scales = tuple(tensors[name]["shape"]), scales
        self._file, self._offset = file, start + tensors[name]["data_offsets"][0]
        blocks = [-(-length // BLOCK) for length in self._shape]
        if list(scales.get_shape()) != blocks:
            raise ValueError(
                f"{file}: {name}{SUFFIX} has shape {list(scales.get_shape())}, but a scale for each"
                f" block of {BLOCK} x {BLOCK} makes {blocks}"
            )

    def get_shape(self) -> Sequence[int]:
        """Returns the shape of the tensor."""
        return self._shape

    def get_dtype(self) -> str:
        """Returns the name that safetensors gives the dtype of what is read."""
        return "F32"

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        bounds = [part.indices(size)[:2] for part, size in zip(index, self._shape, strict=True)]
        blocks = tuple(slice(start // BLOCK, -(-stop // BLOCK)) for start, stop in bounds)
        scales = np.asarray(self._scales[blocks], np.float32)
        rows, columns = (
            np.arange(start, stop) // BLOCK - part.start
            for (start, stop), part in zip(bounds, blocks, strict=True)
        )
        if is_remote(self._file):
            values = read_array(
                self._file, self._offset, ml_dtypes.float8_e4m3fn, self._shape, index
            )
        else:
            # The map lasts for this read only: a process may not hold a map for every tensor.
            values = np.memmap(
                self._file, ml_dtypes.float8_e4m3fn, "r", offset=self._offset, shape=self._shape
            )[index]
        return values.astype(np.float32) * scales[rows][:, columns]
