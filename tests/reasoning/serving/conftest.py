"""A served model with random weights, which writes anything at all: tags, halves of characters."""

import contextlib
import threading
import time

import jax
import pytest

pytest.importorskip("starlette", reason="the server's packages are missing: pip install .[serve]")
import uvicorn

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.decoding.slot_sampler import SlotSampler
from models.tokens.tokenizer_training import train_bpe
from reasoning.router.choosing import PredictiveRouter
from reasoning.router.route import LONG_CHAIN, SHORT_CHAIN, VOTE, Route, direct
from reasoning.router.rules import RulesPredictor
from reasoning.serving.batch.engine import Engine
from reasoning.serving.batch.text import Vocabulary
from reasoning.serving.models import Checkpoint
from reasoning.serving.routes import Models
from reasoning.serving.server import Limits, Server

KEY = "a key of the tests"
TEXTS = ['What is 12 + 30? The answer is 42, "yes".', 'héllo wörld `code` ```\n{"a": 1}\n```'] * 8
ROUTES = (direct(), Route(SHORT_CHAIN, 16), Route(LONG_CHAIN, 48), Route(VOTE, 48, 4))

CONFIG = ModelConfig(
    family="qwen3", vocab_size=320, embed_dim=32, num_layers=2, num_heads=4, num_kv_heads=2,
    head_dim=8, mlp_dim=48, qk_norm=True, tie_embeddings=True, max_length=256,
)  # fmt: skip


def make_checkpoint(slots=8, queue=16, columns=256):
    tokenizer = train_bpe(
        TEXTS, 300, text_tokens=("<think>", "</think>", "<answer>", "</answer>"),
        eos_token="<|im_end|>", special_tokens=("<|im_start|>",),
        template=(
            "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
            "<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
        ),
    )  # fmt: skip
    config = CONFIG.replace(max_length=columns)
    model = LanguageModel(config)
    vocabulary = Vocabulary(tokenizer, config.vocab_size)
    sampler = SlotSampler(
        model, model.init(jax.random.key(3)), slots=slots, columns=columns,
        stop_ids=tokenizer.stop_ids, visible=vocabulary.visible, chunk=16, most_steps=8,
    )  # fmt: skip
    checkpoint = Checkpoint("tiny", vocabulary, Engine(sampler, queue=queue))
    checkpoint.engine.start()
    return checkpoint


@pytest.fixture(scope="session")
def checkpoint():
    made = make_checkpoint()
    yield made
    made.engine.close()


@pytest.fixture(scope="session")
def models(checkpoint):
    return Models(checkpoint, None, PredictiveRouter(RulesPredictor(ROUTES)), samples=4)


@contextlib.contextmanager
def listening(server):
    """The server's URL while it listens."""
    config = uvicorn.Config(server.app, port=0, log_level="warning", lifespan="off")
    web = uvicorn.Server(config)
    thread = threading.Thread(target=web.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not web.started and time.monotonic() < deadline:
        time.sleep(0.01)
    port = web.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    web.should_exit = True
    thread.join(timeout=10)


@pytest.fixture(scope="session")
def url(models):
    server = Server(models, api_key=KEY, limits=Limits(tokens=128, body=100_000, body_seconds=2))
    with listening(server) as found:
        yield found
