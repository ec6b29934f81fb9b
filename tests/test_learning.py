"""It learns, and it looks: the quickstart reaches its score, and drops to the blind prior without the image."""

import json
from pathlib import Path

import pytest

from experiments import train

QUICKSTART = str(Path(__file__).parent.parent / "configs" / "quickstart.py")
BLIND = 0.68  # answering by the question alone reaches 66.9 % of easy-VQA's test split


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_quickstart_learns_and_uses_images(data_directory, tmp_path):
    assert train.main([QUICKSTART, "--workdir", str(tmp_path / "run"), "--data.directory", str(data_directory)]) == 0
    metrics = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))["metrics"]
    assert metrics["accuracy"] >= 0.95
    assert metrics["accuracy/open"] >= 0.95
    assert metrics["baseline/answer_prior"] == pytest.approx(0.669, abs=0.001)
    assert metrics["baseline/question_only"] <= BLIND
    assert metrics["baseline/shuffled_images"] <= BLIND
