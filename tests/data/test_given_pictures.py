"""Pictures named on a command line: files as they are, folders by what their files are called."""

import pytest

from vlm_jax.data.given_pictures import given_pictures
from vlm_jax.errors import InputError


def test_files_are_read_and_folders_listed_in_order(tmp_path):
    for name in ("b.PNG", "a.jpg", "notes.txt", "c.avif"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "folder.png").mkdir()
    given = list(given_pictures([tmp_path, tmp_path / "notes.txt"]))
    names = [tmp_path / "a.jpg", tmp_path / "b.PNG", tmp_path / "c.avif"]
    assert given == [(str(name), name) for name in names] + [(str(tmp_path / "notes.txt"), b"notes.txt")]


@pytest.mark.parametrize("name", ["none.png", "~nobody-has-this-home/cat.png", "nul\0.png", "empty"])
def test_what_cannot_be_used_is_one_line(tmp_path, name):
    (tmp_path / "empty").mkdir()
    path = tmp_path / name if not name.startswith("~") else type(tmp_path)(name)
    with pytest.raises(InputError) as error:
        list(given_pictures([path]))
    assert "\n" not in str(error.value)
