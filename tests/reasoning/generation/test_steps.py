"""Tests of step generators, compiled and over text: texts of steps, forks, copies and limits."""

import jax
import numpy as np
import pytest

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.decoding.sampling import SamplingParams
from models.tokens.tokenizer_training import train_bpe
from reasoning.generation.generator import Completion
from reasoning.generation.jax_generator import JaxGenerator
from reasoning.generation.jax_steps import JaxStepGenerator
from reasoning.generation.steps import ROOT
from reasoning.generation.text_steps import TextStepGenerator

CONFIG = ModelConfig(
    family="qwen3", vocab_size=300, embed_dim=16, num_layers=1, num_heads=2, num_kv_heads=1,
    head_dim=8, mlp_dim=16,
)  # fmt: skip
PROMPTS = ["What is 1 + 2?", "Who?", "Berechne 3 + 4."]
LIMITS = dict(capacity=6, width=4, max_new_tokens=24, step_tokens=6, delimiter="\n")
# A sampler of whole completions is compiled for every number of tokens that is asked for.
FEW = LIMITS | {"max_new_tokens": 4, "step_tokens": 2}


@pytest.fixture(scope="module")
def tokenizer():
    # Among its tokens are newlines with spaces around them, and pieces of longer characters.
    return train_bpe(["a \n b", " \n", "\n\n", "ä€𝄞"] * 9, 299, eos_token="<eos>")


@pytest.fixture(scope="module")
def params(tokenizer):
    """Random, but newlines, bytes of long characters, and the end are likely."""
    params = jax.tree.map(np.array, LanguageModel(CONFIG).init(jax.random.key(0)))
    # The first hidden dimension is the same everywhere, and those tokens' logits depend on it.
    params["embedding"][:, 0] = 9.0
    params["lm_head"]["kernel"][0] = 0.0
    for token in range(tokenizer.vocab_size):
        piece = tokenizer.token_bytes(token)
        if b"\n" in piece:
            params["lm_head"]["kernel"][0, token] = 0.8
        elif max(piece, default=0) > 127 and tokenizer.decode([token]) == "\ufffd":
            params["lm_head"]["kernel"][0, token] = 0.2
    params["lm_head"]["kernel"][0, tokenizer.eos_id] = 0.9
    return jax.tree.map(jax.numpy.asarray, params)


@pytest.fixture(scope="module")
def generator(tokenizer, params):
    return JaxStepGenerator(LanguageModel(CONFIG), params, tokenizer)


@pytest.fixture(scope="module")
def text_generator(tokenizer, params):
    return TextStepGenerator(JaxGenerator(LanguageModel(CONFIG), params, tokenizer, rows=16))


def walk(paths, rng, rounds):
    """Extends open paths at random; yields (before, step, after) as (token ids, text, finish)."""
    held = [{ROOT: ([], "", "")} for _ in PROMPTS]
    for _ in range(rounds):
        parents, into = [], []
        for of_prompt in held:
            free = [place for place, (_, _, finish) in of_prompt.items()
                    if finish not in ("stop", "length")]  # fmt: skip
            count = rng.integers(0, LIMITS["width"] + 1)
            parents.append(rng.choice(free, count).tolist())
            into.append(rng.permutation(LIMITS["capacity"])[:count].tolist())
        steps = paths.extend(parents, into)
        before = [dict(of_prompt) for of_prompt in held]
        for p, of_prompt in enumerate(steps):
            assert len(of_prompt) == len(parents[p])
            for parent, place, step in zip(parents[p], into[p], of_prompt):
                ids, text, _ = before[p][parent]
                held[p][place] = (ids + step.token_ids, text + step.text, step.finish)
                yield before[p][parent], step, held[p][place]
        for p, of_prompt in enumerate(held):
            for place, (ids, text, _) in of_prompt.items():
                assert paths.token_ids(p, place) == ids and paths.text(p, place) == text


@pytest.mark.parametrize("kind, limits", [("generator", LIMITS), ("text_generator", FEW)])
def test_texts_and_tokens_of_steps_make_up_those_of_their_path(kind, limits, request, tokenizer):
    paths = request.getfixturevalue(kind).start(PROMPTS, **limits, seed=1)
    most = limits["max_new_tokens"]
    assert paths.prompt_tokens == [len(tokenizer.encode(prompt)) for prompt in PROMPTS]
    finishes, sampled, cut, inside = set(), 0, 0, 0
    for before, step, (ids, text, finish) in walk(paths, np.random.default_rng(0), 24):
        finishes.add(finish)
        sampled += len(step.token_ids)
        assert 1 <= len(step.token_ids) <= limits["step_tokens"] and len(ids) <= most
        assert step.logprobs.shape == (len(step.token_ids),)
        assert (len(ids) == most) == (finish == "length") or finish == "stop"
        assert (step.token_ids[-1] == tokenizer.eos_id) == (finish == "stop")
        pieces = [tokenizer.token_bytes(i) for i in step.token_ids]
        assert b"\n" not in b"".join(pieces[:-1])
        if finish == "delimiter":
            assert b"\n" in pieces[-1] and "\n" in step.text
            inside += pieces[-1] != b"\n"
        if kind == "generator":
            whole = tokenizer.decode(ids[: len(ids) - (finish == "stop")])
            cut += whole != text
            assert text == (whole if step.ended else whole.rstrip("\ufffd"))
    assert finishes == {"delimiter", "stop", "step_length", "length"}
    assert paths.sampled_tokens.sum() == sampled and inside
    assert cut or kind != "generator"


def test_greedy_steps_make_up_the_greedy_completion(generator, text_generator):
    greedy = SamplingParams(temperature=0.0)
    whole = text_generator.generator.generate(PROMPTS, max_new_tokens=24, sampling=greedy)
    paths = generator.start(PROMPTS, **LIMITS, sampling=greedy)
    ended = [False] * len(PROMPTS)
    parents = [[ROOT] for _ in PROMPTS]
    while not all(ended):
        rows = [[] if end else places for end, places in zip(ended, parents)]
        steps = paths.extend(rows, [[0] * len(row) for row in rows])
        ended = [end or each[0].ended for end, each in zip(ended, steps)]
        parents = [[0] for _ in PROMPTS]
    for p, (completion,) in enumerate(whole):
        assert paths.token_ids(p, 0) == completion.token_ids
        assert paths.text(p, 0) == completion.text


@pytest.mark.parametrize("kind, limits", [("generator", LIMITS), ("text_generator", FEW)])
def test_seeds_decide_and_copies_go_their_own_way(kind, limits, request):
    start = request.getfixturevalue(kind).start
    roots, places = [[ROOT] * 4] * 3, [[0, 1, 2, 3]] * 3

    def drawn(steps):
        return [step.token_ids for of_prompt in steps for step in of_prompt]

    def open_rows(steps):
        return [[i for i, step in enumerate(each) if not step.ended] for each in steps]

    def search(seed, look_ahead):
        paths = start(PROMPTS, **limits, seed=seed)
        steps = paths.extend(roots, places)
        rows = open_rows(steps)
        if look_ahead:
            ahead, before = paths.copy(), paths.token_ids(0, 0)
            rollout = ahead.extend(rows, rows)
            assert paths.token_ids(0, 0) == before
            assert paths.sampled_tokens.sum() == sum(map(len, drawn(steps) + drawn(rollout)))
            assert ahead.sampled_tokens is paths.sampled_tokens
            # Both go on from the same paths; what a rollout draws is not drawn again.
            assert drawn(paths.extend(rows, rows)) != drawn(rollout)
            return ahead.token_ids(0, rows[0][0])[: len(steps[0][rows[0][0]].token_ids)], steps
        return drawn(steps), steps

    assert search(1, False)[0] == search(1, False)[0] != search(2, False)[0]
    prefix, steps = search(1, True)
    assert prefix in drawn(steps)


def test_searches_of_a_shape_compile_nothing(generator):
    def search(prompts, seed):
        paths = generator.start(prompts, **LIMITS, seed=seed)
        paths.extend([[ROOT] * 2] * len(prompts), [[0, 1]] * len(prompts))

    search(PROMPTS, 0)
    samplers = [sampler for kept in generator._samplers.values() for sampler in kept]
    compilations = [sampler.compilations for sampler in samplers]
    search(PROMPTS[:1], 1)
    search(PROMPTS, 2)
    assert samplers == [sampler for kept in generator._samplers.values() for sampler in kept]
    assert compilations == [sampler.compilations for sampler in samplers]


class Server:
    """Answers with what is written, whatever it is asked; keeps the questions."""

    def __init__(self, *completions):
        self.completions, self.asked = list(completions), []

    def generate(self, prompts, *, num_samples=1, max_new_tokens, sampling=None, stop=(), seed=0):
        self.asked.append((list(prompts), max_new_tokens, tuple(stop), seed))
        return [[self.completions.pop(0)] for _ in prompts]


def test_a_server_is_given_the_path_so_far_and_what_is_left_of_its_tokens():
    server = Server(
        Completion("one\n", [1, 2, 3], None, "stop_string"),
        Completion("two and", [1] * 6, None, "length"),
        Completion("a\n", [7] * 5, None, "stop_string"),
        Completion(" more\n", [1, 2], None, "stop_string"),
        Completion("", [], None, "length"),
    )
    limits = LIMITS | {"max_new_tokens": 8, "width": 2}
    paths = TextStepGenerator(server).start(["p:", "q:"], **limits, seed=3)
    steps = paths.extend([[ROOT], [ROOT]], [[0], [1]])
    assert [[step.finish for step in each] for each in steps] == [["delimiter"], ["step_length"]]
    steps = paths.extend([[0], [1]], [[2], [1]])
    # Prompt 0 has five tokens left, prompt 1 two; no more are asked for.
    assert [call[:3] for call in server.asked] == [
        (["p:", "q:"], 6, ("\n",)), (["p:one\n"], 5, ("\n",)), (["q:two and"], 2, ("\n",)),
    ]  # fmt: skip
    assert [each[0].finish for each in steps] == ["length", "length"]
    assert paths.text(0, 0) == "one\n" and paths.text(1, 1) == "two and more\n"
    assert paths.text(0, 2) == "one\na\n" and paths.token_ids(0, 2) == [1, 2, 3] + [7] * 5
    assert paths.sampled_tokens.tolist() == [8, 8] and paths.prompt_tokens == [0, 0]
    assert len({call[3] for call in server.asked}) == 3
    (step,), _ = paths.extend([[0], []], [[0], []])
    assert step.finish == "length", "a path that does not grow ends"


@pytest.mark.parametrize("kind", ["generator", "text_generator"])
@pytest.mark.parametrize(
    "parents, into, message",
    [
        ([[ROOT]], [[0]], "there are 3 prompts, but parents has 1 rows"),
        ([[ROOT] * 5, [], []], [[0, 1, 2, 3, 4], [], []], "5 parents for 5 places"),
        ([[ROOT, 0], [], []], [[0], [], []], "2 parents for 1 places"),
        ([[ROOT], [], []], [[-1], [], []], "stores a path in place -1"),
        ([[ROOT], [], []], [[6], [], []], "into names place 6"),
        ([[3], [], []], [[0], [], []], "place 3 of prompt 0 holds no path"),
        ([[ROOT, ROOT], [], []], [[1, 1], [], []], "stored in place 1"),
    ],
)
def test_bad_requests_are_named(kind, request, parents, into, message):
    paths = request.getfixturevalue(kind).start(PROMPTS, **LIMITS)
    with pytest.raises(ValueError, match=message):
        paths.extend(parents, into)


def test_bad_settings_are_named(generator, text_generator):
    for each in (generator, text_generator):
        with pytest.raises(ValueError, match="step_tokens=0 must be at least 1"):
            each.start(PROMPTS, **LIMITS | {"step_tokens": 0})
        with pytest.raises(ValueError, match="empty"):
            each.start(PROMPTS, **LIMITS | {"delimiter": ""})
