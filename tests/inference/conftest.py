"""Small runs of every task, and a home directory whose cache holds prepared data."""

import pytest

from tests.tasks.conftest import captioning_run, directory, generation_run, tokenizer_run  # noqa: F401  fixtures


@pytest.fixture
def home(data_directory, tmp_path, monkeypatch):
    """A home directory in which easy-VQA is prepared."""
    (tmp_path / "home" / ".cache").mkdir(parents=True)
    (tmp_path / "home" / ".cache" / "vlm_jax").symlink_to(data_directory)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"
