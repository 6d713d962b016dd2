"""The recipe of countdown: its checks pass, and its world is the one that the config names."""

import pytest

from configs import tiny
from launch import recipe, schema
from launch.recipe import world
from launch.recipe.stages import verifiers
from launch.recipe.worlds import tiny as tiny_world
from launch.schema.tiny import TinyConfig
from reasoning.tasks import get_task
from reasoning.tiny_world import corpus

STAGES = ("base", "verifiers", "search")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    config = tiny.get_config("countdown_smoke")
    config.pretrain.documents = config.tokenizer.documents = 400
    (work,) = world.open_workspaces(
        schema.load(TinyConfig, config), tmp_path_factory.mktemp("countdown"), 1
    )
    return work


def test_the_stages_follow_from_the_base_model_and_pass_their_checks(work):
    assert recipe.lineage("search", work.config.reasoner) == list(STAGES)
    for name in STAGES:
        recipe.get_stage(name).check(work)
    assert len(world.world_of(work.config).seen(work)) > 200


def test_a_worked_solution_fits_all_limits(work):
    """No right solution is cut: not its steps, not as a whole, not as an example of training."""
    plan, config = verifiers.plan(work), work.config
    problems = get_task("tiny_countdown").problems("test", 60, 0)
    solved = world.world_of(config).solved(problems)
    longest = 0
    for question, response in solved:
        ids = work.tokenizer.encode(response)
        longest = max(longest, len(ids))
        for line in response.splitlines(keepends=True):
            assert len(work.tokenizer.encode(line)) < config.search.step_tokens
        prompt = work.tokenizer.encode(plan.template(question))
        assert len(prompt) + len(ids) < config.pretrain.row_length
    limits = config.lengths()
    assert all(longest < limits[name] for name in ("evaluation", "verifiers", "search"))


def test_the_tokenizer_is_trained_on_the_corpus_of_the_config(work, tmp_path):
    sizes = work.config.tokenizer
    first = tiny_world.tokenizer(tmp_path, sizes, "countdown")
    assert first.encode(" bleibt") == work.tokenizer.encode(" bleibt")
    assert len(first.encode(" bleibt")) == 1 < len(first.encode(" schlägt"))
    # The other corpus in the same folder is not mistaken for it.
    other = tiny_world.tokenizer(tmp_path, sizes, "web")
    assert len(other.encode(" schlägt")) == 1 < len(other.encode(" bleibt"))


def test_other_configs_keep_their_corpus():
    for argument in ("", "smoke", "search", "dial"):
        assert tiny.get_config(argument).pretrain.get("corpus", "web") == "web"
    assert "tiny_countdown" not in corpus.DOMAIN_WEIGHTS


def test_varied_documents_are_refused():
    config = tiny.get_config("countdown_smoke")
    config.pretrain.varied = 0.5
    with pytest.raises(ValueError, match=r"pretrain\.varied"):
        schema.load(TinyConfig, config)
