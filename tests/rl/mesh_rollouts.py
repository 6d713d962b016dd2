"""Run by test_sharded_grpo.py on eight virtual devices: RL on one device and on meshes of eight.

Samples on every mesh; on the one with all axes takes a whole iteration too, from the same
parameters and rollouts: log-probs of policy and reference, packing, and a GRPO update of several
microbatches. Prints a JSON object for each mesh, with its largest differences from the one device.
"""

import json
import types

import jax
import numpy as np

from models.decoding.sampling import SamplingParams
from models.decoding.weights import DecodingWeights
from models.sharding import make_mesh
from reasoning.generation.jax_generator import JaxGenerator
from rl.learner import LearnerConfig, PolicySource, make_policy_loss
from rl.losses import mean_metrics
from rl.problem_stream import ProblemStream
from rl.rollouts import RolloutSampler
from rl.variants import get_variant
from tests.rl.tiny_policy import (
    LENGTH,
    MAX_NEW,
    MODEL,
    PROBLEMS,
    ROWS,
    TEMPERATURE,
    TOKENIZER,
    TextRewards,
)
from tests.rl.tiny_policy import params as tiny_params
from train.optimizer import make_optimizer
from train.state import state_from_params
from train.step import make_train_step

# Training splits rows over `context`; the sampler gives its devices rows of their own.
MESHES = [{"data": 8}, {"fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2},
          {"fsdp": 2, "context": 2, "tensor": 2}]  # fmt: skip
MICROBATCHES = 4
SAMPLING = SamplingParams(temperature=TEMPERATURE)
# Adam divides by the gradient's size: a large epsilon keeps it from magnifying rounding errors.
OPTIMIZER = make_optimizer(
    {"name": "adamw", "learning_rate": 1.0, "eps": 0.1, "weight_decay": 0.1, "clip_norm": 0.5},
    MODEL.abstract_params,
    10,
)


def new_state(mesh, seed=0):
    params = jax.tree.map(np.array, tiny_params(seed))
    return state_from_params(MODEL, params, OPTIMIZER, mesh)


def rollout_sampler(params):
    return RolloutSampler(
        JaxGenerator(MODEL, params, TOKENIZER, rows=2 * ROWS), lambda q: f"{q}:", TextRewards(),
        group=4, max_new_tokens=MAX_NEW, sampling=SAMPLING,
    )  # fmt: skip


def samples(mesh, sampler):
    """Greedy and sampled tokens, and the log-probs of the greedy ones."""
    prompts = [f"{problem.question}:" for problem in PROBLEMS] * 2
    arguments = dict(num_samples=4, max_new_tokens=MAX_NEW, seed=5)
    with jax.set_mesh(mesh):
        greedy, sampled = (
            sum(sampler.generator.generate(prompts, sampling=sampling, **arguments), [])
            for sampling in (SamplingParams(temperature=0.0), SAMPLING)
        )
    tokens = [[c.token_ids for c in completions] for completions in (greedy, sampled)]
    return *tokens, np.concatenate([c.logprobs for c in greedy])


def iteration(mesh, sampler, rollouts):
    """The batch made of rollouts, and the state and metrics after an update with it."""
    variant = get_variant("grpo", loss={"beta": 0.1})
    step = make_train_step(
        make_policy_loss(MODEL, variant.loss, TEMPERATURE), OPTIMIZER, mesh,
        accumulate=MICROBATCHES, normalize_weights=False, finalize=mean_metrics,
    )  # fmt: skip
    state = new_state(mesh)
    replayed = types.SimpleNamespace(**vars(sampler), score=lambda scored: scored)
    replayed.generate = lambda problems, seed: rollouts
    source = PolicySource(
        MODEL, replayed, ProblemStream(PROBLEMS, 0), variant,
        LearnerConfig(prompts=4, rows=2 * ROWS, row_length=LENGTH, microbatches=MICROBATCHES,
                      recompute_old=True),
        seed=0, reference_params=new_state(mesh, seed=1).params,
    )  # fmt: skip
    with jax.set_mesh(mesh):
        (batch,) = source.next(state)
    state, metrics = step(state, step.put(batch))
    gates = state.params["layers"]["mlp"]["gate"]["kernel"]
    shard = gates.sharding.shard_shape(gates.shape)
    return shard, batch, jax.tree.map(np.array, (state, metrics))


def copies_of_weights(mesh):
    """How often the weights are copied for three rollouts, the last two with the same ones, and
    over which mesh axes the copy is split."""
    weights, params = DecodingWeights(MODEL), new_state(mesh).params
    copies = [weights(tree) for tree in (new_state(mesh, seed=1).params, params, params)]
    kinds = {id(copy) for copy in copies} - {id(params)}
    axes = {
        axis for leaf in jax.tree.leaves(copies[-1]) for axis in leaf.sharding.spec if axis
    }  # fmt: skip
    assert largest(copies[-1], params) == 0
    return len(kinds), sorted(axes), len(weights._programs)


def largest(one, other):
    """The largest difference of two trees of numbers."""
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(np.abs(np.float64(a) - np.float64(b)).max()) for a, b in leaves)


def main():
    assert jax.device_count() == 8
    alone = make_mesh(devices=jax.devices()[:1])
    sampler = rollout_sampler(new_state(alone).params)
    greedy, sampled, logprobs = samples(alone, sampler)
    with jax.set_mesh(alone):
        rollouts = sampler.score(sampler.generate(PROBLEMS * 2, seed=3)).select(range(4))
    _, batch, (state, metrics) = iteration(alone, sampler, rollouts)
    assert metrics["tokens"] > 50 and metrics["clipped"] and not metrics["skipped"]
    assert largest(state.params, tiny_params()) > 0.1
    assert len(set(map(tuple, sampled))) > 20
    for sizes in MESHES:
        mesh = make_mesh(sizes)
        sampler = rollout_sampler(new_state(mesh).params)
        tokens, drawn, of_tokens = samples(mesh, sampler)
        report = {"mesh": sizes, "greedy": tokens == greedy, "sampled": drawn == sampled}
        report["copies"] = copies_of_weights(mesh)
        if tokens == greedy:
            report["logprobs"] = largest(of_tokens, logprobs)
        if sizes == MESHES[-1]:
            shard, *others = iteration(mesh, sampler, rollouts)
            report["shard"] = shard
            report["batch"] = largest(others[0], batch)
            report["state"] = largest(others[1][0], state)
            report["metrics"] = largest(others[1][1], metrics)
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
