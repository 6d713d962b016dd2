"""A policy that compiles in seconds and ends one token in six, and rollouts of it."""

import contextlib
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.decoding.sampling import SamplingParams
from models.tokens.tokenizer_training import train_bpe
from reasoning.generation.generator import Completion
from reasoning.generation.jax_generator import JaxGenerator
from reasoning.problem import Problem
from rl.learner import make_policy_loss
from rl.losses import PolicyLossConfig
from rl.rewards.combine import Scores
from rl.rollouts import Rollouts, RolloutSampler

GROUP, MAX_NEW, TEMPERATURE = 4, 8, 0.7
ROWS, LENGTH = 16, 24
# Programs that run once or twice: compiling them costs more than running them.
QUICK = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
MODEL = LanguageModel(
    ModelConfig(
        family="qwen3",
        vocab_size=264,
        embed_dim=16,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        mlp_dim=32,
        qk_norm=True,
    )  # fmt: skip
)
TOKENIZER = train_bpe(["a"], 258, eos_token="<eos>", pad_token="<pad>")
QUESTIONS = ("1 + 2", "30 + 4 =", "5", "6 + 7 + 8 = ?")
# With a KL term, so that all parts of the loss have a gradient.
LOSS = PolicyLossConfig(beta=0.1)
PROBLEMS = [Problem("sum", question, "") for question in QUESTIONS]


@functools.cache
def params(seed=0):
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        scale = path[-1].key == "scale"
        return np.float32(np.ones(leaf.shape) if scale else rng.normal(0, 0.25, leaf.shape))

    tree = jax.tree_util.tree_map_with_path(draw, MODEL.abstract_params)
    # The first hidden dimension is about the same everywhere, and only the end's logit sees it.
    tree["embedding"][:, 0] = 9.0
    tree["lm_head"]["kernel"][0] = 0.0
    tree["lm_head"]["kernel"][0, TOKENIZER.eos_id] = 0.7
    # Sharper than at initialisation.
    tree["lm_head"]["kernel"][1:] *= 2.0
    return jax.tree.map(jnp.asarray, tree)


class TextRewards:
    """Stands in for a `RewardSet`: scores that differ within a group, by length and by text."""

    def score(self, samples):
        accuracy = np.array([float(s.num_tokens % 2) for s in samples])
        style = np.array([sum(s.completion.encode()) % 5 / 4 for s in samples])
        reasons = {
            "accuracy": [f"{s.num_tokens} tokens" for s in samples],
            "style": [s.completion for s in samples],
        }
        return Scores(accuracy + 0.5 * style, {"accuracy": accuracy, "style": style}, reasons)


@functools.cache
def sampler():
    return RolloutSampler(
        JaxGenerator(MODEL, params(), TOKENIZER, rows=ROWS),
        lambda question: f"{question}:",
        TextRewards(),
        group=GROUP,
        max_new_tokens=MAX_NEW,
        sampling=SamplingParams(temperature=TEMPERATURE),
    )


@functools.cache
def rollouts():
    """`[4, 4]` scored rollouts; some completions end, some are cut off."""
    sampler().generator.params = params()
    return sampler().score(sampler().generate(PROBLEMS, seed=3))


@functools.cache
def loss_and_gradient(config):
    """`(params, batch [ROWS, LENGTH]) -> ((loss, metrics), gradient)`."""
    loss = make_policy_loss(MODEL, config, TEMPERATURE)
    return jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=QUICK)


@functools.partial(jax.jit, compiler_options=QUICK)
def _log_softmax(params, tokens):
    positions = jnp.arange(LENGTH)[None]
    hidden = MODEL.hidden(params, tokens, positions, jnp.ones_like(tokens))
    return jax.nn.log_softmax(MODEL.logits(params, hidden) / TEMPERATURE)[0]


def logprobs(params, prompt_ids, token_ids):
    """Of a completion, by a forward pass over this one sequence."""
    ids = [*prompt_ids, *token_ids]
    table = np.asarray(_log_softmax(params, jnp.array([ids + [0] * (LENGTH - len(ids))])))
    at = np.arange(len(prompt_ids), len(ids))
    return table[at - 1, np.array(ids)[at]]


class ScriptedSampler:
    """Rollouts without a model: `score(problem, seed, g)` is the accuracy of sample g."""

    sampling, max_new_tokens = SamplingParams(), MAX_NEW

    def __init__(self, score, group=2):
        self.generator = types.SimpleNamespace(holding=contextlib.nullcontext, layout_seconds=0.0)
        self._score, self._group, self.seeds = score, group, []

    def generate(self, problems, seed):
        self.seeds.append(seed)
        rng = np.random.default_rng(seed)

        def completion():
            ids = rng.integers(0, 200, rng.integers(1, MAX_NEW + 1)).tolist()
            return Completion("", ids, rng.normal(-3, 1, len(ids)).astype(np.float32), "stop")

        scores = [[self._score(p, seed, g) for g in range(self._group)] for p in problems]
        return Rollouts(
            problems=list(problems),
            prompts=[p.question for p in problems],
            prompt_ids=[[1, 2, 3] for _ in problems],
            completions=[[completion() for _ in range(self._group)] for _ in problems],
            rewards=np.array(scores, float),
            by_reward={"accuracy": np.array(scores, float)},
            reasons={"accuracy": [[""] * self._group for _ in problems]},
        )

    def score(self, rollouts):
        return rollouts
