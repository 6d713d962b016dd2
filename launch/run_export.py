"""Writes a model as a GGUF file, which llama.cpp and programs built on it can run.

    python -m launch.run_export --model=runs/rl/rl/hf --output=model.gguf --type=q8_0

`--model` is any model that `models.checkpoint` opens: a directory in Hugging Face layout, hf://org/name,
gguf:FILE or pip:PACKAGE. Llama, Qwen2 and Qwen3 can be written.
"""

from pathlib import Path

from absl import flags

from launch.parts import runtime


def main(argv: list[str]) -> None:
    """Runs the job as the flags say."""
    del argv
    run(_MODEL.value, _OUTPUT.value, _TYPE.value, _OVERWRITE.value)


def run(model: str, output: str, kind: str, overwrite: bool = False) -> None:
    """Runs the job that the module describes."""
    # JAX may start only here: `run_main` has set XLA's flags.
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
    # Flags are global: defined here, they do not clash where a program imports several entry
    # points.
    _MODEL = flags.DEFINE_string("model", None, "The model to write.", required=True)
    _OUTPUT = flags.DEFINE_string("output", None, "The file, usually *.gguf.", required=True)
    # The names are those of `models.gguf.export.TYPES`, which imports JAX.
    _TYPE = flags.DEFINE_enum("type", "f16", ("f32", "f16", "q8_0"), "How matrices are stored.")
    _OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a file that exists.")
    runtime.run_main(main)
