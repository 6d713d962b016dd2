"""Tests Math-Shepherd labels with a scripted generator, whose shares can be counted by hand."""

import collections
import json

import numpy as np
import pytest

from models.tokens.tokenizer_training import train_bpe
from reasoning.generation.generator import Completion
from reasoning.problem import Problem, Verdict
from reasoning.tasks import Task
from reasoning.training_data.prm_step_labels import LabelSettings, hard_labels, label_steps

TOKENIZER = train_bpe(["a"], 258, eos_token="<eos>", pad_token="<pad>")
EOS = TOKENIZER.eos_id
PROBLEMS = [Problem("toy", f"{i}?", "yes") for i in range(5)]
SETTINGS = LabelSettings(solutions=3, completions=4, max_new_tokens=12, chunk=2, seed=7)


class Toy(Task):
    """The answer is the last line."""

    def problems(self, split, count, seed):
        return PROBLEMS[:count]

    def extract(self, response):
        return response.split("\n")[-1]

    def verify_all(self, problems, answers):
        return [Verdict(p.answer == a, "") for p, a in zip(problems, answers, strict=True)]


class Scripted:
    """Solutions and completions drawn from a short list; remembers what it was asked."""

    tokenizer = TOKENIZER

    def __init__(self, fail_after=None):
        self.calls, self._fail_after = [], fail_after

    def generate_from_ids(
        self, prompt_ids, *, num_samples, max_new_tokens, sampling, seed, limits=None
    ):
        if len(self.calls) == self._fail_after:
            raise KeyboardInterrupt
        limits = limits or [max_new_tokens] * len(prompt_ids)
        self.calls.append((prompt_ids, num_samples, limits, sampling.temperature, seed))
        rng = np.random.default_rng(seed)
        # A solution has two lines before its answer, a completion goes on with the answer or with
        # one line more.
        texts = ["yes", "d\nno", "no"]
        if num_samples == SETTINGS.solutions:
            texts = ["a\nb\nyes", "a\nb\nno", "a\nc\nyes", "ab"]
        groups = []
        for limit in limits:
            groups.append([])
            for _ in range(num_samples):
                ids = [*TOKENIZER.encode(str(rng.choice(texts))), EOS][:limit]
                ended = ids[-1] == EOS
                text = TOKENIZER.decode(ids[:-1] if ended else ids)
                groups[-1].append(Completion(text, ids, None, "stop" if ended else "length"))
        return groups


def run(tmp_path, generator=None, problems=PROBLEMS, settings=SETTINGS):
    generator = generator or Scripted()
    told = []
    labelled = label_steps(
        generator, Toy("toy"), problems, "Q{}".format, settings, tmp_path, told.append
    )
    chunks = range(0, len(problems), settings.chunk)
    assert told == [min(start + settings.chunk, len(problems)) for start in chunks]
    return generator, labelled


def text(ids):
    return TOKENIZER.decode([i for i in ids if i != EOS])


def test_labels_are_the_shares_of_completions_that_end_right(tmp_path):
    generator, labelled = run(tmp_path)
    assert len(labelled) == 15
    partial = 0
    for chunk in range(3):
        (_, solutions_asked, _, _, seed), completions = generator.calls[2 * chunk : 2 * chunk + 2]
        members = labelled[6 * chunk : 6 * (chunk + 1)]
        # The same draws again, and by hand which of them end right.
        again = Scripted().generate_from_ids(
            completions[0], num_samples=4, max_new_tokens=12, limits=completions[2],
            sampling=type("T", (), {"temperature": 1.0}), seed=completions[4],
        )  # fmt: skip
        share = {}
        for asked, group in zip(completions[0], again):
            share[tuple(asked)] = np.mean([c.text.split("\n")[-1] == "yes" for c in group])
        for each in members:
            prompt = TOKENIZER.encode(each.prompt)
            assert each.prompt == f"Q{each.question}"
            assert each.correct == (text(each.token_ids).split("\n")[-1] == "yes")
            lines = text(each.token_ids).count("\n") + 1
            assert len(each.step_ends) == len(each.labels) == lines
            for end, label in zip(each.step_ends[:-1], each.labels):
                assert label == share[(*prompt, *each.token_ids[: end + 1])]
                partial += 0 < label < 1
            assert each.step_ends[-1] == len(each.token_ids) - 1
            assert each.labels[-1] == float(each.correct)
    assert partial > 3


def test_equal_prefixes_are_rolled_out_once_and_within_the_limit(tmp_path):
    generator, labelled = run(tmp_path)
    generated = prefilled = 0
    for i, (prompts, num_samples, limits, temperature, _) in enumerate(generator.calls):
        assert temperature == 1.0 and num_samples == (4 if i % 2 else 3)
        if i % 2:
            assert len({tuple(p) for p in prompts}) == len(prompts)
            for prompt, limit in zip(prompts, limits):
                assert len(prompt) - len(TOKENIZER.encode("Q0?")) + limit == 12
        prefilled += sum(len(prompt) for prompt in prompts)
    prefixes = [
        (each.question, tuple(each.token_ids[: end + 1]))
        for each in labelled
        for end in each.step_ends[:-1]
    ]
    asked = [prompt for prompts, *_ in generator.calls[1::2] for prompt in prompts]
    assert len(asked) == len(set(prefixes)) < len(prefixes)
    # What was spent is all accounted for.
    assert sum(each.prefill_tokens for each in labelled) == prefilled
    for prompts, num_samples, limits, _, seed in generator.calls:
        groups = Scripted().generate_from_ids(
            prompts, num_samples=num_samples, max_new_tokens=12, limits=limits,
            sampling=type("T", (), {"temperature": 1.0}), seed=seed,
        )  # fmt: skip
        generated += sum(len(c.token_ids) for group in groups for c in group)
    assert sum(each.generated_tokens for each in labelled) == generated


def test_an_interrupted_run_goes_on_and_ends_the_same(tmp_path):
    whole, labelled = run(tmp_path / "whole")
    broken = Scripted(fail_after=3)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", broken)
    written = sorted(path.name for path in (tmp_path / "parts").iterdir())
    assert written == ["00000.jsonl", "settings.json"]
    rest, again = run(tmp_path / "parts")
    assert again == labelled
    assert rest.calls == whole.calls[2:]
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "parts" / path.name).read_bytes()
    finished, _ = run(tmp_path / "parts")
    assert not finished.calls
    record = json.loads((tmp_path / "parts" / "00002.jsonl").read_text().splitlines()[0])
    assert {"prompt", "token_ids", "step_ends", "labels"} <= record.keys()


def test_completions_have_a_temperature_of_their_own(tmp_path):
    settings = LabelSettings(3, 4, 12, temperature=1.3, completion_temperature=0.5)
    generator, _ = run(tmp_path, settings=settings)
    assert [call[3] for call in generator.calls] == [1.3, 0.5]


def test_chunks_and_purposes_draw_apart(tmp_path):
    generator, labelled = run(tmp_path / "a")
    assert len({call[4] for call in generator.calls}) == 6
    other = LabelSettings(solutions=3, completions=4, max_new_tokens=12, chunk=2, seed=8)
    assert run(tmp_path / "b", settings=other)[1] != labelled


def test_labels_of_something_else_are_not_mixed_in(tmp_path):
    run(tmp_path)
    for changes, name in (
        ({"settings": LabelSettings(3, 5, 12, chunk=2, seed=7)}, "completions=4, not 5"),
        ({"problems": PROBLEMS[:4]}, "prompts="),
    ):
        with pytest.raises(ValueError, match=f"holds step labels with {name}"):
            run(tmp_path, **changes)


def test_bad_settings_and_no_problems_are_refused(tmp_path):
    with pytest.raises(ValueError, match="completions=0"):
        LabelSettings(solutions=1, completions=0, max_new_tokens=4)
    with pytest.raises(ValueError, match="temperature=0"):
        LabelSettings(solutions=1, completions=1, max_new_tokens=4, temperature=0)
    with pytest.raises(ValueError, match="completions=2 would be equal"):
        LabelSettings(solutions=1, completions=2, max_new_tokens=4, completion_temperature=0)
    with pytest.raises(ValueError, match="no problems to label"):
        run(tmp_path, problems=[])
    assert not list(tmp_path.iterdir())


def test_a_hard_label_asks_for_one_success():
    assert hard_labels([0.0, 0.25, 1.0]) == [0.0, 1.0, 1.0]
    assert collections.Counter(hard_labels([0.0] * 3)) == {0.0: 3}
