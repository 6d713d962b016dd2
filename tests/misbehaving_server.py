"""A server with OpenAI's interface on 127.0.0.1 that misbehaves as it is told."""

import contextlib
import http.server
import json
import threading

MODEL = "teacher"


class MisbehavingServer(http.server.ThreadingHTTPServer):
    """Answers like vLLM, unless `faults` holds what to do with the next request.

    Attributes:
      faults: functions of the handler, each used once, `None` to answer well.
      requests: (path, body, headers) of every POST, in the order they came.
      answer: prompt (text, or the last message) and sample index -> text of the sample.
      change: reply -> reply, of every whole one.
      models: that it lists; None for a server without a list.
      delay_s: seconds that each answer takes.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults, self.requests, self.lock = [], [], threading.Lock()
        self.answer = lambda prompt, i: f"{prompt} sample {i}"
        self.change = lambda reply: reply
        self.models, self.delay = [MODEL], threading.Event()
        self.delay_s = 0.0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        pass  # Clients that hang up are part of the tests.


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.server.models is None:
            return self.send(404, "{}")
        self.send(200, json.dumps({"data": [{"id": name} for name in self.server.models]}))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append((self.path, body, dict(self.headers)))
            fault = self.server.faults.pop(0) if self.server.faults else None
        self.server.delay.wait(self.server.delay_s)
        if fault is not None:
            fault(self, body)
        else:
            self.send(200, json.dumps(self.reply(body)))

    def reply(self, body):
        chat = self.path.endswith("/chat/completions")
        prompt = body["messages"][-1]["content"] if chat else body["prompt"]
        choices, generated = [], 0
        for i in range(body.get("n", 1)):
            text = self.server.answer(prompt, i)
            cut = [text.index(s) for s in body.get("stop", []) if s in text]
            met = [s for s in body.get("stop", []) if s in text and text.index(s) == min(cut)]
            text = text[: min(cut)] if cut else text
            tokens = text.split()
            generated += len(tokens)
            choice = {"index": i, "finish_reason": "stop", "stop_reason": met[0] if met else None}
            if len(tokens) > body["max_tokens"]:
                raise AssertionError("the test asks for more than max_tokens")
            if chat:
                choice["message"] = {"role": "assistant", "content": text}
                if body.get("logprobs"):
                    entries = [{"token": token, "logprob": -0.5} for token in tokens]
                    choice["logprobs"] = {"content": entries}
            else:
                choice["text"] = text
                if body.get("logprobs"):
                    choice["logprobs"] = {"tokens": tokens, "token_logprobs": [-0.5] * len(tokens)}
            choices.append(choice)
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": generated}
        return self.server.change({"model": body["model"], "choices": choices, "usage": usage})

    def send(self, status, text, headers={}):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args):
        pass


def status(code, message="", headers={}):
    """Answers with an HTTP status and a vendor's error."""
    text = json.dumps({"error": {"message": message, "type": "some_error"}})
    return lambda handler, body: handler.send(code, text, headers)


def text(reply):
    """Answers 200 with any text."""
    return lambda handler, body: handler.send(200, reply)


def hang(handler, body):
    """Never answers; until the test is over, or 20 s."""
    handler.server.delay.wait(20)


def hang_up(handler, body):
    """Closes the connection without an answer."""
    handler.close_connection = True
    handler.connection.close()


def half(handler, body):
    """Announces a whole answer and hangs up in its middle."""
    reply = json.dumps(handler.reply(body)).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(reply)))
    handler.end_headers()
    handler.wfile.write(reply[: len(reply) // 2])
    handler.wfile.flush()
    handler.close_connection = True


def half_chunked(handler, body):
    """The same in chunks, of which the last never comes."""
    reply = json.dumps(handler.reply(body)).encode()
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    part = reply[: len(reply) // 2]
    handler.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
    handler.wfile.flush()
    handler.close_connection = True


def half_without_length(handler, body):
    """The same, with nothing that says how long the answer is."""
    reply = json.dumps(handler.reply(body)).encode()
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(reply[: len(reply) // 2])
    handler.close_connection = True


def drip(handler, body):
    """Sends a byte at a time, slowly enough to outlast any timeout, never silent for long."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        if handler.server.delay.wait(0.02):
            return


@contextlib.contextmanager
def running_server():
    with MisbehavingServer() as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.delay.set()
            server.shutdown()
            thread.join()
