"""`--data` and `--images` are the settings that they are short for, and choose tables where no other kind was named."""

from pathlib import Path

import pytest

from experiments.train import parse_train
from vlm_jax.data.user_files.table import TableCaptions, TableQuestions
from vlm_jax.data.user_files.vqa_v2 import VQAv2
from vlm_jax.errors import InputError

CONFIGS = Path(__file__).parents[2] / "configs"


def parsed(start, *options):
    preset = CONFIGS / f"{start}.py"
    return parse_train([str(preset) if preset.exists() else start, *options])[0].data


@pytest.mark.parametrize(
    ("start", "kind"),
    [("quickstart", TableQuestions), ("vqa_table", TableQuestions), ("caption_table", TableCaptions),
     ("captioning", TableCaptions), ("emoji_captioning", TableCaptions)],
)  # fmt: skip
def test_short_names_choose_tables(start, kind):
    data = parsed(start, "--data", "a.csv", "b.csv", "--images", "photos")
    assert type(data) is kind
    assert (data.train, data.images) == ((Path("a.csv"), Path("b.csv")), Path("photos"))
    assert parsed(start, "--data", "a.csv").images is None


def test_a_kind_that_is_named_stays():
    data = parsed("quickstart", "--data", "q.json", "a.json", "--images", "x", "--data.kind", "vqa_v2")
    assert type(data) is VQAv2 and data.train == (Path("q.json"), Path("a.json"))


def test_both_names_of_a_setting_are_refused():
    with pytest.raises(InputError, match=r"--data .* --data\.train"):
        parsed("vqa_table", "--data", "a.csv", "--data.train", "b.csv")
    with pytest.raises(InputError, match=r"data\.train is not given"):
        parsed("quickstart", "--images", "photos")
