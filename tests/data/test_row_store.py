"""Rows by key on disk: found again, shared by processes, and whole after kills, full disks and damage."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from vlm_jax.data import row_store
from vlm_jax.data.row_store import INDEX, ROWS, SPECIFICATION, RowStore
from vlm_jax.errors import InputError
from vlm_jax.integrity import write_manifest

SPEC = {"shape": [5, 3], "dtype": "float16", "what": "noise"}


def key(number):
    return f"{number:032x}"


def row(number):
    return np.random.default_rng(number).normal(size=(5, 3)).astype(np.float16)


def write(store, numbers):
    with store.writing() as append:
        for number in numbers:
            append(key(number), row(number))


def assert_holds(store, numbers):
    assert len(store) == len(numbers)
    for number in numbers:
        assert key(number) in store
        np.testing.assert_array_equal(store.get(key(number)), row(number))


@pytest.fixture
def store(tmp_path):
    return RowStore(tmp_path / "rows", SPEC)


def test_rows_are_found_again(store, tmp_path):
    assert len(store) == 0 and store.get(key(1)) is None and not store.directory.exists()
    write(store, range(1, 4))
    assert_holds(store, range(1, 4))
    write(store, [7])
    for again in (RowStore(store.directory, SPEC), RowStore.open(store.directory), pickle.loads(pickle.dumps(store))):
        assert_holds(again, [1, 2, 3, 7])
    assert not store.get(key(1)).flags.writeable
    assert len(pickle.dumps(store)) < 1000


def test_threads_append_whole_rows(store):
    numbers = range(1, 200)
    with store.writing() as append, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: append(key(number), row(number)), numbers))
    assert_holds(store, numbers)


@pytest.mark.parametrize("cut", [1, 20, 41])
def test_a_half_written_line_and_a_row_without_a_line_are_cut_off(store, cut):
    write(store, [1, 2, 3])
    index = store.directory / INDEX
    index.write_bytes(index.read_bytes()[:-cut])
    again = RowStore(store.directory, SPEC)
    assert_holds(again, [1, 2])
    write(again, [4])
    assert_holds(RowStore(store.directory, SPEC), [1, 2, 4])
    assert (store.directory / ROWS).stat().st_size == 3 * 30 and index.stat().st_size == 3 * 42


def test_lines_without_their_rows_are_not_read(store):
    write(store, [1, 2, 3])
    with (store.directory / ROWS).open("r+b") as rows:
        rows.truncate(40)
    assert_holds(RowStore(store.directory, SPEC), [1])


def test_a_damaged_row_is_forgotten_and_can_be_written_again(store):
    write(store, [1, 2, 3])
    with (store.directory / ROWS).open("r+b") as rows:
        rows.seek(30 + 11)
        rows.write(b"\x55\xaa")
    again = RowStore(store.directory, SPEC)
    assert key(2) in again and again.get(key(2)) is None and key(2) not in again
    write(again, [2])
    assert_holds(RowStore(store.directory, SPEC), [1, 2, 3])


def test_a_damaged_line_costs_its_row(store):
    write(store, [1, 2, 3])
    index = store.directory / INDEX
    content = bytearray(index.read_bytes())
    content[42 + 35] = ord("?")
    index.write_bytes(content)
    assert_holds(RowStore(store.directory, SPEC), [1, 3])


@hypothesis.given(st.sampled_from([INDEX, ROWS, SPECIFICATION]), st.binary(max_size=200))
@hypothesis.settings(max_examples=60, deadline=None)
def test_random_bytes_are_no_rows_and_no_traceback(tmp_path_factory, name, content):
    store = RowStore(tmp_path_factory.mktemp("random") / "rows", SPEC)
    write(store, [1, 2])
    (store.directory / name).write_bytes(content)
    try:
        again = RowStore(store.directory, SPEC)
    except InputError:
        assert name == SPECIFICATION
        return
    for number in (1, 2):
        found = again.get(key(number))
        assert found is None or np.array_equal(found, row(number))


def test_another_version_is_named(store):
    write(store, [1])
    write_manifest(store.directory / SPECIFICATION, SPEC | {"format": 99})
    with pytest.raises(InputError, match="99"):
        RowStore(store.directory, SPEC)


def test_other_rows_and_damaged_specifications_are_refused(store):
    write(store, [1])
    with pytest.raises(InputError):
        RowStore(store.directory, SPEC | {"what": "other"})
    specification = store.directory / SPECIFICATION
    specification.write_text(specification.read_text().replace("noise", "other"))
    with pytest.raises(InputError, match=SPECIFICATION):
        RowStore.open(store.directory)
    with pytest.raises(InputError):
        RowStore.open(store.directory / "nothing")


@pytest.mark.parametrize("written", [0, 13])
def test_after_a_full_disk_nothing_more_is_appended_and_what_was_is_whole(store, monkeypatch, written):
    write(store, [1, 2])
    real, calls = os.write, []

    def full(number, content):
        calls.append(len(content))
        if len(calls) == 3:  # the second row of this filling
            return real(number, bytes(content[:written])) if written else fail()
        return real(number, content) if len(calls) < 3 else fail()

    def fail():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(row_store.os, "write", full)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)), store.writing() as append:
        append(key(3), row(3))
        for number in (4, 5):
            try:
                append(key(number), row(number))
            except OSError:
                continue
        append(key(6), row(6))
    monkeypatch.undo()
    again = RowStore(store.directory, SPEC)
    assert_holds(again, [1, 2, 3])
    write(again, [4])
    assert_holds(RowStore(store.directory, SPEC), [1, 2, 3, 4])


def test_a_second_writer_waits_and_finds_everything(store):
    order, entered = [], threading.Event()

    def second():
        entered.wait()
        other = RowStore(store.directory, SPEC)
        with other.writing():
            order.append(("second", len(other)))

    thread = threading.Thread(target=second)
    thread.start()
    with store.writing() as append:
        entered.set()
        for number in range(1, 6):
            append(key(number), row(number))
            thread.join(0.02)
        order.append(("first", 5))
    thread.join()
    assert order == [("first", 5), ("second", 5)]


CHILD = """
import sys
import numpy as np
from pathlib import Path
from vlm_jax.data.row_store import RowStore
store = RowStore(Path(sys.argv[1]), {"shape": [5, 3], "dtype": "float16", "what": "noise"})
with store.writing() as append:
    missing = [n for n in range(1, 100_000) if f"{n:032x}" not in store]
    print("writing", missing[0], flush=True)
    for n in missing:
        print(n, flush=True)
        append(f"{n:032x}", np.random.default_rng(n).normal(size=(5, 3)).astype(np.float16))
"""


@pytest.mark.slow
def test_ten_kills_lose_at_most_the_row_in_work(store):
    """SIGKILL at any moment: each row that a process began to write, but the last one, is there and whole."""
    script = [sys.executable, "-c", textwrap.dedent(CHILD), str(store.directory)]
    lost = 0
    for _ in range(10):
        with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as process:
            lines = [process.stdout.readline() for _ in range(60)]
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
        begun = max(int(line) for line in lines[1:] if line.endswith("\n"))
        there = RowStore(store.directory, SPEC)
        assert begun - 1 <= len(there) <= begun
        lost += begun - len(there)
        assert_holds(there, range(1, len(there) + 1))
    assert len(there) > 10 * 50 - lost
