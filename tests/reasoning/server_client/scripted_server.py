"""A server on 127.0.0.1 that answers each request with the bytes of a script, at the script's pace.

`FAULTS` lists the faults of servers below the level of JSON.
"""

import contextlib
import gzip
import itertools
import json
import socket
import struct
import threading

PACE_S = 0.02  # between two bytes that are dripped
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


class ScriptedServer:
    """Attributes:
    script: a function of the request's head and body that yields bytes to send, or a number of
      seconds to wait; None instead of bytes resets the connection.
    heads: of the requests that came.
    """

    def __init__(self, script=None):
        self.script, self.heads = script, []
        self._stop = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while not self._stop.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        with connection, contextlib.suppress(OSError):
            head, body = _read_request(connection)
            self.heads.append(head)
            for part in self.script(head, body):
                if part is None:
                    reset = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                    return
                if not isinstance(part, bytes):
                    self._stop.wait(part)
                else:
                    connection.sendall(part)
                if self._stop.is_set():
                    return

    def close(self):
        self._stop.set()
        self._socket.close()


def _read_request(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(1 << 16)
        if not more:
            return data, b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    length = int(lengths[0].partition(b":")[2]) if lengths else 0
    while len(body) < length:
        body += connection.recv(1 << 16)
    return head, body


def answer(text, status="200 OK", headers=""):
    """A whole answer."""
    body = text if isinstance(text, bytes) else text.encode()
    head = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode("latin-1", "replace") + body


def _always(*parts):
    return lambda head, body: parts


def _drip(start, repeated):
    """`start`, then the same byte for ever, slowly."""

    def script(head, body):
        yield start
        for byte in itertools.cycle(repeated):
            yield bytes([byte])
            yield PACE_S

    return script


def _flood(start, repeated):
    """The same, as fast as it can be read."""

    def script(head, body):
        yield start
        block = repeated * (65_536 // len(repeated))
        while True:
            yield block

    return script


def _pieces(start, piece):
    """`start`, then whole pieces for ever, slowly."""

    def script(head, body):
        yield start
        while True:
            yield piece
            yield PACE_S

    return script


# What never ends: left when the time is over.
ENDLESS = {
    "silent": _always(60),
    "silent after a byte": _always(b"H", 60),
    "silent after the status": _always(b"HTTP/1.1 200 OK\r\n", 60),
    "silent after the head": _always(HEAD + b"Content-Length: 5\r\n\r\n", 60),
    "status line dripped": _drip(b"HTTP/1.1 200 ", b"O"),
    "header name dripped": _drip(HEAD, b"x"),
    "header value dripped": _drip(HEAD + b"X-Y: ", b"z"),
    "headers without end": _pieces(HEAD, b"X-Y: z\r\n"),
    "100 Continue without end": _pieces(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a flood of continues": _flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "103 Early Hints without end": _pieces(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "body dripped": _drip(HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
    "body without length dripped": _drip(HEAD + b"\r\n", b" "),
    "chunk size dripped": _drip(CHUNKED, b"0"),
    "chunk extension dripped": _drip(CHUNKED + b"5;name=", b"x"),
    "chunk dripped": _drip(CHUNKED + b"ffff\r\n", b" "),
    "chunks without end": _pieces(CHUNKED, b"1\r\n \r\n"),
    "trailer dripped": _drip(CHUNKED + b"2\r\n{}\r\n0\r\nX-Trailer: ", b"x"),
    "trailers without end": _pieces(CHUNKED + b"2\r\n{}\r\n0\r\n", b"X-Y: z\r\n"),
    "body of a 400 dripped": _drip(b"HTTP/1.1 400 No\r\nContent-Length: 99999\r\n\r\n", b"x"),
    "body of a 401 dripped": _drip(b"HTTP/1.1 401 No\r\n\r\n", b"x"),
    "body of a 500 dripped": _drip(
        b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n", b"x"
    ),
    "body of a redirect dripped": _drip(b"HTTP/1.1 302 Go\r\nLocation: /x\r\n\r\n", b"x"),
}  # fmt: skip

# What ends, and is no answer.
BROKEN = {
    "nothing": _always(b""),
    "reset": _always(None),
    "reset after the head": _always(HEAD + b"Content-Length: 50\r\n\r\n{", None),
    "garbage": _always(b"\x00\xff garbage\r\n\r\n"),
    "another protocol": _always(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "HTTP/9": _always(b"HTTP/9.9 200 OK\r\n\r\n{}"),
    "status of letters": _always(b"HTTP/1.1 abc OK\r\n\r\n{}"),
    "status 999": _always(answer("{}", "999 What")),
    "status 204": _always(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "status 304": _always(b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "switching protocols": _always(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n{}"),
    "length below zero": _always(HEAD + b"Content-Length: -5\r\n\r\n{}"),
    "two lengths": _always(HEAD + b"Content-Length: 2\r\nContent-Length: 90\r\n\r\n{}"),
    "length of letters": _always(HEAD + b"Content-Length: two\r\n\r\n{}"),
    "length beyond the answer": _always(HEAD + b"Content-Length: 999999999999\r\n\r\n{}"),
    "chunk size of letters": _always(CHUNKED + b"xyz\r\n{}\r\n0\r\n\r\n"),
    "chunk of exabytes": _always(CHUNKED + b"ffffffffffffffff\r\n{}\r\n"),
    "half a chunk": _always(CHUNKED + b"5\r\n{"),
    "no last chunk": _always(CHUNKED + b"2\r\n{}\r\n"),
    "a header of 5 MB": _always(HEAD + b"X: " + b"x" * 5_000_000 + b"\r\n\r\n"),
    "a flood of headers": _flood(HEAD, b"X-Y: z\r\n"),
    "a flood of body": _flood(HEAD + b"\r\n", b" "),
    "a flood of error": _flood(b"HTTP/1.1 400 No\r\n\r\n", b"x"),
    "a flood of trailers": _flood(CHUNKED + b"2\r\n{}\r\n0\r\n", b"X-Y: z\r\n"),
    "packed": _always(answer(gzip.compress(b"{}"), headers="Content-Encoding: gzip\r\n")),
    "a bomb": _always(
        answer(gzip.compress(b" " * 200_000_000), headers="Content-Encoding: gzip\r\n")
    ),
    "no JSON": _always(answer("<html>busy</html>")),
    "no UTF-8": _always(answer(b'{"a": "\xff\xfe"}')),
    "nested JSON": _always(answer("[" * 100_000)),
    "an array": _always(answer("[]")),
    "a number of 5000 digits": _always(answer('{"usage": %s}' % ("9" * 5000))),
    "NUL": _always(answer("\x00" * 100)),
    "terminal commands": _always(answer("\x1b]0;title\x07\x1b[2J", "500 \x1b[2J")),
    "an empty object": _always(answer("{}")),
    "busy": _always(answer("slow down", "429 Busy")),
    "out of order": _always(answer('{"error": {"message": "oh\\nno"}}', "500 Oh")),
    "forbidden": _always(answer(json.dumps({"detail": ["no"] * 10_000}), "403 No")),
}  # fmt: skip
