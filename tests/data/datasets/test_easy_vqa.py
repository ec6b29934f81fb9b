"""The easy-VQA data set: what is in it, its splits, and its preparation under fire."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vlm_jax.data.answers import AnswerVocabulary
from vlm_jax.data.datasets.easy_vqa import EasyVQA
from vlm_jax.data.images import decode_image
from vlm_jax.data.sources import open_split
from vlm_jax.errors import InputError
from vlm_jax.settings.changes import with_changes

OPEN = """
import sys
from pathlib import Path
from vlm_jax.data.datasets.easy_vqa import EasyVQA
from vlm_jax.data.sources import open_split
examples = open_split(EasyVQA(directory=Path(sys.argv[1])), "test")
print(len(examples), sum(len(example.texts) for example in examples))
assert not {"tensorflow", "torch", "transformers"} & set(sys.modules)
"""


def opening(folder, **options):
    command = [sys.executable, "-W", "error", "-c", OPEN, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_counts_are_the_published_ones(splits):
    questions = {split: sum(len(example.texts) for example in examples) for split, examples in splits.items()}
    assert questions["train"] + questions["validation"] == 38_575 and questions["test"] == 9_673
    assert len(splits["train"]) + len(splits["validation"]) == 4000 and len(splits["test"]) == 1000
    assert 350 < len(splits["validation"]) < 450
    assert len(AnswerVocabulary.build(splits["train"])) == 13


def test_small_files_are_parsed_once(splits):
    examples = splits["train"]
    assert examples[3] is examples[3 - len(examples)] and examples[3] is not examples[4]


def test_no_image_and_no_question_is_in_two_splits(splits):
    examples = [example for split in splits.values() for example in split]
    assert len({example.image_id for example in examples}) == 5000
    assert len({example.image for example in examples}) == 5000
    assert len({question.text_id for example in examples for question in example.texts}) == 48_248


def test_records_agree_with_the_package(splits):
    import easy_vqa

    for part, names in (("train", ("train", "validation")), ("test", ("test",))):
        texts, answers, images = getattr(easy_vqa, f"get_{part}_questions")()
        paths = getattr(easy_vqa, f"get_{part}_image_paths")()
        seen = set()
        for example in (example for name in names for example in splits[name]):
            number = int(example.image_id.removeprefix(f"{part}/"))
            assert example.image == Path(paths[number]).read_bytes()
            for question in example.texts:
                row = int(question.text_id.removeprefix(f"{part}/"))
                seen.add(row)
                assert (question.text, question.answers, number) == (texts[row], (answers[row],), images[row])
                assert question.kind == ("yes_no" if answers[row] in ("yes", "no") else "open")
        assert len(seen) == len(texts)


def test_the_validation_split_is_pinned(splits):
    from vlm_jax.data.splits import tenth

    assert len(splits["validation"]) == 421  # another number means that old results were selected on other data
    assert [i for i in range(60) if tenth(f"train/{i}") == 0] == [1, 2, 13, 15, 21, 31, 36, 57, 59]
    assert all(tenth(example.image_id) == 0 for example in splits["validation"])


def test_random_access_and_limit(data, splits):
    limited = open_split(with_changes(data, {"limit": 7}), "test")
    assert len(limited) == 7 and limited[6] == splits["test"][6] == limited[-1]
    assert list(limited) == splits["test"][:7]
    for index in (7, -8):
        with pytest.raises(IndexError):
            limited[index]
    assert len(open_split(with_changes(data, {"limit": 10**6}), "test")) == 1000
    scored = with_changes(data, {"limit": 9, "evaluation_limit": 4})
    assert [len(open_split(scored, split)) for split in ("train", "validation", "test")] == [9, 4, 4]
    assert decode_image(limited[0].image, max_pixels=64 * 64).shape == (64, 64, 3)


def test_an_unknown_split_is_named(data):
    with pytest.raises(InputError, match=r"no split 'tests'; choose one of: .*test"):
        open_split(data, "tests")


def test_a_missing_package_names_its_install_command(tmp_path, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install easy-vqa"):
        open_split(EasyVQA(directory=tmp_path), "train")


def test_an_unwritable_directory_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"data\.directory"):
        open_split(EasyVQA(directory=tmp_path / "file" / "below"), "train")


def test_two_processes_prepare_once_with_few_words_and_no_tensorflow(tmp_path):
    runs = [opening(tmp_path) for _ in range(2)]
    outputs = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert [out for out, _ in outputs] == ["1000 9673\n"] * 2
    errors = sorted((error for _, error in outputs), key=len)
    assert errors[0] == ""
    assert [line.split()[0] for line in errors[1].splitlines()] == ["preparing", "prepared"]


def test_a_killed_preparation_does_no_harm(tmp_path):
    killed = 0
    for pause in (0.05, 0.5, 1.0):
        run = opening(tmp_path)
        while not list(tmp_path.glob("easy_vqa/incomplete.*")):
            assert run.poll() is None, run.communicate()
            time.sleep(0.01)
        time.sleep(pause)
        os.kill(run.pid, signal.SIGKILL)
        run.communicate()
        killed += not (tmp_path / "easy_vqa" / "1.0.0").exists()
        if killed == 2:
            break
    assert killed >= 1, "every kill came too late to test anything"
    run = opening(tmp_path)
    assert (run.communicate()[0], run.returncode) == ("1000 9673\n", 0)
    assert not list(tmp_path.glob("easy_vqa/incomplete.*")), "what the killed process left was not removed"
