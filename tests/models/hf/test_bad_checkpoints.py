"""Whatever is wrong with a checkpoint, loading it ends in one line that says so."""

import time

import pytest

from models.tokens import chat_template
from tests.models.hf import bad_checkpoints as bad


@pytest.mark.parametrize("name", bad.CHECKPOINTS)
def test_a_bad_checkpoint_gives_one_line(name, tmp_path):
    damage, value = bad.CHECKPOINTS[name]
    error = bad.outcome(tmp_path, damage)
    assert bad.is_clear(error, tmp_path, value), repr(error)


@pytest.mark.parametrize("name", bad.TEMPLATES)
def test_a_bad_template_gives_one_line_in_bounded_time(name, tmp_path, monkeypatch):
    # At 2 s a template that doubles runs out of memory first, even on a busy machine.
    monkeypatch.setattr(chat_template, "CPU_SECONDS", 2.0)
    source, value = bad.TEMPLATES[name]
    start = time.process_time()
    error = bad.rendering(tmp_path, source)
    assert bad.is_clear(error, tmp_path, value), repr(error)
    assert time.process_time() - start < 5  # This process does not do the work.


def test_the_checkpoint_that_the_cases_damage_is_good(tmp_path):
    assert bad.outcome(tmp_path, lambda directory: None) is None
