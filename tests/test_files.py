"""Files are there whole or not at all."""

import pytest

from vlm_jax.errors import InputError
from vlm_jax.files import read_json, read_settings_file, replaced, sha256, text_sha256, write_text


def test_a_file_is_replaced_only_by_a_whole_one(tmp_path):
    file = tmp_path / "file.txt"
    write_text(file, "before")
    with pytest.raises(RuntimeError), replaced(file) as part:
        part.write_text("half")
        assert file.read_text() == "before"
        raise RuntimeError
    assert file.read_text() == "before" and list(tmp_path.iterdir()) == [file]
    write_text(file, "after")
    assert file.read_text() == "after" and list(tmp_path.iterdir()) == [file]


def test_the_old_file_stays_whole_for_who_has_it_open(tmp_path):
    """A new file takes the name; nothing is written into the old one, where a kill could leave a half."""
    write_text(tmp_path / "file.txt", "before")
    with (tmp_path / "file.txt").open() as opened:
        write_text(tmp_path / "file.txt", "after")
        assert opened.read() == "before"


def test_the_digest_of_a_text_is_that_of_its_file(tmp_path):
    write_text(tmp_path / "file.txt", "größer")
    assert text_sha256("größer") == sha256(tmp_path / "file.txt")


@pytest.mark.parametrize("content", ["{", "\udcff", "[" * 10**5])
def test_what_is_no_json_is_named(tmp_path, content):
    (tmp_path / "settings.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"settings\.json"):
        read_json(tmp_path / "settings.json")


def test_settings_are_an_object_and_may_be_missing(tmp_path):
    file = tmp_path / "settings.json"
    assert read_settings_file(file) == {}
    write_text(file, "[1]")
    with pytest.raises(InputError, match="list"):
        read_settings_file(file)
    write_text(file, '{"a": 1}')
    assert read_settings_file(file) == {"a": 1}
