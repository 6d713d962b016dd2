"""Presents a GGUF file's tensors as a Hugging Face checkpoint's: names, row order, numbers."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

from models.config import ModelConfig
from models.gguf.header import TensorInfo

# Rows that are dequantized at a time; this bounds the memory besides the result.
_ROWS = 1024

ROPE_FACTORS = "rope_freqs.weight"
# Name in a Hugging Face checkpoint -> name here, without `.weight` or `.bias`.
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_LAYER_HERE = re.compile(r"blk\.(\d+)\..+")


def gguf_name(hf_name: str) -> str:
    """Returns llama.cpp's name for a tensor of a Hugging Face checkpoint.

    Raises:
      ValueError: if llama.cpp has no name for it.
    """
    module, _, kind = hf_name.rpartition(".")
    names, prefix = _NAMES, ""
    if layer := _LAYER.fullmatch(module):
        names, prefix, module = _LAYER_NAMES, f"blk.{layer[1]}.", layer[2]
    if module not in names:
        raise ValueError(f"GGUF files of these families have no tensor for {hf_name}")
    return f"{prefix}{names[module]}.{kind}"


def count_layers(names: Sequence[str]) -> int:
    """Returns the number of layers that these tensor names imply."""
    numbers = [int(layer[1]) for layer in map(_LAYER_HERE.fullmatch, names) if layer]
    return max(numbers, default=-1) + 1


def row_order(hf_name: str, config: ModelConfig) -> np.ndarray | None:
    """Returns, for each row of a Hugging Face tensor, its row in the GGUF file; None if equal.

    For Llama, llama.cpp rotates neighbouring pairs of a head's query and key, while Hugging Face
    rotates its halves, so the files store the rows of these matrices in different orders.
    """
    if config.family != "llama" or not hf_name.endswith(("q_proj.weight", "k_proj.weight")):
        return None
    heads = config.num_heads if hf_name.endswith("q_proj.weight") else config.num_kv_heads
    rows = np.arange(heads * config.head_dim).reshape(heads, config.head_dim // 2, 2)
    return rows.swapaxes(1, 2).reshape(-1)


class GgufTensor:
    """A stored tensor; slicing it dequantizes the blocks it needs and returns float32.

    It has the methods that `models.hf.load` needs: `get_shape`, `get_dtype` and slicing.
    """

    def __init__(self, path: Path, name: str, info: TensorInfo, order: np.ndarray | None = None):
        """Describes a tensor of a file; the weights are read later.

        Args:
          path: path of the file.
          name: name of the tensor in it, for messages.
          info: place and storage type of the tensor.
          order: order of its rows, see `row_order`.

        Raises:
          ValueError: if the `gguf` package cannot dequantize the tensor.
        """
        self._path, self._name, self._info, self._order = path, name, info, order
        if not _can_dequantize(info.kind):
            raise ValueError(
                f"{path}: {name} is stored as {info.kind.name}, which cannot be read; convert the"
                " file to f16 or q8_0"
            )

    def get_shape(self) -> Sequence[int]:
        """Returns the shape of the tensor."""
        return self._info.shape

    def get_dtype(self) -> str:
        """Returns the name that safetensors gives the dtype of what is read."""
        return "F32"

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        """Returns a block as float32; `index` has one slice for each axis.

        Raises:
          ValueError: if a value is not finite.
        """
        *of_rows, of_columns = index
        # A vector is one row.
        count = self._info.shape[0] if of_rows else 1
        rows = np.arange(count)[of_rows[0]] if of_rows else np.arange(1)
        if self._order is not None:
            rows = self._order[rows]
        # The map lasts for this read only: a process may not hold a map for every tensor.
        stored = np.memmap(
            self._path, np.uint8, "r", self._info.offset, (count, self._info.row_bytes)
        )
        start, stop, _ = of_columns.indices(self._info.shape[-1])
        found = np.empty((len(rows), stop - start), np.float32)
        for first in range(0, len(rows), _ROWS):
            block = stored[rows[first : first + _ROWS]]
            with np.errstate(all="ignore"):  # What is not finite is reported below.
                numbers = dequantize(block, self._info.kind)
            found[first : first + _ROWS] = numbers[:, start:stop]
        if not np.isfinite(found).all():
            raise ValueError(
                f"{self._path}: {self._name} holds a value that is not finite; the file is damaged,"
                " fetch it again"
            )
        return found if of_rows else found[0]


@functools.cache
def _can_dequantize(kind: GGMLQuantizationType) -> bool:
    try:
        dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True
