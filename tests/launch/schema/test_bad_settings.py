"""Wrong settings and data: each is one clear line, before anything is read or written."""

import dataclasses
import importlib
import math
import sys
from pathlib import Path
from typing import Annotated

import pytest
from absl import flags
from ml_collections import ConfigDict

from configs import distill_full, gsm8k_grpo, r1_full
from launch import schema
from launch.parts import command_line
from launch.preflight import machines
from launch.schema import Section, Setting
from launch.schema.fields import LARGEST, fields_of
from launch.schema.loading import recipes
from launch.schema.rl import RlConfig
from launch.schema.sections import check_rows
from launch.schema.supervised import SftConfig
from launch.schema.table import page, rows
from tests.launch.schema import bad_settings
from tests.launch.schema.bad_settings import CASES, ENTRIES

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    bad_settings.make_files(folder)
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{'+'.join(case[1])}")
def test_a_wrong_setting_is_one_line_that_names_the_field(case, folder):
    lines = bad_settings.lines_of(case, folder)
    assert bad_settings.is_clear(case, lines), lines


def test_the_table_is_of_every_recipe_and_its_configs_are_right_otherwise(folder):
    assert len(CASES) >= 100 and {case[0] for case in CASES} == set(ENTRIES)
    for name in ENTRIES:
        config = bad_settings.changed(name, {}, folder)
        assert any(_loads(each, config) for each in recipes()), name


def _loads(recipe, config):
    try:
        schema.load(recipe, config)
    except ValueError:
        return False
    return True


def test_every_mistake_is_told():
    config = gsm8k_grpo.get_config("tiny")
    config.group, config.temperature, config.evaluation.samples = 1, 0.0, 0
    with pytest.raises(schema.ConfigError) as error:
        schema.load(RlConfig, config)
    assert [line.partition("=")[0] for line in error.value.mistakes] == [
        "config.group", "config.temperature", "config.evaluation.samples"
    ]  # fmt: skip


def test_a_config_of_another_entry_point_is_one_line(folder):
    for name, recipe in (("sft", RlConfig), ("teacher", RlConfig), ("rl", SftConfig)):
        config = bad_settings.changed(name, {}, folder)
        with pytest.raises(schema.ConfigError) as error:
            schema.load(recipe, config)
        (line,) = error.value.mistakes
        assert recipe.example in line and "is a recipe of" in line


def test_what_is_loaded_is_what_the_config_has():
    config = gsm8k_grpo.get_config("tiny")
    loaded = schema.load(RlConfig, config)
    assert schema.load(RlConfig, loaded) is loaded
    saved = schema.as_dict(loaded)
    assert saved == schema.as_dict(schema.load(RlConfig, saved))
    assert set(saved) == set(config)
    assert saved["evaluation"]["tasks"] == {"math": "gsm8k"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.steps = 3


def test_every_full_scale_recipe_loads():
    for stage in r1_full.SFT_STAGES + r1_full.RL_STAGES:
        for size in r1_full.BASES:
            recipe = SftConfig if stage in r1_full.SFT_STAGES else RlConfig
            schema.load(recipe, r1_full.get_config(f"{stage},{size}"))
    for student in distill_full.STUDENTS:
        schema.load(SftConfig, distill_full.get_config(student))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bounded(Section):
    number: Annotated[float, Setting("a number", above=0, most=2, also=(-1,))] = 1.0
    whole: Annotated[int | None, Setting("a whole number", least=3)] = None


@pytest.mark.parametrize("value", [0.0, -0.5, 2.1, -2, math.nan, math.inf, LARGEST + 1, "1", True])
def test_bounds_hold(value):
    with pytest.raises(schema.ConfigError, match="config.number="):
        schema.load(Bounded, {"number": value})


@pytest.mark.parametrize("value", [1e-9, 2, 1, -1])
def test_what_is_within_bounds_is_taken(value):
    assert schema.load(Bounded, {"number": value, "whole": 3}).number == value


def test_every_field_says_what_it_is():
    def check(section, seen):
        for field in fields_of(section):
            if field.section is not None and field.section not in seen:
                check(field.section, seen | {field.section})
            elif field.section is None:
                assert field.setting.help, f"{section.__name__}.{field.name}"

    for recipe in recipes():
        check(recipe, {recipe})
        importlib.import_module(recipe.example.removesuffix(".py").replace("/", "."))


def test_options_that_only_code_had_are_fields_of_every_rl_config():
    from rl.advantages import AdvantageConfig
    from rl.losses import PolicyLossConfig

    shown = {row.field for row in rows(schema.load(RlConfig, gsm8k_grpo.get_config()))}
    for prefix, config in (("advantage", AdvantageConfig), ("loss", PolicyLossConfig)):
        assert {f"{prefix}.{f.name}" for f in dataclasses.fields(config)} <= shown
    assert {"aggregation", "dynamic_sampling", "max_resamples", "reference_every"} <= shown


def test_the_page_of_settings_is_the_schema():
    path = ROOT / "docs" / "settings.md"
    assert path.read_text(encoding="utf-8") == page()


def test_rows_that_do_not_divide_over_the_mesh():
    config = schema.load(RlConfig, gsm8k_grpo.get_config("tiny"))
    check_rows(config, 8)
    with pytest.raises(schema.ConfigError, match="config.rows=128: must be a multiple of 48"):
        check_rows(config, 3)


# A command line, and what its one line must have.
COMMAND_LINES = [
    (["--config=nope.py"], "--config=nope.py does not exist"),
    (["--config=configs/gsm8k_gpro.py"], "did you mean configs/gsm8k_grpo.py?"),
    (["--config=configs"], "is a folder"),
    (["--config="], "is empty"),
    (["--config", "README.md"], "is no Python file"),
    (["--config=configs/gsm8k_grpo.py:huge"], "configs/gsm8k_grpo.py:huge is unknown"),
    (["--config.stepz=3"], "has no field 'stepz'; did you mean steps?"),
    (["--config.optimizer.lr=3"], "has no field 'lr'"),
    (["--config.steps=many"], "--config.steps=many: must be a whole number"),
    (["--config.prompts=1.5"], "--config.prompts=1.5: must be a whole number"),
    (["--config.temperature=hot"], "--config.temperature=hot: must be a number"),
    (["--config.recompute_old=perhaps"], "must be true or false"),
    (["--config.optimizer=3"], "is a section"),
    (["--configs=x"], "configs"),
    (["--config=SYNTAX"], "SyntaxError"),
    (["--config=EXITS"], "sys.exit"),
    (["--config=IMPORTS"], "ModuleNotFoundError"),
    (["--config=NOTHING"], "get_config"),
]


@pytest.mark.parametrize("arguments, words", COMMAND_LINES, ids=[str(c[0]) for c in COMMAND_LINES])
def test_a_wrong_command_line_is_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    files = {
        "SYNTAX": "def get_config(:\n", "EXITS": "import sys\nsys.exit(3)\n",
        "IMPORTS": "import no_such_module\n", "NOTHING": "x = 1\n",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / f"{name.lower()}.py").write_text(text)
        path = str(tmp_path / f"{name.lower()}.py")
        arguments = [each.replace(name, path) for each in arguments]
    monkeypatch.setattr("sys.argv", ["run_rl", *arguments])
    monkeypatch.chdir(ROOT)
    # Where ml_collections puts a config file; what an earlier one has defined would stay.
    monkeypatch.delitem(sys.modules, "config_config", raising=False)
    values = flags.FlagValues()
    with pytest.raises(SystemExit) as end:
        command_line.define_config("configs/gsm8k_grpo.py:tiny", flag_values=values)
        command_line.parse_flags(["run_rl", *arguments], values)
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and words in line


def test_a_right_command_line_is_read_and_printed(monkeypatch, capsys):
    arguments = ["--config=configs/gsm8k_grpo.py:tiny", "--config.steps=7", "--print_config"]
    monkeypatch.setattr("sys.argv", ["run_rl", *arguments])
    monkeypatch.chdir(ROOT)
    values = flags.FlagValues()
    flag = command_line.define_config("configs/gsm8k_grpo.py", flag_values=values)
    command_line.parse_flags(["run_rl", *arguments], values)
    assert command_line.read_config(flag, RlConfig, print_it=False).steps == 7
    with pytest.raises(SystemExit) as end:
        command_line.read_config(flag, RlConfig, print_it=values.print_config)
    lines = capsys.readouterr().out.splitlines()
    assert end.value.code == 0
    assert any(line.startswith("config.steps=7  [at least 1, steps]") for line in lines)


@pytest.mark.parametrize("topology", ["cpu:0", "v5p:0x2", "v5p", "cpu:-1", ":4"])
def test_topologies_of_no_devices_are_refused(topology):
    with pytest.raises(ValueError, match="write GENERATION:SHAPE"):
        machines.prepare(topology)


def test_a_config_that_is_none():
    with pytest.raises(schema.ConfigError, match="config is 3, of type int"):
        schema.load(RlConfig, 3)
    with pytest.raises(schema.ConfigError, match="it must be a ConfigDict"):
        schema.load(RlConfig, ConfigDict({**gsm8k_grpo.get_config(), "optimizer": "adamw"}))
