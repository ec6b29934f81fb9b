"""Lines end at \\n or \\r\\n alone, wherever a file of lines is read or written."""

import json
import subprocess

import pytest

from experiments import classify
from vlm_jax.ablation.records import read_items, read_run
from vlm_jax.ablation.study_report import _remembered
from vlm_jax.config.vqa import VQA
from vlm_jax.data.user_files.json_files import lines
from vlm_jax.data.wordpiece import read_tokenizer
from vlm_jax.run_folder import RunFolder
from vlm_jax.settings.changes import to_json
from vlm_jax.text_lines import first_line, read_lines, split_lines
from vlm_jax.training.logging import MetricsLog

# Where `str.splitlines` ends a line, and Python's text mode at the last one.
NO_ENDS = ("\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\r")


@pytest.mark.parametrize("no_end", NO_ENDS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_file_has_the_lines_that_were_written(tmp_path, no_end, end):
    written = ["first", "", f"a{no_end}b", f"{no_end}c", "last"]
    for after in ("", end):
        (tmp_path / "file").write_bytes((end.join(written) + after).encode())
        assert read_lines(tmp_path / "file") == split_lines(end.join(written) + after) == written


def test_an_empty_file_has_no_line(tmp_path):
    assert split_lines("") == [] and split_lines("\n") == [""]


def test_the_first_line_of_an_error():
    assert first_line(ValueError("a\u2028b\r\nc")) == "a\u2028b"
    assert first_line(ValueError("\n\na\nb")) == "a" and first_line(ValueError(" ")) == "ValueError"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_vocabulary_has_the_tokens_of_its_lines(tmp_path, end):
    """bert-base-chinese has U+2028 among its tokens."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *NO_ENDS[:-1], "a\u2028", "cat"]
    (tmp_path / "vocab.txt").write_bytes("".join(token + end for token in tokens).encode())
    read = read_tokenizer(tmp_path)
    assert read.get_vocab_size() == len(tokens)
    assert [read.token_to_id(token) for token in tokens] == list(range(len(tokens)))


def test_predictions_may_hold_any_text(tmp_path):
    text = "".join(NO_ENDS)
    line = {"image_id": "1", "question_id": text, "question": text, "kind": "", "answers": [text]}
    line |= {"prediction": text, "score": 1.0}
    RunFolder(tmp_path).write_text("predictions.jsonl", json.dumps(line, ensure_ascii=False) + "\n")
    items = read_items(tmp_path, "vqa")
    assert list(items) == [text] and items[text].text == items[text].hypothesis == text


def test_a_log_may_hold_any_name(tmp_path):
    """On resume and in a report; a tool that wrote it may leave such characters as they are."""
    names = [f"accuracy/{no_end}" for no_end in NO_ENDS[5:8]]
    rows = [{"step": step, "validation/accuracy": 0.5, **dict.fromkeys(names, 1.0)} for step in (1, 2, 3)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "config.json").write_text(to_json(VQA()), encoding="utf-8")
    assert read_run(RunFolder(tmp_path)).curve == {1: 0.5, 2: 0.5, 3: 0.5}
    with MetricsLog(tmp_path, start_step=2):
        assert list(map(json.loads, read_lines(tmp_path / "metrics.jsonl"))) == rows[:2]


def test_classes_may_have_any_name(tmp_path):
    names = ["cat", *(f"a{no_end}b" for no_end in NO_ENDS), "dog"]
    (tmp_path / "names.txt").write_bytes("\r\n".join(names).encode())
    assert classify._names(tmp_path / "names.txt") == names


def test_a_command_is_remembered_on_one_line_and_runs_as_it_did(tmp_path):
    """An argument may hold a line break, too."""
    import shlex

    argument = "it's\n" + "|".join(NO_ENDS) + "\nend"
    command = shlex.join(["printf", "%s", argument])
    for _ in range(2):
        (line,) = _remembered(tmp_path / "commands.txt", command)
    assert read_lines(tmp_path / "commands.txt") == [line] and "\n" not in line
    output = subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout
    assert output.decode() == argument


def test_json_lines_are_read_line_by_line(tmp_path):
    rows = [{"question": f"a{no_end}b"} for no_end in NO_ENDS]
    for end in ("\n", "\r\n"):
        (tmp_path / "file").write_bytes(end.join(json.dumps(row, ensure_ascii=False) for row in rows).encode())
        assert [json.loads(line) for _, line in lines(tmp_path / "file")] == rows


def test_merges_are_read_line_by_line(tmp_path):
    """A merge is two tokens and a space; byte-level tokens hold no line end, those of others may."""
    words = {"<pad>": 0, "<unk>": 1, "<s>": 2, "</s>": 3, "<mask>": 4, "a": 5, "\u2028": 6, "a\u2028": 7}
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    (tmp_path / "merges.txt").write_bytes("#version: 0.2\na \u2028\n".encode())
    assert read_tokenizer(tmp_path).get_vocab() == words
