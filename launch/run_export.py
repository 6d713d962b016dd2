"""Writes a model as a GGUF file, which llama.cpp and what is built on it run.

    python -m launch.run_export --model=runs/rl/rl/hf --output=model.gguf --type=q8_0

`--model` is whatever `models.checkpoint` opens: a directory in Hugging Face layout, hf://org/name,
gguf:FILE or pip:PACKAGE. Llama, Qwen2 and Qwen3 can be written.
"""

from pathlib import Path

from absl import flags

from launch.parts import runtime


def main(argv):
    del argv
    run(_MODEL.value, _OUTPUT.value, _TYPE.value, _OVERWRITE.value)


def run(model: str, output: str, kind: str, overwrite: bool = False) -> None:
    """The whole job; see the module's docstring."""
    # JAX starts here, once XLA's flags are set.
    from models.checkpoint import load_model
    from models.gguf.export import export_gguf

    path = Path(output).expanduser()
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists; remove it, give another --output, or add --overwrite")
    loaded = load_model(model)
    name = Path(model.rstrip("/")).name
    export_gguf(
        path, loaded.model.config, loaded.params, loaded.tokenizer,
        kind=kind, name=name, overwrite=overwrite,
    )  # fmt: skip
    print(f"{path}: {loaded.model.config.num_params:,} parameters, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    # Here, so that a program may import several entry points: flags are global.
    _MODEL = flags.DEFINE_string("model", None, "What to write.", required=True)
    _OUTPUT = flags.DEFINE_string("output", None, "The file, usually *.gguf.", required=True)
    # The names are those of `models.gguf.export.TYPES`, which imports JAX.
    _TYPE = flags.DEFINE_enum("type", "f16", ("f32", "f16", "q8_0"), "How matrices are stored.")
    _OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a file that exists.")
    runtime.run_main(main)
