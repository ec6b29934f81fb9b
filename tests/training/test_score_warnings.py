"""What a run says of scores that mean little: before training, during it, at its end and in its result."""

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import train
from vlm_jax.training import loop

TINY = str(Path(__file__).parent.parent.parent / "configs" / "tiny.py")
SMALL = [
    *(
        "--model.hidden-size",
        "8",
        "--model.num-attention-heads",
        "1",
        "--model.num-layers",
        "1",
        "--model.intermediate-size",
        "8",
    ),
    *("--model.image.stem-width", "4", "--model.image.widths", "4", "--model.image.blocks", "0"),
    *("--model.text.max-length", "6", "--data.threads", "1"),
    *("--training.steps", "4", "--training.evaluate-every", "1", "--training.batch-images", "4"),
    *("--training.log-every", "1", "--training.evaluation-batch-images", "4", "--optimizer.warmup-steps", "1"),
]


@pytest.fixture
def options(tmp_path):
    """Twelve images with a question each, answered once; of the test split there is one image."""
    (tmp_path / "images").mkdir()
    rows = []
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
        rows.append({"image": f"{number}.png", "question": "how many?", "answers": ["two" if number % 3 else "one"]})
    for name, split_rows in (("train", rows[:8]), ("validation", rows[8:11]), ("test", rows[11:])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, split_rows)), encoding="utf-8")
    files = {name: f"{name}.jsonl" for name in ("train", "validation", "test")} | {"images": "images"}
    file_options = [part for name, file in files.items() for part in (f"--data.{name}", str(tmp_path / file))]
    return [TINY, *SMALL, "--data.kind", "table", "--data.directory", str(tmp_path / "kept"), *file_options]


def test_a_score_that_cannot_move_is_told_from_beginning_to_end(options, tmp_path, monkeypatch, capsys):
    """Also over a stop: two validations, and two more."""
    folder, command = tmp_path / "run", [*options, "--data.accuracy", "vqa", "--workdir", str(tmp_path / "run")]
    answers = iter([False, True, *[False] * 9])
    with monkeypatch.context() as patch:
        patch.setattr(loop, "stop_requests", lambda: nullcontext(lambda: next(answers)))
        train.main(command)
    assert not (folder / "result.json").exists()
    output = capsys.readouterr().out
    assert "training questions have 1 answer" in output and "can reach 0.0000" in output
    header = output[: output.index("compiling the train step")]
    assert "table, 8 training and 3 validation images" in header and str(folder) in header
    assert "set data.accuracy soft" in output and "could not choose" not in output
    assert train.main(command) == 0
    output = capsys.readouterr().out
    warnings = json.loads((folder / "result.json").read_text())["warnings"]
    (same,) = [text for text in warnings if "could not choose" in text]
    assert "0.0000 at 4 validations" in same and "steps 1 to 4" in same and f"warning: {same}" in output
    (left_out,) = [text for text in warnings if "shuffled_images is left out" in text]
    assert f"warning: {left_out}" in output
    assert any("majority" in text for text in warnings)
