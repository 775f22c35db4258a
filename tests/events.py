"""Event files of TensorBoard, written byte by byte for the tests of what reads them."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

__all__ = ["scalar", "tensor", "write_events"]


def _crc(data: bytes) -> int:
    """CRC-32C bit by bit, masked."""
    rest = 0xFFFFFFFF
    for byte in data:
        rest ^= byte
        for _ in range(8):
            rest = (rest >> 1) ^ (0x82F63B78 * (rest & 1))
    rest ^= 0xFFFFFFFF
    return (((rest >> 15) | (rest << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def _bytes(field: int, data: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _varint(len(data)) + data


def scalar(tag: str, value: float) -> bytes:
    """A value as torch writes it."""
    inner = _bytes(1, tag.encode()) + bytes([2 << 3 | 5]) + struct.pack("<f", value)
    return _bytes(1, inner)


def tensor(tag: str, value: float) -> bytes:
    """A value as TensorFlow 2 writes it: a tensor of one float."""
    held = bytes([1 << 3, 1]) + _bytes(2, b"") + _bytes(4, struct.pack("<f", value))
    return _bytes(1, _bytes(1, tag.encode()) + _bytes(8, held))


def write_events(path: Path, events: Iterable[tuple[int, bytes]]) -> Path:
    """A file with a first record of the version, then one a step with its values."""
    version = struct.pack("<Bd", 1 << 3 | 1, 1.7e9) + _bytes(3, b"brain.Event:2")
    records = [version]
    for step, values in events:
        time = struct.pack("<Bd", 1 << 3 | 1, 1.7e9 + step)
        records.append(time + bytes([2 << 3]) + _varint(step) + _bytes(5, values))
    out = b""
    for data in records:
        size = struct.pack("<Q", len(data))
        out += size + struct.pack("<I", _crc(size)) + data + struct.pack("<I", _crc(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out)
    return path
