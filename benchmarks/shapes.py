"""The models and the work that the benchmarks measure: two toys and two real shapes."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from models.config import ModelConfig
from models.named_configs import NAMED_CONFIGS
from models.tokens.tokenizer_training import train_bpe
from reasoning.tiny_world import corpus

TOY_VOCAB = 512


@dataclasses.dataclass(frozen=True)
class Generation:
    """Prompts of one length, `group` samples of each, all of `new_tokens` tokens."""

    prompts: int
    group: int
    prompt_tokens: int
    new_tokens: int

    @property
    def tokens(self) -> int:
        """Generated tokens in all."""
        return self.prompts * self.group * self.new_tokens


@dataclasses.dataclass(frozen=True)
class Shape:
    """A model and its work.

    Attributes:
      config: of the model, whose weights are random.
      rows: of a training batch.
      length: tokens of a row.
      generations: name -> what is generated.
      rounds: training steps that count.
    """

    config: ModelConfig
    rows: int
    length: int
    generations: Mapping[str, Generation]
    rounds: int

    def documents(self) -> dict[str, list[np.ndarray]]:
        """Returns token ids of full rows (`dense`) and of uneven documents (`documents`).

        The lengths of documents are those of the tiny world's corpus, stretched so that the longest
        of a batch fills a row. Their tokens are random where the vocabulary is not the toys'.
        """
        rng = np.random.default_rng(0)
        size = self.config.vocab_size

        def random_tokens(count):
            return rng.integers(0, size, count).astype(np.int32)

        texts = corpus.documents(2000, seed=0)
        tokenizer = train_bpe(texts, TOY_VOCAB, eos_token="<eos>")
        documents, total = [], 0
        for ids in tokenizer.encode_batch(texts):
            length = len(ids) * max(1, self.length // 128)
            if total + length > 0.95 * self.rows * self.length:
                break
            documents.append(
                np.array(ids, np.int32) if size == TOY_VOCAB else random_tokens(length)
            )
            total += length
        dense = [random_tokens(self.length) for _ in range(self.rows)]
        return {"dense": dense, "documents": documents}


def _toy(width: int) -> Shape:
    """Returns a Qwen3 of 4 layers with D = `width`."""
    config = ModelConfig(
        family="qwen3", vocab_size=TOY_VOCAB, embed_dim=width, num_layers=4,
        num_heads=width // 32, num_kv_heads=max(1, width // 128), head_dim=32, mlp_dim=3 * width,
        qk_norm=True, tie_embeddings=True, max_length=512, scan_unroll=4,
    )  # fmt: skip
    generations = {"generation_64": Generation(64, 1, 24, 96)}
    return Shape(config, rows=16, length=128, generations=generations, rounds=15)


_SMOLLM2 = ModelConfig(
    family="llama", vocab_size=49_152, embed_dim=576, num_layers=30, num_heads=9, num_kv_heads=3,
    head_dim=64, mlp_dim=1536, rope_theta=100_000.0, tie_embeddings=True, max_length=8192,
    remat="dots",
)  # fmt: skip

_REAL = {
    "generation_1": Generation(1, 1, 32, 64),
    "generation_4": Generation(4, 1, 32, 64),
    "generation_16": Generation(16, 1, 32, 64),
    "generation_64": Generation(64, 1, 32, 64),
    "generation_256": Generation(256, 1, 32, 64),
    "generation_16_long_prompts": Generation(16, 1, 512, 64),
    "generation_64_of_one_prompt": Generation(1, 64, 512, 64),
}

SHAPES = {
    "d128": _toy(128),
    "d512": _toy(512),
    "smollm2-135m": Shape(_SMOLLM2, rows=8, length=256, generations=_REAL, rounds=6),
    "qwen2.5-0.5b": Shape(
        NAMED_CONFIGS["qwen2.5-0.5b"].replace(remat="dots"), rows=4, length=256,
        generations={name: _REAL[name] for name in ("generation_1", "generation_16")}, rounds=3,
    ),
}  # fmt: skip
