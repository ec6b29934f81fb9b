"""Images named on a command line: files as they are, folders by what their files are called."""

import os
import sys
import types

import pytest
from PIL import Image, ImageFile

from vlm_jax.data.images import decode_image
from vlm_jax.data.input_images import input_images
from vlm_jax.errors import InputError


def test_files_are_taken_as_they_are_and_folders_listed_in_order(tmp_path):
    for name in ("b.PNG", "a.jpg", "c.avif"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_bytes(b"notes.txt")
    (tmp_path / "folder.png").mkdir()
    images = list(input_images([tmp_path, tmp_path / "notes.txt"], max_pixels=16))
    names = [tmp_path / "a.jpg", tmp_path / "b.PNG", tmp_path / "c.avif"]
    assert images == [*names, tmp_path / "notes.txt"]


@pytest.mark.parametrize("name", ["none.png", "~nobody-has-this-home/cat.png", "nul\0.png", "empty"])
def test_what_cannot_be_used_is_one_line(tmp_path, name):
    (tmp_path / "empty").mkdir()
    path = tmp_path / name if not name.startswith("~") else type(tmp_path)(name)
    with pytest.raises(InputError) as error:
        [decode_image(file, max_pixels=16) for file in input_images([path], max_pixels=16)]
    assert "\n" not in str(error.value)


def test_what_cannot_be_decoded_of_a_folder_is_named_and_the_others_live(tmp_path, capsys):
    Image.new("RGB", (4, 4)).save(tmp_path / "good.png")
    Image.new("RGB", (5, 4)).save(tmp_path / "large.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "good.png").read_bytes()[:40])
    images = list(input_images([tmp_path], max_pixels=16))
    assert images == [tmp_path / "good.png"]
    messages = capsys.readouterr().err.splitlines()
    assert len(messages) == 2 and all(line.startswith("note: left out: ") for line in messages)
    assert "large.png has 5 x 4 pixels" in messages[0] and "torn.png is" in messages[1]
    (tmp_path / "good.png").unlink()
    with pytest.raises(InputError, match=r"none of the 2 images in .* can be decoded"):
        list(input_images([tmp_path], max_pixels=16))


def test_folders_in_a_folder_are_looked_into(tmp_path):
    names = [tmp_path / name for name in ("b.png", "a/deep/2.png", "a/1.png", "c/.hidden.png", ".hidden/3.png")]
    for name in names:
        name.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(name)
    images = list(input_images([tmp_path], max_pixels=16))
    assert images == [names[0], names[2], names[1]]


def test_an_image_of_another_format_is_named(tmp_path, capsys):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jfif", "JPEG")
    (tmp_path / "b.svg").write_text("<svg/>")
    assert len(list(input_images([tmp_path], max_pixels=16))) == 1
    assert "b.svg is not an image" in capsys.readouterr().err


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)


def test_heic_names_the_package_that_reads_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "b.HEIC").write_bytes(HEIC)
    assert len(list(input_images([tmp_path], max_pixels=16))) == 1
    (message,) = capsys.readouterr().err.splitlines()
    assert "b.HEIC" in message and "pip install pillow-heif" in message


def test_heic_is_read_where_the_package_is_installed(tmp_path, monkeypatch):
    """A stand-in for the package, which registers its format with Pillow."""

    class Heif(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self):
            self._size, self._mode, self.tile = (2, 3), "RGB", []

        def load(self):
            self.im = Image.new("RGB", (2, 3), "red").im

    opener = types.SimpleNamespace(register_heif_opener=lambda: Image.register_open("HEIF", Heif, lambda head: True))
    monkeypatch.setitem(sys.modules, "pillow_heif", opener)
    try:
        pixels = decode_image(HEIC, max_pixels=16)
    finally:
        Image.OPEN.pop("HEIF", None)
    assert pixels.shape == (3, 2, 3) and (pixels == (255, 0, 0)).all()


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="is a pipe or a device"):
        [decode_image(file, max_pixels=16) for file in input_images([tmp_path / "pipe.png"], max_pixels=16)]
