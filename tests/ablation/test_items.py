"""The predictions of a run, item by item, with a score of its own."""

import json

import pytest

from vlm_jax.ablation.records import read_items


@pytest.mark.parametrize(("hypothesis", "score"), [("a cat", 1.0), ("a pet", 1.0), ("a dog", 0.0), ("", 0.0)])
@pytest.mark.parametrize("references", [("a cat", "a pet"), ("a pet", "a cat"), ("A Cat.", "A pet!")])
def test_a_caption_is_right_that_equals_any_reference(tmp_path, hypothesis, score, references):
    line = {"image_id": "1.png", "captions": [{"caption": hypothesis}], "references": references}
    (tmp_path / "predictions.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    (item,) = read_items(tmp_path, "captioning").values()
    assert item.score == score
