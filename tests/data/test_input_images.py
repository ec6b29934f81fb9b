"""Images named on a command line: files as they are, folders by what their files are called."""

import os

import pytest
from PIL import Image

from vlm_jax.data.input_images import input_images
from vlm_jax.errors import InputError


def test_files_are_read_and_folders_listed_in_order(tmp_path):
    for name in ("b.PNG", "a.jpg", "c.avif"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_bytes(b"notes.txt")
    (tmp_path / "folder.png").mkdir()
    images = list(input_images([tmp_path, tmp_path / "notes.txt"], max_pixels=16))
    names = [tmp_path / "a.jpg", tmp_path / "b.PNG", tmp_path / "c.avif"]
    assert images == [(str(name), name) for name in names] + [(str(tmp_path / "notes.txt"), b"notes.txt")]


@pytest.mark.parametrize("name", ["none.png", "~nobody-has-this-home/cat.png", "nul\0.png", "empty"])
def test_what_cannot_be_used_is_one_line(tmp_path, name):
    (tmp_path / "empty").mkdir()
    path = tmp_path / name if not name.startswith("~") else type(tmp_path)(name)
    with pytest.raises(InputError) as error:
        list(input_images([path], max_pixels=16))
    assert "\n" not in str(error.value)


def test_what_cannot_be_decoded_of_a_folder_is_named_and_the_others_live(tmp_path, capsys):
    Image.new("RGB", (4, 4)).save(tmp_path / "good.png")
    Image.new("RGB", (5, 4)).save(tmp_path / "large.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "good.png").read_bytes()[:40])
    images = list(input_images([tmp_path], max_pixels=16))
    assert [name for name, _ in images] == [str(tmp_path / "good.png")]
    messages = capsys.readouterr().err.splitlines()
    assert len(messages) == 2 and all(line.startswith("note: left out: ") for line in messages)
    assert "large.png has 5 x 4 pixels" in messages[0] and "torn.png is" in messages[1]
    (tmp_path / "good.png").unlink()
    with pytest.raises(InputError, match=r"none of the 2 images in .* can be decoded"):
        list(input_images([tmp_path], max_pixels=16))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="is a pipe or a device"):
        list(input_images([tmp_path / "pipe.png"], max_pixels=16))
