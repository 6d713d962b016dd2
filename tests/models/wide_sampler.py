"""Samples three times at a real model's width and compares with the trainer's forward pass.

    python -m tests.models.wide_sampler

prints "equal" if every call gives the same tokens and the trainer's log-probs.
"""

import jax
import numpy as np

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.decoding.sampler import Sampler
from models.decoding.sampling import SamplingParams
from models.decoding.self_check import Sampled, SamplerCheck

PROMPT, GROUP, NEW = 40, 8, 16


def main() -> None:
    model = LanguageModel(
        ModelConfig(
            family="llama", vocab_size=16_384, embed_dim=576, num_layers=8, num_heads=9,
            num_kv_heads=3, head_dim=64, mlp_dim=1536, tie_embeddings=True, max_length=64,
            dtype="float32",
        )
    )  # fmt: skip
    params = jax.jit(model.init)(jax.random.key(0))
    # Sharper than at initialisation, so that an error in one layer shows in the log-probs.
    params = jax.tree.map(lambda x: 6 * x if x.ndim > 2 else x, params)
    prompts = [[(37 * i + 11 * j) % 4000 + 3 for j in range(PROMPT)] for i in range(8)]
    sampler = Sampler(model, slots=8, group=GROUP, max_new_tokens=NEW, stop_ids=[2])
    check, found = SamplerCheck(model), []
    for _ in range(3):
        out = sampler(params, prompts, jax.random.key(1), SamplingParams(temperature=1.0))
        found.append(out)
        for i in (0, 4):
            drawn = [
                Sampled(prompt, out.ids(n, i), out.logprobs[n, i, : out.lengths[n, i]])
                for n, prompt in enumerate(prompts[i : i + 4], i)
            ]
            kl, gap = check(params, drawn, temperature=1.0)
            assert gap < 1e-3 and kl < 1e-6
    for other in found[1:]:
        np.testing.assert_array_equal(other.tokens, found[0].tokens)
        np.testing.assert_array_equal(other.logprobs, found[0].logprobs)
    print("equal")


if __name__ == "__main__":
    main()
