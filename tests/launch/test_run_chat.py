"""`launch.run_chat`: turns, what is shown of thinking, commands, a server."""

import io
import json

import pytest
from rich.console import Console

from launch import run_chat
from launch.jobs.asked import LocalModel
from launch.jobs.chat import Conversation, show, summarise
from launch.parts.servers import open_server
from models.decoding.sampling import SamplingParams
from models.hf.export import export_model
from reasoning.generation.jax_steps import JaxStepGenerator
from reasoning.hidden_reasoning import ANSWERING, THINKING
from tests import misbehaving_server as bad
from tests.misbehaving_server import MODEL, running_server
from tests.models.gguf import gguf_files

REPLY = [(THINKING, "7 and 5.\nWait, "), (THINKING, "12.\n"), (ANSWERING, "\n\nIt is [12]."),
         (ANSWERING, " Yes.")]  # fmt: skip


def shown(reply, mode):
    out = io.StringIO()
    show(iter(reply), mode, Console(file=out, width=200))
    return out.getvalue()


def test_thinking_is_shown_hidden_or_told_in_a_line():
    assert shown(REPLY, "show") == "7 and 5.\nWait, 12.\n\nIt is [12]. Yes.\n"
    assert shown(REPLY, "hide") == "(thinking)\nIt is [12]. Yes.\n"
    summary = "(2 lines, 5 words, 1 self-checks; at last: Wait, 12.)"
    assert shown(REPLY, "summary") == f"(thinking)\n{summary}\nIt is [12]. Yes.\n"
    for mode in ("show", "hide", "summary"):
        assert shown([(ANSWERING, "Hi.")], mode) == "Hi.\n"
        assert "It is" not in shown(REPLY[:2], mode)
    assert summarise(" \n") == "(no thoughts)"


def converse(lines, **arguments):
    """What the terminal shows for these lines of a user."""
    out, waiting = io.StringIO(), iter(lines)

    def read(prompt):
        try:
            return next(waiting)
        except StopIteration:
            raise EOFError from None

    run_chat.run(console=Console(file=out, width=200), read=read, **arguments)
    return out.getvalue()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with running_server() as server:
        server.answer = lambda prompt, i: f"<think>hm {prompt}</think> <answer>{prompt}!</answer>"
        yield server


def test_a_server_is_sent_the_conversation_without_its_thoughts(server):
    arguments = {"model": MODEL, "server": server.url, "system": "Be brief."}
    told = converse(["one", "", "two", "/reset", "three", "/quit", "four"], **arguments)
    sent = [
        [(each["role"], each["content"]) for each in body["messages"]]
        for _, body, _ in server.requests
    ]
    system = ("system", "Be brief.")
    assert sent == [
        [system, ("user", "one")],
        [system, ("user", "one"), ("assistant", "one!"), ("user", "two")],
        [system, ("user", "three")],
    ]
    assert "hm one" in told and "two!" in told and "four" not in told
    assert len({body["seed"] for _, body, _ in server.requests}) == 3


def test_commands_change_what_is_shown_and_errors_do_not_end_it(server):
    arguments = {"model": MODEL, "server": server.url}
    server.faults = [bad.status(400, "no such thing")]
    told = converse(["zero", "/thinking hide", "one", "/thinking loud", "/what"], **arguments)
    assert "error: " in told and "no such thing" in told
    assert "hm one" not in told and "one!" in told
    assert told.count("/reset forgets") == 3  # At the start, and for each that is no command.


def events(*parts, end="data: [DONE]\n\n"):
    """Answers as a server that streams does."""
    lines = "".join(f"data: {json.dumps(part)}\n\n" for part in parts)

    def answer(handler, body):
        assert body["stream"] is True
        handler.send(200, f": hello\n\n{lines}{end}", {"Content-Type": "text/event-stream"})

    return answer


def delta(**fields):
    return {"choices": [{"index": 0, "delta": fields}]}


def test_a_server_that_streams_is_read_piece_by_piece(server):
    server.faults = [
        events(delta(role="assistant", content=""), delta(reasoning_content="so "),
               delta(reasoning_content="so"), delta(content="It is"), delta(content=" 12."),
               {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}),
        events(delta(content="cut"), end=""),
        events(delta(content=["no text"])),
        bad.status(401, "who are you"),
    ]  # fmt: skip
    told = converse(["one", "two", "three", "four"], model=MODEL, server=server.url)
    assert "so so\nIt is 12.\n" in told
    assert "cut" in told and "the answer broke off" in told
    assert "no known form" in told and "refuses the key" in told and "Traceback" not in told


def test_what_a_streamed_reply_used_is_counted(server):
    generator = open_server(server.url, MODEL, chat=True)
    part = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}
    server.faults = [events(delta(content="a"), part), events(delta(content="b"))]
    message = [{"role": "user", "content": "hi"}]
    assert list(generator.stream_chat(message, max_new_tokens=50)) == ["a"]
    assert generator.ledger.usage.completion_tokens == 4
    # One that does not tell may have used all.
    assert list(generator.stream_chat(message, max_new_tokens=50)) == ["b"]
    assert generator.ledger.usage.completion_tokens == 54


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    import jax

    from models.decoder import LanguageModel

    path, config = tmp_path_factory.mktemp("chat") / "hf", gguf_files.BASE
    params = jax.jit(LanguageModel(config).init)(jax.random.key(0))
    export_model(path, config, params, gguf_files.make_tokenizer())
    export_model(path.with_name("plain"), config, params, gguf_files.make_tokenizer(template=None))
    return path


def test_a_checkpoint_replies_by_chunks_to_all_turns(checkpoint, tmp_path, monkeypatch):
    prompts = []
    start = JaxStepGenerator.start

    def recorded(self, texts, **arguments):
        prompts.extend(texts)
        return start(self, texts, **arguments)

    monkeypatch.setattr(JaxStepGenerator, "start", recorded)
    told = converse(
        ["one", "two"], model=str(checkpoint), temperature=0.0, max_new_tokens=20,
        workdir=str(tmp_path),
    )  # fmt: skip
    assert prompts[0] == "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n"
    assert prompts[1].startswith(prompts[0])
    assert prompts[1].endswith("<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\n")
    assert len(told) > 100


def test_a_model_without_a_template_gets_bare_turns(checkpoint, monkeypatch):
    model = LocalModel(str(checkpoint.with_name("plain")))
    with model.open(rows=1) as opened:
        talk = Conversation(model, opened, max_new_tokens=4, sampling=SamplingParams(0.0))
        seen = []

        def fixed(steps, prompt, **arguments):
            seen.append(prompt)
            yield from [" yes\nUs", "er: and then"]

        monkeypatch.setattr("launch.jobs.chat.stream", fixed)
        assert list(talk.ask("one")) == [(ANSWERING, " yes")]
        assert seen == ["User: one\nAssistant:"]
        assert talk.messages[-1] == {"role": "assistant", "content": "yes"}


def test_a_reply_that_is_stopped_is_kept_and_a_full_context_is_told(checkpoint):
    model = LocalModel(str(checkpoint))
    with model.open(rows=1) as opened:
        talk = Conversation(model, opened, max_new_tokens=30, sampling=SamplingParams(0.0))
        reply = talk.ask("one")
        next(reply)
        reply.close()
        assert [each["role"] for each in talk.messages] == ["user", "assistant"]
        with pytest.raises(ValueError, match="fills the context of 512 tokens.*/reset"):
            list(talk.ask("word " * 600))
        assert len(talk.messages) == 2  # What was not answered is forgotten.
