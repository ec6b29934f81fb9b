"""The command that says what a config's model is made of: totals, depth, what it assumes, what it refuses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.inspect_model import main
from vlm_jax.command_line import run_command
from vlm_jax.config.tasks import TASKS
from vlm_jax.errors import InputError
from vlm_jax.models.inspection import inspect
from vlm_jax.settings.groups import flat, tree_of
from vlm_jax.settings.presets import load_preset

ROOT = Path(__file__).parent.parent
TINY = str(ROOT / "configs" / "tiny.py")
PER_TOKEN = ("--model.fusion.head.kind", "per_token", "--model.fusion.head.classes")
TOTALS = ("parameters", "FLOPs of an image", "FLOPs of a question")


def shown(capsys, *arguments):
    """What is printed: the totals, the table's rows by path, and the whole text."""
    assert main([TINY, *arguments]) == 0
    text = capsys.readouterr().out
    *_, table, totals = text.split("\n\n")
    rows = {row.split()[0]: row.split()[1:] for row in table.splitlines()[1:]}
    numbers = {line[:20].strip(): int(line[20:].replace(",", "")) for line in totals.splitlines()}
    assert tuple(numbers) == TOTALS
    return numbers, rows, text


def expected(classes):
    config = load_preset(Path(TINY), TASKS)
    text_length = config.model.text.max_length
    return inspect(config.architecture, image_size=(16, 16), questions=4, classes=classes, text_length=text_length)


def test_it_prints_what_the_library_counts(capsys):
    totals, rows, text = shown(capsys, "--depth", "9")
    counted = expected(1000)
    assert totals["parameters"] == counted[0].parameters > 10_000
    assert totals["FLOPs of an image"] == counted[0].flops
    assert totals["FLOPs of a question"] == round(counted[0].flops / 4)
    assert rows.keys() == {row.path for row in counted[1:]}
    for row in counted[1:]:
        assert [int(figure.replace(",", "")) for figure in rows[row.path][:2]] == [row.parameters, row.flops]
    assert "1,000 answers (assumed" in text and "16 x 16 pixels, questions: 4 of 16 tokens" in text
    assert " ".join(rows["trunk/layer_0/output"][2:]) == "[1, 1, 16, 32] [1, 4, 16, 32]"


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_depth_rolls_up_what_is_deeper(capsys, depth):
    totals, rows, _ = shown(capsys, "--depth", str(depth))
    assert max(path.count("/") for path in rows) == depth - 1
    for column, total in enumerate(("parameters", "FLOPs of an image")):
        figures = [int(row[column].replace(",", "")) for path, row in rows.items() if "/" not in path]
        assert sum(figures) == totals[total]


def test_two_levels_are_shown_unless_told_otherwise(capsys):
    assert shown(capsys)[1] == shown(capsys, "--depth", "2")[1]
    assert main([TINY, "--depth", "0"]) == 0
    assert "trunk" not in capsys.readouterr().out


def test_classes_come_from_the_config_or_the_option(capsys):
    totals, _, text = shown(capsys, "--classes", "13")
    assert "13 answers\n" in text
    assert totals["parameters"] == expected(13)[0].parameters
    _, _, text = shown(capsys, *PER_TOKEN, "13")
    assert "assumed" not in text and "13 answers" in text


def test_settings_are_options(capsys):
    _, rows, text = shown(capsys, "--model.fusion.kind", "late", "--image.size", "32", "48")
    assert "late, dual_encoder, product" in text and "32 x 48 pixels" in text
    assert {"trunk/image_layer_0", "trunk/text_layer_1", "head/image_pooler"} <= rows.keys()


def test_an_image_tokenizer_is_inspected_too(capsys):
    preset = str(ROOT / "configs" / "shape_scenes_tokenizer.py")
    assert main([preset, "--depth", "1"]) == 0
    text = capsys.readouterr().out
    assert "an image tokenizer, 1,000 image tokens (fsq)" in text and "64 x 64 pixels, 8 x 8 ima" in text
    rows = {line.split()[0]: line for line in text.splitlines() if line.startswith(("encoder", "decoder"))}
    assert rows.keys() == {"encoder", "decoder"} and "[1, 8, 8, 4]" in rows["encoder"]
    with pytest.raises(InputError, match="answers nothing; leave --classes out"):
        main([preset, "--classes", "3"])


def test_modules_that_training_never_calls_are_marked(capsys):
    """The last layer's image side, where the answer is read at the first word."""
    options = ["--model.fusion.kind", "co_attention", "--depth", "3"]
    _, rows, _ = shown(capsys, *options)
    assert rows["trunk/layer_1/image"][1:] == ["0", "not", "called"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tinny"], r"no config 'tinny'; did you mean 'tiny'"),
        ([], r"no config; start from one of"),
        ([TINY, "--depth", "-1"], r"depth is '-1'"),
        ([TINY, "--classes", "0"], r"classes is '0'"),
        ([TINY, "--classes", "3", *PER_TOKEN, "4"], r"--classes is 3, and the config has .*classes 4"),
        ([TINY, "--model.hidden-size", "33"], r"hidden_size 33 is not a multiple"),
        (
            [TINY, "--image.size", "160", "160"],
            r"1600 grid positions, model.layout.max_image_positions is 256; raise the latter",
        ),
    ],
)
def test_wrong_input_is_one_line(arguments, message, capsys):
    with pytest.raises(InputError, match=message):
        main(arguments)
    with pytest.raises(SystemExit) as stop:
        run_command(main, arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_wrong_option_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="depth"):
        main([TINY, "--dept", "1"])


def command(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env=os.environ | {"COLUMNS": "200", "PYTHONWARNINGS": "error"},
    )  # fmt: skip


def test_help_answers_at_once_and_lists_every_setting():
    before = os.times()
    answer = command("-m", "experiments.inspect_model", TINY, "--help")
    after = os.times()
    assert answer.returncode == 0, answer.stderr
    for option in ["depth", "classes", *(flat(tree_of(load_preset(Path(TINY), TASKS))).keys() - {"task"})]:
        assert f"--{option.replace('_', '-')}" in answer.stdout
    # The processor's seconds: those on the clock depend on what else runs.
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from experiments.inspect_model import main\n"
        f"try:\n    main([{TINY!r}, '--help'])\nexcept SystemExit:\n    pass\n"
        "print('HEAVY', sorted({'jax', 'numpy', 'flax', 'tensorflow_datasets', 'grain'} & set(sys.modules)))"
    )
    assert command("-c", code).stdout.splitlines()[-1] == "HEAVY []"


def test_a_mistake_in_a_config_exits_with_2(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from vlm_jax.config.vqa import *\ndef get_config(): return VQA(model=Model(hiden_size=3))\n")
    answer = command("-m", "experiments.inspect_model", str(path))
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1
    assert answer.stderr.startswith(f"error: {path}, line 2") and "did you mean hidden_size" in answer.stderr
