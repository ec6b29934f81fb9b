"""The command that shows what a data set holds, on a person's own files and on a prepared data set."""

import json
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.inspect_data import DATA_SETS, main
from vlm_jax import figures
from vlm_jax.command_line import run_command
from vlm_jax.data import data_sets, datasets
from vlm_jax.errors import InputError

ROOT = Path(__file__).parent.parent
PRESET = str(ROOT / "configs" / "vqa_table.py")


@pytest.fixture
def own(tmp_path):
    """Forty images, one of them broken, one in the test file too; two bad rows. Options for the command."""
    (tmp_path / "images").mkdir()
    rows = []
    for number in range(40):
        Image.new("RGB", (30, 20), (number * 6, 0, 99)).save(tmp_path / "images" / f"{number}.png")
        rows.append({"image": f"{number}.png", "question": "how red is it?", "answers": [str(number % 3)]})
    (tmp_path / "images" / "5.png").write_bytes(b"broken")
    (tmp_path / "images" / "copy.png").write_bytes((tmp_path / "images" / "1.png").read_bytes())
    tests = [rows[2], {**rows[3], "image": "copy.png", "answers": ["very"]}]
    rows[10]["question"], rows[20]["image"] = "", "../secret.png"
    for name, content in (("train", rows), ("test", tests)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, content)), encoding="utf-8")
    files = {"images": "images", "train": "train.jsonl", "test": "test.jsonl"}
    return [part for name, file in files.items() for part in (f"--data.{name}", str(tmp_path / file))]


def rows_of(text):
    return {" ".join(line.split()) for line in text.splitlines()}


def test_own_files_are_shown_with_all_that_is_wrong(own, tmp_path, capsys):
    contact_sheet = tmp_path / "new" / "sheet.png"
    assert main([PRESET, *own, "--contact-sheet", str(contact_sheet)]) == 0
    output, errors = capsys.readouterr()
    assert [line.split(" as ")[1].split(":")[0] for line in errors.splitlines()] == ["JSON Lines"] * 2
    assert {
        "train validation test",
        "images 34 4 2",
        "every answer unseen 0.0% 0.0% 50.0%",
        "different questions of validation that train has too: 1 of 1, such as how red is it? (4)",
        "train and test 1 2",
        "1 answer of test that training lacks: very (1)",
        "unreadable images: 1",
        "bad rows: 2",
        f"{tmp_path}/train.jsonl:11: the question is empty",
        f"{tmp_path}/train.jsonl:21: the image path '../secret.png' holds '..'; it may not leave the folder",
        f"saved {contact_sheet}",
    } <= rows_of(output)
    assert f"{tmp_path}/images/5.png is not an image" in output
    with Image.open(contact_sheet) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert len({tuple(colour) for colour in pixels.reshape(-1, 3)[::7]} & {(n * 6, 0, 99) for n in range(40)}) == 24


@pytest.fixture
def captions(own, tmp_path):
    """The same images with captions; one bad line. Options for the command."""
    rows = [{"image": f"{n}.png", "captions": ["a red card", f"card number {n}"]} for n in range(40)]
    rows[10]["captions"] = []
    tests = [rows[2], {"image": "copy.png", "captions": ["a zebra"]}]
    for name, content in (("train", rows), ("test", tests)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, content)), encoding="utf-8")
    return ["captioning", "--data.kind", "table", *own]


def test_captions_are_shown_with_all_that_is_wrong(captions, tmp_path, capsys):
    contact_sheet = tmp_path / "sheet.png"
    assert main([*captions, "--contact-sheet", str(contact_sheet)]) == 0
    output, errors = capsys.readouterr()
    rows = rows_of(output)
    assert errors.count("JSON Lines") == errors.count("\n") == 2 and "question" not in output and "answer" not in output
    assert {
        "train validation test",
        "images 35 4 2",
        "captions 70 8 3",
        "captions of an image, mean 2.0 2.0 1.5",
        "words unseen in training 0.0% 16.7% 12.5%",
        "train and test 1 2",
        f"a red card 35 4 1 {'#' * 24}",
        "different captions of validation that train has too: 1 of 5, such as a red card (4)",
        "different captions of test that train has too: 2 of 3, such as a red card (1), card number 2 (1)",
        "1 word of test that training lacks: zebra (1)",
        "unreadable images: 1",
        "bad rows: 1",
        f"{tmp_path}/train.jsonl:11: captions is empty; give at least one caption",
        f"saved {contact_sheet}",
    } <= rows
    assert main([*captions, "--data.captions", "first", "--contact-sheet", str(contact_sheet)]) == 0
    assert {"captions 35 8 3", f"a red card 35 4 1 {'#' * 24}"} <= rows_of(capsys.readouterr().out)


def test_groups_that_two_splits_share_are_shown(own, tmp_path, capsys):
    """Automatic splits share none; a file of its own may."""
    rows = [
        {"image": f"{n}.png", "question": f"q{n}?", "answers": ["x"], "group": f"patient {n // 2}"} for n in range(40)
    ]
    tests = [{**rows[2], "group": "patient 99"}, {**rows[3], "image": "copy.png", "group": "patient 9"}]
    for name, content in (("train", rows), ("test", tests)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, content)), encoding="utf-8")
    assert main([PRESET, *own, "--contact-sheet", str(tmp_path / "sheet.png")]) == 0
    assert {
        "images 36 4 2",
        "different groups of validation that train has too: 0 of 2",
        "different groups of test that train has too: 1 of 2, such as patient 9 (1)",
        "different questions of validation that train has too: 0 of 4",
    } <= rows_of(capsys.readouterr().out)


def test_the_contact_sheet_has_the_captions_of_an_image(captions, tmp_path, monkeypatch):
    items = []
    monkeypatch.setattr(figures, "plot_contact_sheet", lambda those, path, *, title: items.extend(those))
    assert main([*captions, "--contact-sheet", str(tmp_path / "sheet.png")]) == 0
    assert len(items) == 24 and {(item.question, item.answers, item.correct) for item in items} == {("", (), None)}
    numbers = [item.image[0, 0, 0] // 6 for item in items]
    assert [item.prediction for item in items] == [f"a red card · card number {number}" for number in numbers]


def test_a_data_set_that_has_captions_alone_needs_no_setting(tmp_path, capsys):
    """And its splits of another hand are shown too."""
    listed = []
    for number in range(60):
        for hand in ("google", "fluent3d"):
            (tmp_path / hand).mkdir(exist_ok=True)
            Image.new("RGB", (4, 4), (number, len(hand), 0)).save(tmp_path / hand / f"{number}.png")
        styles = ["google", "fluent3d"][: 1 + number % 2]
        listed.append({"code": str(number), "label": f"sign {number}", "tags": ["sign"], "renderings": styles})
    (tmp_path / "captions.json").write_text(json.dumps(listed), encoding="utf-8")
    options = ["emoji", "--data.images", str(tmp_path), "--contact-sheet", str(tmp_path / "sheet.png")]
    assert main(options) == 0
    parts = [zlib.crc32(str(number).encode()) % 10 for number in range(60)]
    odd = parts[1::2]
    train, tests = sum(part > 1 for part in parts), parts.count(0)
    counts = [train, parts.count(1), tests, sum(part > 1 for part in odd), odd.count(0)]
    rows = rows_of(capsys.readouterr().out)
    assert {f"images {' '.join(map(str, counts))}", "train and test_style_unseen 0 0", "bad rows: 0"} <= rows


def test_long_lists_are_cut_without_all(own, tmp_path, capsys):
    with (tmp_path / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n{" * 60)
    options = [PRESET, *own, "--contact-sheet", str(tmp_path / "sheet.png")]
    assert main(options) == 0
    assert "bad rows: 62\n" in (output := capsys.readouterr().out) and "\n  and 12 more (--all lists them)\n" in output
    assert main([*options, "--all"]) == 0
    assert capsys.readouterr().out.count("the line is not JSON") == 60


def test_files_without_any_good_row_are_shown_too(own, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert (
        main([PRESET, *own, "--data.images", str(tmp_path / "empty"), "--contact-sheet", str(tmp_path / "x.png")]) == 0
    )
    output = capsys.readouterr().out
    assert {"images 0 0 0", "bad rows: 5"} <= rows_of(output) and "saved" not in output
    assert "all 38 images that rows name in" in output
    assert not (tmp_path / "x.png").exists()


def test_a_prepared_data_set_by_name(data_directory, tmp_path, capsys):
    options = [
        "--data.directory",
        str(data_directory),
        "--data.limit",
        "30",
        "--contact-sheet",
        str(tmp_path / "sheet.png"),
    ]
    assert main(["easy_vqa", *options]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert {"images 30 30 30", "unreadable images: 0", "bad rows: 0", "train and test 0 0"} <= rows
    assert (tmp_path / "sheet.png").exists()


def test_every_data_set_has_a_name():
    assert set(DATA_SETS) == {name.rpartition(".")[2] for name in data_sets.DATA_SETS}
    assert len(DATA_SETS) == len(data_sets.DATA_SETS)
    files = {path.stem for path in Path(datasets.__file__).parent.glob("*.py")}
    assert files - {"__init__", "builder"} <= set(DATA_SETS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [],
            r"no config; start from one of: vqa, captioning",
        ),
        (["configs/vqa_tabel.py"], r"no config file 'configs/vqa_tabel.py'; did you mean 'configs/vqa_table.py'\?"),
        (["table"], r"data.train is not given"),
        (["easy_vqa", "--data.limit", "0"], r"data.limit is '0'"),
        (
            [PRESET, "--data.images", "/nowhere", "--data.train", "x.jsonl"],
            r"data.images .*/nowhere.* does not exist",
        ),
    ],
)
def test_mistakes_are_named(arguments, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match=message):
        main(arguments)


def test_an_unwritable_contact_sheet_is_named_last(own, tmp_path, capsys):
    with pytest.raises(InputError, match=r"cannot write --contact-sheet .*sheet.png: (File exists|Not a directory)"):
        main([PRESET, *own, "--contact-sheet", str(tmp_path / "train.jsonl" / "sheet.png")])
    assert "bad rows: 2" in capsys.readouterr().out


def test_a_wrong_option_ends_with_code_2(capsys):
    with pytest.raises(SystemExit) as end:
        run_command(main, ["easy_vqa", "--data.limt", "3"])
    assert end.value.code == 2 and "data.limit" in capsys.readouterr().err


def test_help_comes_at_once():
    began = time.perf_counter()
    command = [sys.executable, "-m", "experiments.inspect_data", PRESET, "--help"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0 and "--data.bad-rows" in answer.stdout and "--contact-sheet" in answer.stdout
    assert time.perf_counter() - began < 5, "with room for a busy machine; usually a fifth of a second"
