"""The header of GGUF files, against gguf's own reader, and damaged in every place."""

import random
import struct

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter

from models.gguf.header import Header
from tests.models.gguf import gguf_files


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    writer = GGUFWriter(path, "llama")
    for kind in ("uint8", "uint16", "uint32", "uint64"):
        getattr(writer, f"add_{kind}")(f"some.{kind}", 200)
    for kind in ("int8", "int16", "int32", "int64"):
        getattr(writer, f"add_{kind}")(f"some.{kind}", -3)
    writer.add_float32("some.float32", 1e-5)
    writer.add_float64("some.float64", 1e-5)
    writer.add_bool("some.bool", True)
    writer.add_string("some.text", "naïve 数")
    writer.add_array("some.texts", ["a", "", "ü", "b" * 300])
    writer.add_array("some.numbers", [1, 2, -3])
    writer.add_array("some.reals", [0.5, 1e10])
    writer.add_array("some.flags", [True, False])
    writer.add_tensor("vector", np.arange(5, dtype=np.float32))
    writer.add_tensor("matrix", np.arange(12, dtype=np.float16).reshape(3, 4))
    quantized = np.zeros((2, 34), np.uint8)
    writer.add_tensor("blocks", quantized, raw_dtype=GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_fields_and_tensors_are_those_of_the_library(file):
    header, theirs = Header(file), GGUFReader(file)
    expected = {
        name: field.contents()
        for name, field in theirs.fields.items()
        if not name.startswith("GGUF.")
    }
    found = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in header.fields.items()
    }
    assert found.pop("some.float32") == 1e-5  # As it was written, before it was rounded.
    assert expected.pop("some.float32") == float(np.float32(1e-5))
    assert found == expected
    for each in theirs.tensors:
        info = header.tensors[each.name]
        assert (info.kind, info.offset) == (each.tensor_type, each.data_offset)
        assert list(info.shape) == each.shape.tolist()[::-1]
        assert int(np.prod(info.shape[:-1])) * info.row_bytes == each.n_bytes
    assert len(header.tensors) == 3


def test_a_file_cut_anywhere_is_refused_in_one_line(file, tmp_path):
    whole = file.read_bytes()
    needed = max(each.data_offset + each.n_bytes for each in GGUFReader(file).tensors)
    cut = tmp_path / "cut.gguf"
    for length in range(needed):
        cut.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cut.gguf") as error:
            Header(cut)
        assert "\n" not in str(error.value)


def test_a_file_with_any_byte_changed_is_read_or_refused(file, tmp_path):
    """No other error, no endless loop, no memory for what the file cannot hold."""
    whole, rng, refused = bytearray(file.read_bytes()), random.Random(0), 0
    damaged = tmp_path / "damaged.gguf"
    for place in range(min(len(whole), 900)):
        content = whole.copy()
        content[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, content[place] ^ 1])
        damaged.write_bytes(content)
        try:
            Header(damaged)
        except ValueError as error:
            refused += 1
            assert "damaged.gguf" in str(error)
    assert refused > 100


def header_bytes(fields=(), tensors=(), version=3, magic=b"GGUF"):
    body = magic + struct.pack("<IQQ", version, len(tensors), len(fields))
    return body + b"".join(fields) + b"".join(tensors)


def text(value):
    return struct.pack("<Q", len(value)) + value


def tensor(name=b"t", dims=(4,), kind=0, offset=0):
    dimensions = struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
    return text(name) + dimensions + struct.pack("<IQ", kind, offset)


NESTED = text(b"f") + struct.pack("<IIQIQ", 9, 9, 1, 4, 0)
MANY_NUMBERS = text(b"f") + struct.pack("<IIQ", 9, 4, 10**18)
MANY_TEXTS = text(b"f") + struct.pack("<IIQ", 9, 8, 10**18)
FLAG = text(b"f") + struct.pack("<IB", 7, 1)
PARTS = text(b"split.count") + struct.pack("<IH", 2, 3)
ALIGNMENT = text(b"general.alignment") + struct.pack("<II", 4, 3)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is not a GGUF file"),
        (b"PK\3\4rest of a zip file", "begins with b'PK"),
        (header_bytes(version=1), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "number of tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "number of fields"),
        (header_bytes([FLAG, FLAG]), "the field f twice"),
        (header_bytes([NESTED]), "list of lists"),
        (header_bytes([MANY_NUMBERS]), "ends within f"),
        (header_bytes([MANY_TEXTS]), "ends within f"),
        (header_bytes([text(b"f") + struct.pack("<I", 99)]), "unknown type 99"),
        (header_bytes([text(b"\xff") + struct.pack("<IB", 7, 1)]), "not UTF-8"),
        (header_bytes([PARTS]), "one of 3 parts"),
        (header_bytes([ALIGNMENT]), "power of two"),
        (header_bytes((), [tensor(), tensor()]) + bytes(64), "the tensor t twice"),
        (header_bytes((), [tensor(dims=(1,) * 5)]) + bytes(64), "5 dimensions"),
        (header_bytes((), [tensor(kind=77)]) + bytes(64), "type 77"),
        (header_bytes((), [tensor(dims=(33,), kind=8)]) + bytes(64), "whole blocks of 32"),
        (header_bytes((), [tensor(dims=(2**40, 2**40))]) + bytes(64), "truncated"),
        (header_bytes((), [tensor(offset=8)]) + bytes(64), "no multiple of 32"),
        (header_bytes((), [tensor(dims=(0,))]) + bytes(64), "shape [0]"),
    ],
)
def test_what_is_no_whole_gguf_file_is_named(content, fault, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        Header(path)
    assert str(path) in str(error.value) and fault in str(error.value)


def test_fields_are_asked_for_by_type(tmp_path):
    fields = {"n": 3, "x": 0.5, "t": "text", "b": True, "l": ["a"], "nan": float("nan"), "z": 0}
    header = Header(gguf_files.write(tmp_path / "f.gguf", fields, {}))
    assert (header.integer("n"), header.number("n"), header.number("x")) == (3, 3.0, 0.5)
    assert (header.text("t"), header.flag("b", False), header.texts("l")) == ("text", True, ["a"])
    assert (header.integer("absent", 7), header.flag("absent", True)) == (7, True)
    for ask in (
        lambda: header.integer("x"), lambda: header.integer("b"), lambda: header.integer("z"),
        lambda: header.number("t"), lambda: header.number("nan"), lambda: header.number("z"),
        lambda: header.text("n"), lambda: header.flag("n", True), lambda: header.texts("t"),
        lambda: header.integer("absent"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="f.gguf"):
            ask()
