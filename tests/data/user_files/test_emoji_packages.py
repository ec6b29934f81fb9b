"""The emoji folder from npm's packages: what belongs together, what is left out, what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments import prepare_emoji
from tests.data.user_files.packages import write_packages
from vlm_jax.data.user_files.dataset import read_split
from vlm_jax.data.user_files.emoji import Emoji
from vlm_jax.data.user_files.emoji_packages import NAMES, RENDERINGS
from vlm_jax.errors import InputError


@pytest.fixture
def packages(tmp_path):
    return write_packages(tmp_path / "node_modules")


def test_renderings_and_names_come_together(packages, tmp_path, capsys):
    output = tmp_path / "new" / "emoji"
    assert prepare_emoji.main([str(packages), "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}: 3 images in google/, 2 images in fluent3d/\n"
    assert json.loads((output / "captions.json").read_text(encoding="utf-8")) == [
        {"code": "1f600", "label": "grinning face", "tags": ["smile"], "renderings": ["google", "fluent3d"]},
        {"code": "2764-fe0f", "label": "red heart", "tags": [], "renderings": ["google", "fluent3d"]},
        {"code": "1f44b", "label": "waving hand", "tags": [], "renderings": ["google"]},
    ]
    for hand in RENDERINGS:
        with Image.open(output / hand / "1f600.png") as image:
            assert (image.mode, image.size) == ("RGB", (64, 64))
            assert np.asarray(image)[:20].reshape(-1, 3).tolist() == [[200, 30, 40]] * 20 * 64
            assert (np.asarray(image)[44:] == 255).all(), "what is transparent is white"
    data = Emoji(images=output, directory=tmp_path / "kept")
    reading = read_split(data, "train")
    assert reading.examples[0].texts[0].text == "grinning face" and not reading.bad_rows


def test_what_is_missing_or_broken_is_named_and_nothing_is_left(packages, tmp_path):
    output = tmp_path / "emoji"
    with pytest.raises(InputError, match=r"^cannot write .*: (File exists|Not a directory)$"):
        prepare_emoji.main([str(packages), "--output", str(packages / NAMES / "emoji")])
    with pytest.raises(InputError, match=r"has no emojibase-data, .*; run: npm install emojibase-data "):
        prepare_emoji.main([str(tmp_path), "--output", str(output)])
    broken = packages / RENDERINGS["fluent3d"][0] / "2764-fe0f.webp"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(InputError, match=r"2764-fe0f.webp"):
        prepare_emoji.main([str(packages), "--output", str(output)])
    (packages / NAMES).write_text('[{"hexcode": 5}]', encoding="utf-8")
    with pytest.raises(InputError, match="expected a list of emoji with hexcode, label and tags"):
        prepare_emoji.main([str(packages), "--output", str(output)])
    (packages / NAMES).write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match="has no image of what"):
        prepare_emoji.main([str(packages), "--output", str(output)])
    (packages / NAMES).write_text('[{"hexcode": "1F600", "label": "x", "tags": "y"}]', encoding="utf-8")
    with pytest.raises(InputError, match="expected a list of emoji with hexcode, label and tags"):
        prepare_emoji.main([str(packages), "--output", str(output)])
    (packages / NAMES).unlink()
    with pytest.raises(InputError, match=r"no file .*data\.json; the package has another layout"):
        prepare_emoji.main([str(packages), "--output", str(output)])
    assert [path.name for path in tmp_path.iterdir()] == ["node_modules"]
    output.mkdir()
    with pytest.raises(InputError, match="is there already"):
        prepare_emoji.main([str(packages), "--output", str(output)])
