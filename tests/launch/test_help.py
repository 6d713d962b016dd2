"""`--help` of every entry point: complete, and quick because it imports nothing heavy."""

import ast
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from launch.schema.fields import fields_of
from launch.schema.loading import recipes
from launch.schema.small import SmallConfig
from launch.schema.tiny import TinyConfig

ROOT = Path(__file__).parents[2]
ENTRIES = sorted(path.stem for path in (ROOT / "launch").glob("run_*.py"))
HEAVY = {
    "jax", "jaxlib", "flax", "optax", "orbax", "tensorflow_datasets", "grain", "sympy",
    "reasoning_gym", "matplotlib", "sklearn", "transformers", "torch",
}  # fmt: skip
# Programs that read a config of a recipe that names another program as its own.
READS = {"run_search": "launch.run_r1", "run_preflight": "launch.run_rl"}


def helped(entry, *arguments):
    """Standard output, the modules that were imported, CPU seconds and exit code of `--help`."""
    command = [sys.executable, "-X", "importtime", "-m", f"launch.{entry}", *arguments]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=err)
        # Time of the processor, which other work on the machine does not change as it does a clock.
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        imported = set(re.findall(r"\| +([\w.]+)$", err.read(), re.M))
        return out.read(), imported, used.ru_utime + used.ru_stime, child.returncode


def field_names(schema, path=""):
    for field in fields_of(schema):
        if field.section is not None:
            yield from field_names(field.section, f"{path}{field.name}.")
        else:
            yield f"{path}{field.name}"


@pytest.mark.parametrize("entry", ENTRIES)
def test_help_is_complete_and_quick(entry):
    text, imported, seconds, code = helped(entry, "--help")
    assert code == 0
    tops = {name.partition(".")[0] for name in imported}
    assert "absl" in tops and not tops & HEAVY
    assert seconds < 1

    source = (ROOT / "launch" / f"{entry}.py").read_text()
    assert text.startswith(ast.get_docstring(ast.parse(source)).partition("\n\n")[0])
    example = text.partition("Example:")[2].partition("Flags")[0]
    assert f"    python -m launch.{entry} --" in example or f"launch.{entry} runs/" in example
    # The first line of a command that goes on ends in a backslash, so that it can be pasted.
    assert all(len(line) <= 100 for line in text.splitlines() if line.startswith("    python"))

    for name in re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', source):
        assert re.search(rf"^  --{name}=\S+\s+\[", text, re.M), name
    kind = [r for r in recipes() if r.entry_point == READS.get(entry, f"launch.{entry}")]
    assert bool(kind) == ("define_config" in source)
    # Of several, the first is the one of the default config.
    for recipe in kind[:1]:
        for name in field_names(recipe):
            assert re.search(rf"^    {re.escape(name)}=", text, re.M), name


def test_values_are_those_of_the_config_that_is_given():
    text, *_ = helped("run_rl", "--config=configs/gsm8k_grpo.py:tiny", "--help")
    assert "Fields of --config=configs/gsm8k_grpo.py:tiny" in text
    assert re.search(
        r"^    steps=\d+  \[a whole number or None, at least 1, steps\] updates", text, re.M
    )
    usual, *_ = helped("run_rl", "--help")
    assert re.search(r"^    steps=None  ", usual, re.M)
    assert "optimizer.learning_rate=" in usual and "\n  optimizer\n" in usual


def test_fields_are_those_of_the_configs_own_recipe():
    text, *_ = helped("run_r1", "--config=configs/small.py", "--help")
    names = set(field_names(SmallConfig))
    assert names - set(field_names(TinyConfig))
    assert names == set(re.findall(r"^    ([\w.]+)=", text, re.M))


def test_required_flags_are_marked():
    text, *_ = helped("run_grade", "-h")
    assert "--responses=(required)" in text


def test_a_config_that_does_not_load_is_one_line():
    command = [sys.executable, "-m", "launch.run_rl", "--config=configs/none.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: --config=configs/none.py does not load")
