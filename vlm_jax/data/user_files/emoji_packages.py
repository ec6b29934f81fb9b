"""The folder that the data set `emoji` reads, made from the npm packages of its images and names."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vlm_jax.data.images import decode_image
from vlm_jax.data.user_files.emoji import CAPTIONS
from vlm_jax.data.user_files.json_files import load_json
from vlm_jax.errors import InputError
from vlm_jax.failures import os_failure
from vlm_jax.types import Json

NAMES = "emojibase-data/en/data.json"
# The folder of a designer's images, where its package has them, and the ending of their files.
RENDERINGS = {
    "google": ("emoji-datasource-google/img/google/64", ".png"),
    "fluent3d": ("@lobehub/fluent-emoji-3d/assets", ".webp"),
}
PACKAGES = ("emojibase-data", "emoji-datasource-google", "@lobehub/fluent-emoji-3d")
SIDE = 64  # pixels
_MOST_PIXELS = 2**20  # of an image
_PRESENTATION = "fe0f"  # "rendered in colour": packages differ in where they write it


def prepare_emoji(packages: Path, output: Path) -> dict[str, int]:
    """Write every image that has a name, 64 x 64 on white, and `captions.json`; return the images of each designer.

    `packages` is a `node_modules`. An emoji is named as the first designer's file (`1f600`, with the parts that say "in
    colour" where they are there). Its label is in lower case. What the first designer lacks, and skin tones, are left
    out. Raises `InputError` where a package is missing, an image damaged or `output` there already, and then
    leaves no `output` behind.
    """
    if output.exists():
        raise InputError(f"{output} is there already; give another --output")
    if missing := [name for name in PACKAGES if not (packages / name).is_dir()]:
        raise InputError(f"{packages} has no {', '.join(missing)}; run: npm install {' '.join(PACKAGES)}")
    parent = output.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            counts = _write(packages, Path(folder) / "emoji")
            (Path(folder) / "emoji").rename(output)
    except OSError as error:
        raise os_failure(error, f"cannot write {output}") from None
    return counts


def _write(packages: Path, output: Path) -> dict[str, int]:
    renderings = {name: _by_code(packages / folder, ending) for name, (folder, ending) in RENDERINGS.items()}
    first = next(iter(renderings.values()))
    entries, counts = [], dict.fromkeys(renderings, 0)
    for name in renderings:
        (output / name).mkdir(parents=True, exist_ok=True)
    for names in _named(packages / NAMES):
        code = _bare(names["hexcode"])
        if code not in first:
            continue
        designers = [name for name, files in renderings.items() if code in files]
        for name in designers:
            _write_image(renderings[name][code], output / name / f"{first[code].stem}.png")
            counts[name] += 1
        label, tags = names["label"].lower(), names.get("tags", [])
        entries.append({"code": first[code].stem, "label": label, "tags": tags, "renderings": designers})
    for name, count in counts.items():
        if not count:
            raise InputError(f"{packages / RENDERINGS[name][0]} has no image of what {packages / NAMES} names")
    (output / CAPTIONS).write_text(json.dumps(entries, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return counts


def _named(file: Path) -> Iterator[dict[str, Json]]:
    expected = "a list of emoji with hexcode, label and tags"
    if not file.is_file():
        raise InputError(f"no file {file}; the package has another layout than the one known here")
    content = load_json(file, expected=expected)
    for entry in content if isinstance(content, list) else [content]:
        texts = (entry.get("hexcode"), entry.get("label")) if isinstance(entry, dict) else (None,)
        if not all(isinstance(text, str) for text in texts) or not isinstance(entry.get("tags", []), list):
            raise InputError(f"{file} is not what it was: expected {expected}")
        yield entry


def _by_code(folder: Path, ending: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"no folder {folder}; the package has another layout than the one known here")
    return {_bare(file.stem): file for file in sorted(folder.iterdir()) if file.suffix == ending}


def _bare(code: str) -> str:
    return "-".join(part for part in code.lower().split("-") if part != _PRESENTATION)


def _write_image(source: Path, target: Path) -> None:
    from PIL import Image

    image = Image.fromarray(decode_image(source, max_pixels=_MOST_PIXELS))
    image.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(target)
