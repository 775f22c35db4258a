"""Schedule files: round trips are identities, writes are atomic, bad files give one line."""

import json
import os
import stat
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optsched.errors import BadFile, InvalidProblem
from optsched.files import atomic_path, check_writable
from optsched.schedules import Schedule, files

SUFFIXES = list(files.SUFFIXES)
KNOTS = Schedule.from_knots(
    [0, 10, 99],
    eta=[0.1, 1 / 3, 0.0],
    beta=[0.9, 0.9, 0.5],
    unit="tokens",
    extend="zero",
    metadata={"loss": 1e-3, "note": "naïve,\n\u2028 # \ud800"},
)


@st.composite
def schedules(draw):
    horizon = draw(st.integers(1, 60))
    steps = sorted(draw(st.sets(st.integers(0, horizon - 1))) | {0, horizon - 1})
    size = len(steps)

    def values(low, high, **more):
        return draw(st.lists(st.floats(low, high, **more), min_size=size, max_size=size))

    controls = {"eta": values(0.0, 1e308)}
    for name, column in (
        ("beta", values(0.0, 1.0, exclude_max=True)),
        ("nu", values(0.0, 1.0)),
        ("batch_size", values(1.0, 1e9)),
    ):
        if draw(st.booleans()):
            controls[name] = column
    numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    leaf = st.none() | st.booleans() | numbers | st.text(max_size=6)
    return Schedule(
        horizon,
        steps,
        controls,
        unit=draw(st.sampled_from(["steps", "samples", "tokens"])),
        extend=draw(st.sampled_from(["hold", "raise", "zero"])),
        metadata=draw(st.dictionaries(st.text(max_size=4), leaf | st.lists(leaf, max_size=2))),
    )


def left_in(folder):
    return sorted(path.name for path in Path(folder).iterdir())


# Round trips


@settings(max_examples=80, deadline=None)
@given(schedules(), st.sampled_from(SUFFIXES), st.none() | st.integers(0, 70))
def test_round_trip_is_an_identity(schedule, suffix, extra):
    points = None if extra is None else max(len(schedule.steps) + extra, 2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"s{suffix}"
        schedule.save(path, points=points)
        again = Schedule.load(path)
    assert again == schedule
    assert again.metadata == schedule.metadata
    assert again.digest == schedule.digest


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("horizon", [1, 2, 3, 5000])
def test_exports_at_the_steps_that_matter(tmp_path, suffix, horizon):
    eta = np.linspace(1.0, 1 / 3, horizon)
    schedule = Schedule.from_array(eta, batch_size=8)
    schedule.save(tmp_path / f"s{suffix}")
    again = Schedule.load(str(tmp_path / f"s{suffix}"))
    assert again == schedule
    for step in (0, min(1, horizon - 1), horizon - 1):
        assert again(step) == eta[step]
    assert again(horizon) == again(horizon + 1) == eta[-1]


def test_csv_rows_are_exact_and_plain(tmp_path):
    KNOTS.save(tmp_path / "s.csv")
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert lines[0].startswith('# optsched schedule {"format": ')
    assert lines[1] == "step,eta,beta"
    rows = [[float(x) for x in line.split(",")] for line in lines[2:]]
    assert rows == [[k, KNOTS(k), KNOTS(k, "beta")] for k in range(100)]


def test_npz_arrays(tmp_path):
    KNOTS.save(tmp_path / "s.npz")
    with np.load(tmp_path / "s.npz", allow_pickle=False) as arrays:
        assert arrays["step"].dtype == np.int64
        assert arrays["step"].tolist() == list(range(100))
        assert np.array_equal(arrays["eta"], KNOTS.eta)
        assert arrays["knot_step"].tolist() == [0, 10, 99]
        assert json.loads(str(arrays["header"]))["version"] == 1


def test_json_reads_without_optsched(tmp_path):
    KNOTS.save(tmp_path / "s.json")
    text = (tmp_path / "s.json").read_text()
    content = json.loads(text)
    assert content["knots"]["eta"] == [0.1, 1 / 3, 0.0]
    assert content["digest"] == KNOTS.digest
    assert '\n  "step": [0, 10, 99],\n' in text


def test_csv_with_too_many_knots_for_the_header_keeps_the_values(tmp_path):
    steps = np.append(np.arange(5000), 9999)
    schedule = Schedule.from_knots(steps, eta=np.random.default_rng(0).uniform(size=5001))
    schedule.save(tmp_path / "s.csv")
    again = Schedule.load(tmp_path / "s.csv")
    assert "knots" not in (tmp_path / "s.csv").read_text().split("\n", 1)[0]
    assert np.array_equal(again.eta, schedule.eta)


# Long horizons and points


LONG = Schedule.from_knots([0, 10**4, 10**9 - 1], eta=[0.0, 1.0, 0.0], metadata={"a": 1})


def test_long_horizon_as_json(tmp_path):
    LONG.save(tmp_path / "s.json")
    assert (tmp_path / "s.json").stat().st_size < 1000
    again = Schedule.load(tmp_path / "s.json")
    assert again == LONG
    assert again(10**9) == 0.0


@pytest.mark.parametrize("suffix", [".npz", ".csv"])
def test_long_horizon_needs_points(tmp_path, suffix):
    path = tmp_path / f"s{suffix}"
    with pytest.raises(BadFile, match=r"1000000000 rows.*pass points=N or use"):
        LONG.save(path)
    assert left_in(tmp_path) == []
    LONG.save(path, points=1000)
    again = Schedule.load(path)
    assert again == LONG
    if suffix == ".csv":
        assert len(path.read_text().splitlines()) == 1002
    else:
        assert np.load(path)["eta"].shape == (1000,)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_fewer_points_than_knots(tmp_path, suffix):
    schedule = Schedule.from_array(np.linspace(1, 0, 1001) ** 2, nu=0.5, metadata={"a": [1]})
    schedule.save(tmp_path / f"s{suffix}", points=101)
    again = Schedule.load(tmp_path / f"s{suffix}")
    assert again.steps.tolist() == list(range(0, 1001, 10))
    assert again.metadata == {"a": [1]}
    assert np.array_equal(again.controls["eta"], schedule(again.steps))
    for bad in (1, 0, -3, 2.5):
        with pytest.raises(InvalidProblem, match="points"):
            schedule.save(tmp_path / f"t{suffix}", points=bad)  # type: ignore[arg-type]
    assert left_in(tmp_path) == [f"s{suffix}"]


# Files of users


@pytest.mark.parametrize(
    ("text", "steps", "eta"),
    [
        ("step,eta\n0,1\n1,0.5\n2,0.25\n", [0, 1, 2], [1, 0.5, 0.25]),
        ("step,lr\n0,1\n10,0.5\n", [0, 10], [1, 0.5]),
        (
            "# mine\n\n Step , Learning_Rate \r\n0,1e-3\r\n\r\n10,0.5 # end\r\n",
            [0, 10],
            [1e-3, 0.5],
        ),
        ('"loss","step","lr","name"\n3,"0",1,a\n2,"1",0.5,b', [0, 1], [1, 0.5]),
        ("\ufeffstep,eta\n0.0,1\n1e1,0.5\n", [0, 10], [1, 0.5]),
        ("step,eta\n0,1\n", [0], [1]),
    ],
)
def test_plain_csv(tmp_path, text, steps, eta):
    path = tmp_path / "mine.csv"
    path.write_bytes(text.encode())
    schedule = Schedule.load(path)
    assert schedule.steps.tolist() == steps
    assert schedule.controls["eta"].tolist() == eta
    assert schedule.horizon == steps[-1] + 1


def test_plain_csv_with_momentum_and_batch_size(tmp_path):
    (tmp_path / "s.csv").write_text("batch_size,momentum,lr,step\n8,0.9,1,0\n16,0.8,0.5,4\n")
    expected = Schedule.from_knots([0, 4], eta=[1, 0.5], beta=[0.9, 0.8], batch_size=[8, 16])
    assert Schedule.load(tmp_path / "s.csv") == expected


def test_plain_npz(tmp_path):
    np.savez(tmp_path / "s.npz", step=[0, 4], eta=[1.0, 0.5])
    assert Schedule.load(tmp_path / "s.npz") == Schedule.from_knots([0, 4], eta=[1, 0.5])


def test_edited_rows_win(tmp_path):
    path = tmp_path / "s.csv"
    KNOTS.save(path)
    lines = path.read_text().splitlines()
    lines[2 + 7] = "7,0.125,0.25"
    path.write_text("\n".join(lines))
    again = Schedule.load(path)
    assert again(7) == 0.125
    assert again(7, "beta") == 0.25
    assert again(8) == KNOTS(8)
    assert (again.metadata, again.unit, again.extend) == (KNOTS.metadata, "tokens", "zero")
    # A dropped column, and a dropped knot.
    path.write_text("\n".join([lines[0], *(line.rpartition(",")[0] for line in lines[1:])]))
    assert list(Schedule.load(path).controls) == ["eta"]
    path.write_text("\n".join([lines[0], "step,eta,beta", "0,1,0", "99,0,0"]))
    assert Schedule.load(path).steps.tolist() == [0, 99]


def test_edited_npz_rows_win(tmp_path):
    KNOTS.save(tmp_path / "s.npz")
    arrays = dict(np.load(tmp_path / "s.npz"))
    arrays["eta"][7] = 0.125
    np.savez(tmp_path / "s.npz", **arrays)
    assert Schedule.load(tmp_path / "s.npz")(7) == 0.125


def test_last_bit_of_another_machine_is_no_edit(tmp_path):
    KNOTS.save(tmp_path / "s.npz")
    arrays = dict(np.load(tmp_path / "s.npz"))
    arrays["eta"][1:-1] = np.nextafter(arrays["eta"][1:-1], 1.0)
    np.savez(tmp_path / "s.npz", **arrays)
    assert Schedule.load(tmp_path / "s.npz") == KNOTS


def test_cut_csv_is_an_error(tmp_path):
    path = tmp_path / "s.csv"
    KNOTS.save(path)
    path.write_text("\n".join(path.read_text().splitlines()[:50]))
    with pytest.raises(BadFile, match="rows end at step 47, but the header says horizon 100"):
        Schedule.load(path)


# Bad files


def npz(**arrays):
    def write(path):
        with path.open("wb") as file:
            np.savez(file, **arrays)

    return write


def cut(path):
    KNOTS.save(path)
    path.write_bytes(path.read_bytes()[:-200])


def damaged(path):
    KNOTS.save(path)
    content = bytearray(path.read_bytes())
    content[300] ^= 255
    path.write_bytes(content)


def edited(*changes):
    def write(path):
        KNOTS.save(path)
        text = path.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        path.write_text(text)

    return write


def single_array(path):
    with path.open("wb") as file:
        np.save(file, np.arange(3))


HEADER = '{"format": "optsched schedule"%s}'
BAD = {
    "missing.npz": (None, "No such file"),
    "missing.csv": (None, "No such file"),
    "missing.json": (None, "No such file"),
    "folder.npz": (Path.mkdir, "directory"),
    "folder.csv": (Path.mkdir, "directory"),
    "empty.npz": ("", "expected arrays step and eta"),
    "empty.csv": ("", "expected step,eta"),
    "empty.json": ("", "expected JSON"),
    "cut.npz": (cut, "expected arrays step and eta"),
    "cut.json": (cut, "expected JSON"),
    "damaged.npz": (damaged, "array .*expected"),
    "text.npz": ("step,eta\n", "not an npz"),
    "single.npz": (single_array, "not an npz"),
    "none.npz": (npz(), "expected at least step and eta"),
    "no_eta.npz": (npz(step=[0, 1]), "arrays step; expected at least step and eta"),
    "pickled.npz": (npz(step=[0], eta=np.array([{}], dtype=object)), "array eta: Object arrays"),
    "pickled_header.npz": (
        npz(step=[0], eta=[1.0], header=np.array([{}], dtype=object)), "array header"),
    "header.npz": (npz(step=[0], eta=[1.0], header="{"), "header: .*expected JSON"),
    "nan.npz": (npz(step=[0, 1], eta=[1, np.nan]), "eta: got nan"),
    "strings.npz": (npz(step=[0, 1], eta=["a", "b"]), "eta: got"),
    "lengths.npz": (npz(step=[0, 1], eta=[1.0]), r"eta: got 'shape \(1,\)'"),
    "scalar.npz": (npz(step=0, eta=1.0), "steps: got"),
    "start.npz": (npz(step=[1, 2], eta=[1.0, 1.0]), "steps: got 1, allowed: 0"),
    "knots.npz": (npz(step=[0], eta=[1.0], knot_eta=[1.0]), "knots: expected"),
    "foreign.csv": ("a,b\n1,2\n", "columns 'a,b'; expected step and one of eta, lr"),
    "no_names.csv": ("0,1\n1,2\n", "columns '0,1'; expected step"),
    "twice.csv": ("step,lr,eta\n0,1,1\n", "once each"),
    "comments.csv": ("# a\n# b\n", "expected step,eta"),
    "no_rows.csv": ("step,eta\n", "no rows"),
    "nan.csv": ("step,eta\n0,1\n1,nan\n", "eta: got nan"),
    "gap.csv": ("step,eta\n0,1\n1,\n", "rows: could not convert string ''"),
    "ragged.csv": ("step,eta\n0,1\n1\n", "rows: .*expected numbers"),
    "start.csv": ("step,eta\n1,1\n2,1\n", "steps: got 1, allowed: 0"),
    "order.csv": ("step,eta\n0,1\n2,1\n1,1\n", "steps: got 1, allowed: more than 2"),
    "fraction.csv": ("step,eta\n0,1\n1.5,1\n", "steps: got 1.5"),
    "negative.csv": ("step,eta\n0,1\n1,-1\n", "eta: got -1.0"),
    "binary.csv": (b"\xff\xfe\x00\x80", "UTF-8"),
    "header.csv": ("# optsched schedule {\nstep,eta\n0,1\n", "header: .*expected JSON"),
    "header_knots.csv": (
        "# optsched schedule " + HEADER % ', "knots": 5' + "\nstep,eta\n0,1\n", "knots: expected"),
    "foreign.json": ('{"lr": [1, 2]}', "format: expected"),
    "list.json": ("[1, 2]", "format: expected"),
    "deep.json": ("[" * 100000, "expected JSON"),
    "binary.json": (b"\xff\xfe\x00\x80", "UTF-8"),
    "no_knots.json": (HEADER % "", "knots: expected"),
    "version.json": (HEADER % ', "version": 99', "version: 99, expected 1"),
    "cubic.json": (HEADER % ', "interpolation": "cubic"', "interpolation: 'cubic', expected"),
    "digest.json": (edited(("0.1,", "0.2,")), "digest: .*remove its digest"),
    "nan.json": (edited(("[0.1,", "[NaN,")), "eta: got nan"),
    "beta.json": (edited(("[0.9,", "[1.9,")), "beta: got 1.9"),
    "string.json": (edited(("[0.1,", '["a",')), "eta: got"),
    "null.json": (edited(("[0.1,", "[null,")), "eta: got"),
    "huge.json": (edited(("99]", "9" * 400 + "]")), "steps: got"),
    "horizon.json": (edited(('"horizon": 100', '"horizon": 90')), "horizon: got 90, allowed: 100"),
    "unit.json": (edited(('"unit": "tokens"', '"unit": []')), "unit: got"),
    "metadata.json": (edited(('"metadata": {', '"metadata": 5, "x": {')), "metadata: got 'int'"),
    "suffix.txt": ("", "suffix '.txt', expected one of .npz, .csv, .json"),
    "no_suffix": ("", "suffix '', expected one of"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_file_gives_one_line(tmp_path, name):
    content, message = BAD[name]
    path = tmp_path / name
    if isinstance(content, str):
        content = content.encode()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        content(path)
    with pytest.raises(BadFile, match=message) as caught:
        Schedule.load(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert len(text) < len(str(path)) + 300
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_hand_edited_json_without_digest_loads(tmp_path):
    path = tmp_path / "s.json"
    edited(("0.1,", "0.2,"), (f' "digest": "{KNOTS.digest}",\n', ""))(path)
    assert Schedule.load(path)(0) == 0.2


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SUFFIXES), st.integers(0, 10**6), st.integers(0, 255), st.booleans())
def test_any_damage_is_a_bad_file_or_a_schedule(suffix, position, byte, shorten):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"s{suffix}"
        KNOTS.save(path)
        content = bytearray(path.read_bytes())
        position %= len(content)
        if shorten:
            del content[position:]
        else:
            content[position] = byte
        path.write_bytes(content)
        try:
            assert isinstance(Schedule.load(path), Schedule)
        except BadFile as error:
            assert "\n" not in str(error)


# Writing


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_existing_file_needs_overwrite(tmp_path, suffix):
    path = tmp_path / f"s{suffix}"
    KNOTS.save(path)
    other = KNOTS.scaled(2.0)
    with pytest.raises(BadFile, match=r"exists already; pass overwrite=True"):
        other.save(path)
    assert Schedule.load(path) == KNOTS
    other.save(path, overwrite=True)
    assert Schedule.load(path) == other
    assert left_in(tmp_path) == [path.name]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError, Killed])
@pytest.mark.parametrize("place", ["write", "replace"])
@pytest.mark.parametrize("existing", [True, False])
def test_failure_leaves_the_old_file(tmp_path, monkeypatch, suffix, error, place, existing):
    path = tmp_path / f"s{suffix}"
    if existing:
        KNOTS.save(path)

    def fail(*_args, **_more):
        raise error

    def half(file, *_args):
        file.write_text("half a file")
        fail()

    if place == "write":
        monkeypatch.setattr(files, f"_write_{suffix[1:]}", half)
    else:
        monkeypatch.setattr(os, "replace", fail)
    full = isinstance(error, OSError)
    message = "cannot be written: No space left" if full else None
    with pytest.raises(BadFile if full else error, match=message):
        KNOTS.scaled(2.0).save(path, overwrite=True)
    monkeypatch.undo()
    assert left_in(tmp_path) == ([path.name] if existing else [])
    assert not existing or Schedule.load(path) == KNOTS


def test_failure_in_the_middle_of_the_rows(tmp_path, monkeypatch):
    def blocks(self, size):
        yield np.arange(3), {"eta": np.ones(3), "beta": np.zeros(3)}
        raise MemoryError

    KNOTS.save(tmp_path / "s.csv")
    monkeypatch.setattr(Schedule, "blocks", blocks)
    with pytest.raises(MemoryError):
        KNOTS.save(tmp_path / "s.csv", overwrite=True)
    monkeypatch.undo()
    assert left_in(tmp_path) == ["s.csv"]
    assert Schedule.load(tmp_path / "s.csv") == KNOTS


@pytest.mark.parametrize("write", [lambda path: KNOTS.save(path), check_writable])
def test_unwritable(tmp_path, monkeypatch, write):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.csv").mkdir()
    for name, message in (
        ("no/s.csv", "cannot be written: no directory"),
        ("file/s.csv", "cannot be written: "),
        ("folder.csv", "is a directory"),
        ("x" * 300 + ".csv", "cannot be written: File name too long"),
    ):
        with pytest.raises(BadFile, match=message):
            write(tmp_path / name)

    def refuse(self, *_args, **_more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(BadFile, match="cannot be written: Permission denied"):
        write(tmp_path / "s.csv")
    monkeypatch.undo()
    assert left_in(tmp_path) == ["file", "folder.csv"]


def test_check_writable(tmp_path):
    path = tmp_path / "plot.pdf"
    check_writable(path)
    assert left_in(tmp_path) == []
    with pytest.raises(BadFile, match=r"suffix '.pdf', expected one of .npz"):
        check_writable(path, suffixes=files.SUFFIXES)
    path.write_text("old")
    with pytest.raises(BadFile, match="exists already"):
        check_writable(path)
    check_writable(path, overwrite=True)
    assert path.read_text() == "old"
    assert left_in(tmp_path) == ["plot.pdf"]


@pytest.mark.parametrize("name", ["s.txt", "s", "s.npy"])
def test_other_suffixes(tmp_path, name):
    with pytest.raises(BadFile, match=r"expected one of \.npz, \.csv, \.json"):
        KNOTS.save(tmp_path / name)
    assert left_in(tmp_path) == []


def test_capital_suffix(tmp_path):
    KNOTS.save(tmp_path / "S.NPZ")
    assert Schedule.load(tmp_path / "S.NPZ") == KNOTS


def test_atomic_path(tmp_path):
    target = tmp_path / "plot.png"
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".png"
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert left_in(tmp_path) == ["plot.png"]
    with pytest.raises(BadFile, match="exists already"), atomic_path(target, overwrite=False):
        pass
    # One that appears during the write is not replaced either.
    late = tmp_path / "late.png"
    with pytest.raises(BadFile, match="exists already"), atomic_path(late, overwrite=False):
        late.write_text("other")
    assert late.read_text() == "other"
    assert left_in(tmp_path) == ["late.png", "plot.png"]


def test_permissions_and_links(tmp_path):
    (tmp_path / "plain").write_text("")
    (tmp_path / "real").mkdir()
    KNOTS.save(tmp_path / "real" / "s.json")
    (tmp_path / "link.json").symlink_to(tmp_path / "real" / "s.json")
    KNOTS.scaled(2.0).save(tmp_path / "link.json", overwrite=True)
    assert (tmp_path / "link.json").is_symlink()
    assert Schedule.load(tmp_path / "real" / "s.json") == KNOTS.scaled(2.0)
    modes = [(tmp_path / p).stat().st_mode for p in ("plain", "real/s.json")]
    assert stat.S_IMODE(modes[0]) == stat.S_IMODE(modes[1])


@pytest.mark.parametrize("suffix", [".npz", ".csv"])
def test_limit_of_rows_is_inclusive(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(files, "MAX_ROWS", 100)
    KNOTS.save(tmp_path / f"a{suffix}")
    longer = Schedule.from_knots([0, 100], eta=1.0)
    with pytest.raises(BadFile, match="101 rows, at most 100"):
        longer.save(tmp_path / f"b{suffix}")
    longer.save(tmp_path / f"b{suffix}", points=101)
