"""Tests that scores of responses and of search steps equal those of a plain forward pass."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.config import ModelConfig
from models.scalar_head import ScalarModel
from models.tokens.tokenizer_training import train_bpe
from reasoning.generation.generator import Completion
from reasoning.problem import Problem, Verdict
from reasoning.tasks import Task
from reasoning.verifiers import aggregate
from reasoning.verifiers.outcome import OutcomeVerifier
from reasoning.verifiers.process import ProcessVerifier
from reasoning.verifiers.reward import RewardVerifier
from reasoning.verifiers.rule import UNDECIDED, RuleVerifier
from reasoning.verifiers.scalar import SequenceScorer

TOKENIZER = train_bpe(["a"], 258, eos_token="<eos>", pad_token="<pad>")
CONFIG = ModelConfig(
    family="qwen3", vocab_size=264, embed_dim=16, num_layers=2, num_heads=4, num_kv_heads=2,
    head_dim=8, mlp_dim=24, qk_norm=True, max_length=96,
)  # fmt: skip
MODEL = ScalarModel(CONFIG)
PROBLEMS = [Problem("toy", question, "yes") for question in ("first", "second one", "3")]
PROMPTS = [f"Q: {problem.question}\nA:" for problem in PROBLEMS]
NEWLINE = TOKENIZER.encode("\n")[0]


@dataclasses.dataclass(frozen=True)
class Step:
    token_ids: list[int]
    text: str
    finish: str


@functools.cache
def params():
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: jnp.asarray(rng.normal(0, 0.4, x.shape), jnp.float32), MODEL.abstract_params
    )


def verifier(kind=ProcessVerifier, **options):
    options = {"generator_tokenizer": TOKENIZER} | options
    return kind(MODEL, params(), TOKENIZER, **options)


@jax.jit
def _values(params, tokens):
    ids = jnp.maximum(tokens, 0)[None]
    hidden = MODEL.hidden(params, ids, jnp.arange(96)[None], (tokens >= 0).astype(jnp.int32)[None])
    return MODEL.values(params, hidden)[0]


def probabilities(prompt, token_ids):
    """The sigmoid of the value at each response token, from this one sequence alone."""
    ids = [*TOKENIZER.encode(prompt), *token_ids]
    padded = np.array(ids + [-1] * (96 - len(ids)))
    values = np.float64(_values(params(), padded))[len(ids) - len(token_ids) : len(ids)]
    return 1 / (1 + np.exp(-values))


def completion(ids, finish="length"):
    return Completion(TOKENIZER.decode(ids), list(ids), None, finish)


def completions(seed=0, most=30):
    rng = np.random.default_rng(seed)
    tokens = [*range(60, 64), NEWLINE]
    return [
        [completion(rng.choice(tokens, rng.integers(1, most)).tolist()) for _ in range(4)]
        for _ in PROBLEMS
    ]


def test_process_scores_stand_at_the_ends_of_steps():
    samples = completions()
    several = 0
    for prompt, group, scores in zip(
        PROMPTS, samples, verifier().score(PROBLEMS, PROMPTS, samples), strict=True
    ):
        for each, found in zip(group, scores, strict=True):
            ids = each.token_ids
            ends = [i for i, t in enumerate(ids) if t == NEWLINE or i == len(ids) - 1]
            np.testing.assert_allclose(found, probabilities(prompt, ids)[ends], atol=1e-5)
            several += len(ends) > 2
    assert several > 3


def test_an_outcome_is_one_score_at_the_end():
    samples = completions()
    scores = verifier(OutcomeVerifier).score(PROBLEMS, PROMPTS, samples)
    for prompt, group, found in zip(PROMPTS, samples, scores, strict=True):
        for each, score in zip(group, found, strict=True):
            expected = probabilities(prompt, each.token_ids)[-1:]
            np.testing.assert_allclose(score, expected, atol=1e-5)


def test_few_programs_serve_all_sizes():
    scorer, rng = SequenceScorer(MODEL, params(), batch_tokens=256), np.random.default_rng(0)
    for count in (1, 3, 20, 50, 35, 7, 11):
        sequences = [rng.integers(0, 264, rng.integers(1, 60)).tolist() for _ in range(count)]
        values = scorer(sequences + sequences[:2])
        assert [len(v) for v in values] == [len(s) for s in sequences + sequences[:2]]
        np.testing.assert_array_equal(values[0], values[count])
    # Rows are 64 tokens long, four at most in a pass: 1, 2 or 4.
    assert scorer.compilations <= 3
    assert scorer([]) == []
    for bad, message in (([1] * 97, "97 tokens; .* context is 96"), ([300], "token 300")):
        with pytest.raises(ValueError, match=message):
            scorer([bad])


def test_text_alone_is_tokenized_and_ended_here():
    samples = [[completion(TOKENIZER.encode("ab\ncd"))] for _ in PROBLEMS]
    foreign = [
        [dataclasses.replace(group[0], token_ids=[7, 7], finish="stop")] for group in samples
    ]
    scores = verifier(generator_tokenizer=None).score(PROBLEMS, PROMPTS, foreign)
    expected = probabilities(PROMPTS[0], [*TOKENIZER.encode("ab\ncd"), TOKENIZER.eos_id])
    np.testing.assert_allclose(scores[0][0], expected[[2, -1]], atol=1e-5)
    empty = [[dataclasses.replace(group[0], text="", finish="length")] for group in foreign]
    scores = verifier(generator_tokenizer=None).score(PROBLEMS, PROMPTS, empty)
    expected = probabilities("", TOKENIZER.encode(PROMPTS[0]))[-1:]
    np.testing.assert_allclose(scores[0][0], expected, atol=1e-5)


def test_another_vocabulary_is_refused():
    other = train_bpe(["a"], 260, text_tokens=("<think>",), eos_token="<eos>", pad_token="<pad>")
    with pytest.raises(ValueError, match="token 258 is b'' for the verifier and b'<think>'"):
        verifier(generator_tokenizer=other)
    swapped = train_bpe(["a"], 258, eos_token="<pad>", pad_token="<eos>")
    with pytest.raises(ValueError, match="tokenizer differs from the generator's: token 0"):
        verifier(generator_tokenizer=swapped)
    # Equal, though another object.
    verifier(generator_tokenizer=train_bpe(["a"], 258, eos_token="<eos>", pad_token="<pad>"))


def search(tracker, seed, rounds=4, copy_at=None):
    """A random search: yields (problem, path of token ids, score) of every step."""
    rng = np.random.default_rng(seed)
    paths = [{-1: []} for _ in PROBLEMS]
    for turn in range(rounds):
        if turn == copy_at:
            # What a copy does must not be seen here.
            twin = tracker.copy()
            list(search_on(twin, np.random.default_rng(99), [dict(p) for p in paths]))
        yield from search_on(tracker, rng, paths)


def search_on(tracker, rng, paths):
    parents, into, steps = [], [], []
    for held in paths:
        count = int(rng.integers(1, 4))
        parents.append(rng.choice(sorted(held), count).tolist())
        into.append(rng.permutation(4)[:count].tolist())
        made = []
        for _ in range(count):
            ids = [*rng.integers(60, 70, rng.integers(0, 5)).tolist(), NEWLINE]
            made.append(Step(ids, TOKENIZER.decode(ids), "delimiter"))
        steps.append(made)
    scores = tracker.extend(parents, into, steps)
    new = [
        {place: held[parent] + step.token_ids for parent, place, step in zip(*each)}
        for held, *each in zip(paths, parents, into, steps)
    ]
    for p, (held, grown) in enumerate(zip(paths, new)):
        held.update(grown)
        for place, score in zip(into[p], scores[p], strict=True):
            yield p, grown[place], score


LIMITS = {"capacity": 4, "width": 3, "max_new_tokens": 30, "step_tokens": 6}


@pytest.mark.parametrize("kind", [ProcessVerifier, OutcomeVerifier])
@pytest.mark.parametrize("by_text", [False, True])
def test_a_search_is_scored_as_whole_responses_are(kind, by_text):
    options = {"generator_tokenizer": None} if by_text else {}
    judge = verifier(kind, **options)
    for seed in range(2):
        tracker = judge.start(PROBLEMS, PROMPTS, **LIMITS)
        seen = 0
        for p, path, score in search(tracker, seed, copy_at=2):
            assert score == pytest.approx(probabilities(PROMPTS[p], path)[-1], abs=1e-5)
            seen += len(path) > 6
        assert seen


def test_a_tracker_refuses_what_a_search_may_not_ask():
    step = Step([60, NEWLINE], "<\n", "delimiter")
    for options in ({"generator_tokenizer": None}, {}):
        tracker = verifier(**options).start(PROBLEMS[:1], PROMPTS[:1], **LIMITS)
        tracker.extend([[-1]], [[0]], [[step]])
        for parents, into, message in (
            ([[2]], [[1]], "holds no path"),
            ([[0]], [[4]], "place 4"),
            ([[0, 0]], [[1, 1]], "distinct|in place 1"),
        ):
            with pytest.raises(ValueError, match=message):
                tracker.extend(parents, into, [[step] * len(into[0])])
    with pytest.raises(ValueError, match="has 4 steps; width=3"):
        tracker.extend([[-1] * 4], [[0, 1, 2, 3]], [[step] * 4])
    with pytest.raises(ValueError, match="a step of 7 tokens exceeds step_tokens=6"):
        tracker.extend([[-1]], [[1]], [[Step([60] * 7, "", "delimiter")]])


def test_flops_are_counted_without_a_vocabulary():
    per_layer = 16 * 8 * (2 * 4 + 2 * 2) + 3 * 16 * 24
    expected = 2 * (2 * per_layer + 16) + 4 * 100 * 2 * 4 * 8
    assert verifier().config.flops_per_token(100) == expected
    assert RuleVerifier(None).config is None and RewardVerifier(print).config is None


class Toy(Task):
    def problems(self, split, count, seed):
        return PROBLEMS[:count]

    def extract(self, response):
        return response.split()[-1] if response.split() else None

    def verify_all(self, problems, answers):
        return [Verdict(p.answer == a, "") for p, a in zip(problems, answers, strict=True)]


def texts(*groups):
    return [[Completion(text, [1], None, "stop") for text in group] for group in groups]


def test_the_oracle_knows():
    oracle = RuleVerifier(Toy("toy"))
    samples = texts(("so yes", "no"), ("", "yes yes"), ("yes no", "yes"))
    scores = oracle.score(PROBLEMS, PROMPTS, samples)
    assert [[s.tolist() for s in group] for group in scores] == [[[1], [0]], [[0], [1]], [[0], [1]]]
    tracker = oracle.start(PROBLEMS, PROMPTS, **LIMITS)
    # An answer that may still change is not judged.
    steps = [
        [Step([1], text, finish)]
        for text, finish in (("yes ", "delimiter"), ("yes", "stop"), ("no", "stop"))
    ]
    assert tracker.extend([[-1]] * 3, [[0]] * 3, steps) == [[UNDECIDED], [1], [0]]
    steps = [[Step([1], "no", "length"), Step([1], "yes", "stop")], [], []]
    assert tracker.extend([[0, 0], [], []], [[1, 2], [], []], steps) == [[0, 1], [], []]


def test_a_reward_is_asked_about_prompt_response_and_problem():
    def reward(prompt, text, problem):
        assert prompt == PROMPTS[PROBLEMS.index(problem)]
        return len(text) / 10

    class Batched:
        def score_batch(self, samples):
            assert all(sample.num_tokens == 1 for sample in samples)
            results = [reward(s.prompt, s.completion, s.problem) for s in samples]
            return [type("Result", (), {"score": score, "reason": ""}) for score in results]

    samples = texts(("abc", ""), ("a",), ("ab",))
    for judge in (RewardVerifier(reward), RewardVerifier(Batched())):
        scores = judge.score(PROBLEMS, PROMPTS, samples)
        assert [[s.tolist() for s in g] for g in scores] == [[[0.3], [0]], [[0.1]], [[0.2]]]
    tracker = RewardVerifier(reward).start(PROBLEMS[:1], PROMPTS[:1], **LIMITS)
    assert tracker.extend([[-1]], [[0]], [[Step([1], "ab", "delimiter")]]) == [[0.2]]
    assert tracker.extend([[0]], [[0]], [[Step([1], "cd", "stop")]]) == [[0.4]]
    with pytest.raises(ValueError, match=r"the reward is 1.1 on completion 'a{11}'.*scale it"):
        RewardVerifier(reward).score(PROBLEMS, PROMPTS, texts(("a" * 11,), (), ()))
    with pytest.raises(ValueError, match="is not callable and has no score_batch"):
        RewardVerifier("accuracy")


def test_aggregation():
    scores = [0.5, 0.25, 1.0]
    found = [aggregate(scores, aggregation) for aggregation in ("last", "min", "product", "mean")]
    assert found == pytest.approx([1.0, 0.25, 0.125, 1.75 / 3])
    assert aggregate([0.3], "product") == pytest.approx(0.3)
    with pytest.raises(ValueError, match="'max' is unknown; choose last, min, product, mean"):
        aggregate(scores, "max")
    with pytest.raises(ValueError, match="no step scores"):
        aggregate([], "min")
