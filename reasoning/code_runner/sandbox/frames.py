"""Messages between the zygote and its client: JSON, each with its length in front."""

import json
import struct


def read(connection):
    """Returns the next message, or None when the other side has closed."""
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


def write(connection, message):
    body = json.dumps(message).encode()
    connection.sendall(struct.pack(">I", len(body)) + body)
