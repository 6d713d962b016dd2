"""Text that is cut anywhere gives the same parts as the whole text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("prometheus_client")
from reasoning.hidden_reasoning import ANSWERING, TAG, THINKING, ThinkingSplitter
from reasoning.serving.batch.text import StopStrings

PIECES = st.sampled_from(
    ["<think>", "</think>", "<answer>", "</answer>", "```", "`", '"', "\n", "<", "/think>", "<th",
     "ink>", "a", " b", "\\", '{"x": "', "é"]
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=25).map("".join)
CUTS = st.lists(st.integers(1, 9), max_size=40)


def cut(text, sizes):
    parts = []
    for size in sizes:
        parts, text = [*parts, text[:size]], text[size:]
    return [*parts, text]


def split(chunks, opening=""):
    splitter, found = ThinkingSplitter(opening), []
    for chunk in chunks:
        found += splitter.feed(chunk)
    return found + splitter.finish()


def characters(segments):
    return [(segment.kind, character) for segment in segments for character in segment.text]


@given(TEXTS, CUTS, st.sampled_from(["", "<think>\n"]))
def test_cuts_change_nothing_and_no_character_is_lost(text, sizes, opening):
    whole, parts = split([text], opening), split(cut(text, sizes), opening)
    assert characters(whole) == characters(parts)
    assert "".join(segment.text for segment in parts) == text
    place = 0
    for segment in parts:
        assert segment.start == place
        place += len(segment.text)


@given(TEXTS, CUTS)
def test_what_was_given_out_is_never_taken_back(text, sizes):
    """After any part of a text, the answer so far is a prefix of the answer in the end."""
    splitter, sofar = ThinkingSplitter("<think>"), []
    final = characters(split([text], "<think>"))
    for part in cut(text, sizes):
        sofar += characters(splitter.feed(part))
        assert final[: len(sofar)] == sofar


@pytest.mark.parametrize(("text", "answer"), [
    ("secret</think>4", "4"),
    ("secret\n```\n</think>\nsecret\n``` still</think>4", "4"),
    ("secret `</think>` secret</think>4", "4"),
    ('secret {"tag": "</think>"} secret</think>4', "4"),
    ('secret {"tag": "</thi', ""),
    ('5" long</think>\n4', "\n4"),
    ("```\n</think>\nsecret", ""),
    ("a</think>write `<think>` so", "write `<think>` so"),
    ("a</think>```xml\n<think>x</think>\n```\n", "```xml\n<think>x</think>\n```\n"),
    ("a</think>b<think>secret", "b"),
])  # fmt: skip
def test_quoted_tags_are_text(text, answer):
    for size in range(1, len(text) + 1):
        chunks = [text[i : i + size] for i in range(0, len(text), size)]
        found = split(chunks, "<think>\n")
        assert "".join(s.text for s in found if s.kind == ANSWERING) == answer
        assert not any(s.text.strip("<>/thinkaswer") for s in found if s.kind == TAG)
        assert "secret" not in answer and {s.kind for s in found} <= {THINKING, ANSWERING, TAG}


@given(st.text("abc", max_size=30), st.lists(st.text("abc", min_size=1, max_size=4)), CUTS)
def test_stop_strings_cut_alike_however_the_text_is_cut(text, strings, sizes):
    def run(chunks):
        stops = StopStrings(strings)
        out = "".join(map(stops.feed, chunks))
        return (out if stops.found else out + stops.finish()), stops.found

    out, found = run(cut(text, sizes))
    assert (out, found) == run([text])
    assert text.startswith(out) and found == any(each in text for each in strings)
    assert not any(each in out for each in strings)
