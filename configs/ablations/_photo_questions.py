"""The preset photos for a table of questions."""

from pathlib import Path

from vlm_jax.config.run import Config
from vlm_jax.config.tasks import TASKS
from vlm_jax.settings.presets import load_preset


def get_config() -> Config:
    return load_preset(Path(__file__).parent.parent / "photos.py", TASKS, lambda: "questions")
