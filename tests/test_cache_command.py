"""`cache list` and `cache clear`: what lies below the data directory, and nothing else, is shown and removed."""

import numpy as np
import pytest

from experiments import cache
from vlm_jax.data.row_store import INDEX, ROWS, RowStore

KEY = f"{1:032x}"


@pytest.fixture
def directory(tmp_path):
    root = tmp_path / "directory"
    for kind in ("images", "features"):
        specification = {"shape": [10, 10, 3], "dtype": "uint8", "resize": {"kind": "pad"}, "for": kind}
        store = RowStore(root / "cache" / kind / f"{kind}-1", specification)
        with store.writing() as append:
            append(KEY, np.zeros((10, 10, 3), np.uint8))
    for name, size in (("compiled/program", 2_000_000), ("easy_vqa/1.0.0/records", 3000), ("own/photo.jpg", 5)):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(bytes(size))
    return root


def run(capsys, *arguments):
    code = cache.main(list(arguments))
    return code, capsys.readouterr().out.splitlines()


def test_what_is_there_is_shown_with_its_size(directory, capsys):
    code, lines = run(capsys, "list", "--directory", str(directory))
    assert code == 0 and [line.split()[0] for line in lines] == ["images", "features", "compiled", "together"]
    assert "1 of 10 x 10 x 3, pad" in lines[0] and str(directory / "cache" / "images") in lines[0]
    assert "2.0 MB" in lines[2]
    _, lines = run(capsys, "list", "--directory", str(directory), "--what", "all")
    assert [line.split()[0] for line in lines] == ["images", "features", "compiled", "prepared", "together"]
    assert "3.0 kB" in lines[3]


def test_an_empty_directory_is_no_error(tmp_path, capsys):
    for command in ("list", "clear"):
        code, lines = run(capsys, command, "--directory", str(tmp_path / "nothing"), "--what", "all")
        assert code == 0 and len(lines) == 1
    assert not (tmp_path / "nothing").exists()


def files(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def test_nothing_is_removed_without_yes(directory, capsys):
    before = files(directory)
    code, lines = run(capsys, "clear", "--directory", str(directory), "--what", "all")
    assert code == 0 and files(directory) == before and "--yes" in lines[-1]


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ((), {"prepared"}),
        (("--what", "images"), {"features", "compiled", "prepared"}),
        (("--what", "compiled"), {"images", "features", "prepared"}),
        (("--what", "all"), set()),
    ],
)
def test_what_is_named_is_removed(directory, capsys, options, left):
    assert run(capsys, "clear", "--directory", str(directory), "--yes", *options)[0] == 0
    _, lines = run(capsys, "list", "--directory", str(directory), "--what", "all")
    assert {line.split()[0] for line in lines} - {"together", "nothing"} == left
    assert (directory / "own" / "photo.jpg").exists()


def test_a_cache_that_is_read_can_be_removed_and_filled_again(directory, capsys):
    place = directory / "cache" / "images" / "images-1"
    store = RowStore.open(place)
    row = store.get(KEY)
    run(capsys, "clear", "--directory", str(directory), "--yes")
    assert not row.any() and not (place / ROWS).exists()
    with store.writing() as append:
        assert KEY not in store
        append(KEY, np.ones((10, 10, 3), np.uint8))
    assert store.get(KEY).all()


def test_a_cache_that_is_filled_or_of_another_version_is_named(directory, capsys):
    place = directory / "cache" / "images" / "images-1"
    (directory / "cache" / "features" / "features-1" / "specification.json").write_text("{}")
    with RowStore.open(place).writing():
        code, lines = run(capsys, "clear", "--directory", str(directory), "--yes")
        assert code == 1 and sum(str(place) in line for line in lines) == 2
        assert "version" in lines[1]
    assert (place / INDEX).exists() and "cache/features/features-1/rows.bin" not in files(directory)
    assert not (directory / "compiled").exists()
