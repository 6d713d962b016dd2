"""Which texts end a step, and that free text splits at lines and sentences."""

import pytest

from models.tokens.tokenizer_training import train_bpe
from reasoning.generation.delimiters import split_steps, step_ends
from reasoning.generation.step_splitter import StepSplitter

TEXT = "We add 3.5 and 4. Is that 7.5? Yes!\nThe answer is 7.5"


def test_one_text_ends_a_step_or_lines_and_sentences_do():
    assert step_ends("\n\n") == ("\n\n",)
    assert step_ends("sentences")[0] == "\n"
    with pytest.raises(ValueError, match="delimiter is empty"):
        step_ends("")


def test_numbers_stay_whole():
    steps = ["We add 3.5 and 4.", "Is that 7.5?", "Yes!", "The answer is 7.5"]
    assert split_steps(TEXT, "sentences") == steps
    assert split_steps(TEXT, "\n") == [" ".join(steps[:3]), steps[3]]


def test_tokens_split_where_their_text_first_holds_an_end():
    tokenizer = train_bpe([TEXT] * 50, 300, eos_token="<eos>")
    ids = tokenizer.encode_batch([TEXT])[0]
    expected, begun = [], ""
    for i, token in enumerate(ids):
        begun += tokenizer.decode([token])
        if i == len(ids) - 1 or any(end in begun for end in step_ends("sentences")):
            expected.append(i)
            begun = ""
    assert len(expected) == 4
    assert StepSplitter(tokenizer, "sentences").ends(ids) == expected
