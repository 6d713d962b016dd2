"""Sends messages between the zygote and its client: JSON, each message after its length."""

import json
import socket
import struct
from typing import Any


def read(connection: socket.socket) -> Any:
    """Returns the next message, or None if the other side has closed the connection."""
    header = _read_exactly(connection, 4)
    body = header and _read_exactly(connection, struct.unpack(">I", header)[0])
    return json.loads(body) if body else None


def _read_exactly(connection, size):
    data = bytearray()
    while len(data) < size:
        chunk = connection.recv(min(size - len(data), 1 << 20))
        if not chunk:
            return None
        data += chunk
    return data


def write(connection: socket.socket, message: Any) -> None:
    """Sends a message: 4 bytes of length, then its JSON."""
    body = json.dumps(message).encode()
    connection.sendall(struct.pack(">I", len(body)) + body)
