"""Event files of TensorBoard, read without TensorBoard.

A file is a series of records (length, checksum, data, checksum), each an ``Event`` in the encoding
of protocol buffers: its step, and values with a tag. Scalars of torch (a float) and of TensorFlow
(a tensor of one number) are read; the rest is passed over. Sources: event.proto, summary.proto and
tensor.proto of tensorflow/core; RFC 3720, B.4 for the checksum.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from optsched.errors import BadLog
from optsched.logs.formats.base import LogFormat
from optsched.logs.formats.file import File
from optsched.logs.formats.table import Table

__all__ = ["EventFiles"]

_PATTERN = "*tfevents*"
_TRAINER = {"train/learning_rate", "train/loss", "train/epoch"}  # of Hugging Face
# Field numbers.
_STEP, _SUMMARY = 2, 5
_VALUE, _TAG, _SIMPLE, _TENSOR = 1, 1, 2, 8
_DTYPE, _CONTENT = 1, 4
_DTYPES = {1: ("<f", 5), 2: ("<d", 6)}  # of a tensor: its format, and the field of its numbers


class EventFiles(LogFormat):
    """A file of events, or the folder of a run with some, one for every start."""

    usual = (_PATTERN,)

    def recognises(self, file: File) -> bool:
        """By the name, which TensorBoard goes by too."""
        if file.is_folder:
            return any(path.is_file() for path in file.path.glob(_PATTERN))
        return "tfevents" in file.path.name

    def find(self, folder: Path) -> Path | None:
        """The folder itself, as all its files are one run."""
        return folder if self.recognises(File(folder)) else None

    def read(self, file: File) -> list[Table]:
        """One table: a row a value, as every tag has events of its own."""
        paths = [file.path]
        if file.is_folder:
            # The name has the time of the start.
            paths = sorted(path for path in file.path.glob(_PATTERN) if path.is_file())
        rows: list[tuple[int, dict[str, Any]]] = []
        for path in paths:
            for step, tag, value in _scalars(path):
                if tag == "step":
                    continue  # a tag that would hide the step of the events
                rows.append((len(rows) + 1, {"step": step, tag: value}))
        if not rows:
            raise BadLog(f"{file.path}: has no scalars, expected the rate and the loss of a run")
        folder = file.path if file.is_folder else file.path.parent
        form = "events of TensorBoard"
        run = folder.resolve().name
        tags = {name for _, row in rows for name in row}
        habit = "last" if tags >= _TRAINER else None
        return [Table.of_rows(file.path, form, rows, place="scalar", run=run, rate_of=habit)]


def _scalars(path: Path) -> Iterator[tuple[int, str, float]]:
    """Step, tag and number of every scalar of a file."""
    for where, record in _records(path):
        step = 0
        summaries = []
        try:
            for field, value in _fields(record):
                if field == _STEP and isinstance(value, int):
                    step = value - (1 << 64) if value >> 63 else value
                elif field == _SUMMARY and isinstance(value, bytes):
                    summaries.append(value)
            found = [pair for summary in summaries for pair in _values(summary)]
        except (ValueError, IndexError, struct.error) as error:
            raise BadLog(f"{path}: {where}: is no event: {error}") from None
        for tag, value in found:
            yield step, tag, value


def _records(path: Path) -> Iterator[tuple[str, bytes]]:
    raw = memoryview(File(path).raw)
    at, count = 0, 0
    while at < len(raw):
        count += 1
        where = f"record {count}"
        head = bytes(raw[at : at + 12])
        if len(head) < 12:
            return  # a run that was killed, or still runs: the last record is not whole
        size, check = struct.unpack("<QI", head)
        if _masked(head[:8]) != check:
            raise BadLog(f"{path}: {where}: a checksum is wrong, expected events of TensorBoard")
        data = bytes(raw[at + 12 : at + 12 + size])
        tail = bytes(raw[at + 12 + size : at + 16 + size])
        if len(data) < size or len(tail) < 4:
            return
        if _masked(data) != struct.unpack("<I", tail)[0]:
            raise BadLog(f"{path}: {where}: a checksum is wrong, expected events of TensorBoard")
        yield where, data
        at += 16 + size


def _values(summary: bytes) -> Iterator[tuple[str, float]]:
    for field, value in _fields(summary):
        if field != _VALUE or not isinstance(value, bytes):
            continue
        tag, number = "", None
        for inner, entry in _fields(value):
            if inner == _TAG and isinstance(entry, bytes):
                tag = entry.decode("utf-8", "replace")
            elif inner == _SIMPLE and isinstance(entry, bytes) and len(entry) == 4:
                number = _shortest(entry)
            elif inner == _TENSOR and isinstance(entry, bytes):
                number = _tensor(entry)
        if tag and number is not None:
            yield tag, number


def _tensor(raw: bytes) -> float | None:
    """The number of a tensor that has just one."""
    fields = list(_fields(raw))
    kind = next((value for field, value in fields if field == _DTYPE), None)
    if kind not in _DTYPES:
        return None
    code, own = _DTYPES[kind]
    size = struct.calcsize(code)
    for field, value in fields:
        if field in (_CONTENT, own) and isinstance(value, bytes) and len(value) == size:
            return _shortest(value) if size == 4 else struct.unpack(code, value)[0]
    return None


def _shortest(raw: bytes) -> float:
    """A float of 32 bits as the shortest decimal number that it stands for: 0.1, not 0.10000000149.

    The program had more digits than the file, and most rates have few.
    """
    value = struct.unpack("<f", raw)[0]
    if not math.isfinite(value) or value == 0.0:
        return value
    for digits in range(1, 9):
        text = f"{value:.{digits}g}"
        if abs(float(text)) < 3.4e38 and struct.pack("<f", float(text)) == raw:
            return float(text)
    return value


def _fields(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of every field of a message."""
    at = 0
    while at < len(raw):
        key, at = _varint(raw, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(raw, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _varint(raw, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        if at + size > len(raw):
            raise ValueError("a field is cut short")
        yield key >> 3, raw[at : at + size]
        at += size


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


@cache
def _table() -> tuple[int, ...]:
    """Of the checksum CRC-32C, by byte."""
    found = []
    for byte in range(256):
        rest = byte
        for _ in range(8):
            rest = (rest >> 1) ^ (0x82F63B78 if rest & 1 else 0)
        found.append(rest)
    return tuple(found)


def _masked(data: bytes) -> int:
    """CRC-32C, masked as records have it."""
    table, rest = _table(), 0xFFFFFFFF
    for byte in data:
        rest = table[(rest ^ byte) & 255] ^ (rest >> 8)
    rest ^= 0xFFFFFFFF
    return (((rest >> 15) | (rest << 17)) + 0xA282EAD8) & 0xFFFFFFFF
