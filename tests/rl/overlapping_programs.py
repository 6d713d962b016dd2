"""Trains by RL with older weights at a real model's width; prints digests and whether all agrees.

    python -m tests.rl.overlapping_programs

runs the same training twice: sampling beside the updates, and one after the other. With too few
threads, XLA's products are wrong where programs overlap (`tests/models/test_wide_numerics.py`).
"""

import jax
import numpy as np

from launch.parts.runtime import give_overlapping_programs_threads, prepare_backend
from models.config import ModelConfig
from models.decoder import LanguageModel
from models.decoding.sampling import SamplingParams
from models.sharding import make_mesh
from models.tokens.tokenizer_training import train_bpe
from reasoning.generation.jax_generator import JaxGenerator
from reasoning.problem import Problem
from rl.learner import LearnerConfig, PolicySource, make_policy_loss
from rl.losses import mean_metrics
from rl.problem_stream import ProblemStream
from rl.rewards.combine import Scores
from rl.rollouts import RolloutSampler
from rl.variants import get_variant
from train.frozen import digest
from train.loop import run
from train.optimizer import make_optimizer
from train.state import state_from_params
from train.step import make_train_step

MODEL = LanguageModel(
    ModelConfig(
        family="llama", vocab_size=49_152, embed_dim=576, num_layers=4, num_heads=9,
        num_kv_heads=3, head_dim=64, mlp_dim=1536, tie_embeddings=True, max_length=64,
        dtype="float32",
    )
)  # fmt: skip


class OddTokens:
    """Rewards completions by their first token."""

    def score(self, samples):
        scores = np.array([float(len(s.completion.encode()) % 2) for s in samples])
        return Scores(scores, {"accuracy": scores}, {"accuracy": [""] * len(samples)})


def train(overlap: bool, staleness: int = 1) -> tuple[str, list[float]]:
    """Returns a digest of the weights after three iterations, and sampler gaps when fresh."""
    tokenizer = train_bpe(["a"], 258, eos_token="<eos>", pad_token="<pad>")
    variant = get_variant("grpo", loss={"beta": 0.0, "tis_cap": 2.0})
    mesh = make_mesh({"data": 1}, jax.devices()[:1])
    optimizer = make_optimizer({"learning_rate": 1e-4}, MODEL.abstract_params, 3)
    step = make_train_step(
        make_policy_loss(MODEL, variant.loss, 1.0), optimizer, mesh, normalize_weights=False,
        finalize=mean_metrics,
    )  # fmt: skip
    sampler = RolloutSampler(
        JaxGenerator(MODEL, None, tokenizer, rows=16), lambda question: question, OddTokens(),
        group=4, max_new_tokens=12, sampling=SamplingParams(),
    )  # fmt: skip
    config = LearnerConfig(
        prompts=4, rows=16, row_length=32, recompute_old=True, staleness=staleness,
        fresh_every=100, overlap=overlap,
    )  # fmt: skip
    problems = [Problem("sum", f"{i} + {i} =", "") for i in range(8)]
    source = PolicySource(MODEL, sampler, ProblemStream(problems, 0), variant, config, seed=0)
    params = jax.jit(MODEL.init)(jax.random.key(0))
    seen = []

    class Watch:
        def update(self, step, metrics):
            seen.append((metrics.get("stale", 0.0), metrics["first_sampler_gap_max"]))

        def state_dict(self):
            return {}

    state = state_from_params(MODEL, params, optimizer, mesh)
    result = run(state, step, source, num_steps=3, guards=[Watch()], log_every=1)
    source.close()
    assert [stale for stale, _ in seen] == ([0.0, 1.0, 1.0] if staleness else [0.0] * 3), seen
    return digest(result.state.params), [gap for stale, gap in seen if not stale]


if __name__ == "__main__":
    prepare_backend()
    give_overlapping_programs_threads()
    (beside, gaps), (after, _) = train(True), train(False)
    assert max(gaps) < 1e-3, gaps
    print("equal" if beside == after else "different")
