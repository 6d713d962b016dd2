"""A GGUF file's tensors as a Hugging Face checkpoint has them: names, order of rows, numbers."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

from models.config import ModelConfig
from models.gguf.header import TensorInfo

# Rows that are dequantized at a time: a bound on what is held besides the result.
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
    """The name that llama.cpp gives to a tensor of a Hugging Face checkpoint.

    Raises:
      ValueError: it has no name for it.
    """
    module, _, kind = hf_name.rpartition(".")
    names, prefix = _NAMES, ""
    if layer := _LAYER.fullmatch(module):
        names, prefix, module = _LAYER_NAMES, f"blk.{layer[1]}.", layer[2]
    if module not in names:
        raise ValueError(f"GGUF files of these families have no tensor for {hf_name}")
    return f"{prefix}{names[module]}.{kind}"


def count_layers(names: Sequence[str]) -> int:
    """How many layers tensors of these names are of."""
    numbers = [int(layer[1]) for layer in map(_LAYER_HERE.fullmatch, names) if layer]
    return max(numbers, default=-1) + 1


def row_order(hf_name: str, config: ModelConfig) -> np.ndarray | None:
    """For each row of a Hugging Face tensor, the row of the GGUF file; None where they are alike.

    llama.cpp rotates neighbours of a head's query and key for Llama, where Hugging Face rotates
    the halves; so the rows of these matrices are stored in another order.
    """
    if config.family != "llama" or not hf_name.endswith(("q_proj.weight", "k_proj.weight")):
        return None
    heads = config.num_heads if hf_name.endswith("q_proj.weight") else config.num_kv_heads
    rows = np.arange(heads * config.head_dim).reshape(heads, config.head_dim // 2, 2)
    return rows.swapaxes(1, 2).reshape(-1)


class GgufTensor:
    """A stored tensor that reads as float32 by slices, its blocks dequantized as they are needed.

    It has what `models.hf.load` needs of a stored tensor: `get_shape`, `get_dtype` and slicing.
    """

    def __init__(self, path: Path, name: str, info: TensorInfo, order: np.ndarray | None = None):
        """Args:
        path: of the file.
        name: of the tensor in it, for messages.
        info: where it lies.
        order: see `row_order`.

        Raises:
          ValueError: the `gguf` package cannot dequantize it.
        """
        self._path, self._name, self._info, self._order = path, name, info, order
        if not _can_dequantize(info.kind):
            raise ValueError(
                f"{path}: {name} is stored as {info.kind.name}, which cannot be read; convert the"
                " file to f16 or q8_0"
            )

    def get_shape(self) -> Sequence[int]:
        return self._info.shape

    def get_dtype(self) -> str:
        return "F32"

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        """float32; `index` is one slice for each axis.

        Raises:
          ValueError: a value is not finite.
        """
        *of_rows, of_columns = index
        # A vector is one row.
        count = self._info.shape[0] if of_rows else 1
        rows = np.arange(count)[of_rows[0]] if of_rows else np.arange(1)
        if self._order is not None:
            rows = self._order[rows]
        # Mapped for this one read: a process may not hold as many mappings as there are tensors.
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
