"""Files that are read: regular ones of a sane size, and of an archive only what is wanted."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optsched.cli import main
from optsched.errors import BadFile
from optsched.files import check_input, read_bytes
from optsched.pilot import load_fit
from optsched.schedules.families import cosine
from optsched.schedules.schedule import Schedule

SPECIAL = "is a device, a pipe or a socket, expected a regular file"


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A pipe without a writer: whoever opens it waits for ever."""
    os.mkfifo(tmp_path / "fifo.json")
    return tmp_path / "fifo.json"


def test_what_is_no_file(tmp_path: Path, fifo: Path) -> None:
    for path, message in (
        (tmp_path, "is a directory, expected a file"),
        (tmp_path / "none", "cannot be read: No such file"),
        (Path("a\0b"), "cannot be read"),
        (Path("/dev/zero"), SPECIAL),
        (fifo, SPECIAL),
    ):
        with pytest.raises(BadFile, match=message):
            read_bytes(path)
    (tmp_path / "five").write_bytes(b"12345")
    assert read_bytes(tmp_path / "five", 5) == b"12345"
    with pytest.raises(BadFile, match="has 5 bytes, expected 4 at most"):
        check_input(tmp_path / "five", 4)


def test_every_door(fifo: Path, tmp_path: Path) -> None:
    for read in (Schedule.load, load_fit):
        with pytest.raises(BadFile, match=SPECIAL):
            read(fifo)
    os.mkfifo(tmp_path / "fifo.csv")
    os.mkfifo(tmp_path / "fifo.npy")


@pytest.mark.parametrize(
    "argv",
    [
        ("verify", "fifo.json", "--a", "3.5", "--b", "2"),
        ("fit", "fifo.json"),
        ("fit", "/dev/zero"),
        ("predict", "--law", "fifo.json", "cosine", "--horizon", "9"),
        ("dashboard", "fifo.json"),
        ("export", "fifo.json", "--format", "csv"),
        ("spectrum", "fifo.npy", "fifo.npy"),
        ("rules", "noise-scale", "fifo.npy"),
    ],
)
def test_commands_do_not_wait(
    argv: tuple[str, ...], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("fifo.json", "fifo.npy"):
        os.mkfifo(name)
    assert main(list(argv)) == 2
    assert SPECIAL in capsys.readouterr().err


def test_only_the_members_that_are_wanted_are_read(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    cosine(50, 0.1).save(path)
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("notes.npy", b"no array at all")
    assert Schedule.load(path) == cosine(50, 0.1)
    # A member that says it has 1.6 GB, of which the file need not have any.
    np.savez(path, **arrays)
    raw = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("eta.npy").file_size
    at = raw.rindex(b"eta.npy") - 46  # its entry in the directory at the end
    claimed = (1_600_000_000).to_bytes(4, "little")
    assert raw[at + 24 : at + 28] == size.to_bytes(4, "little")
    path.write_bytes(raw[: at + 24] + claimed + raw[at + 28 :])
    with pytest.raises(BadFile, match="array eta: has 1,600,000,000 bytes, expected 500,000,000"):
        Schedule.load(path)
