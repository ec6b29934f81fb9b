"""Strictness for every test: no rank promotion, highest precision, a persistent compilation cache.

Programs are compiled without optimizing machine code and by XLA's older fusion emitter, which takes more than half off
a suite that mostly compiles; what they compute is held to the same bounds. `XLA_FLAGS=` (empty) compiles them as a
user's are: the slow tests run so.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if os.environ["JAX_PLATFORMS"] == "cpu":
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false")

from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parent.parent / ".pytest_cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


SCENES = {"train": 24, "validation": 6, "test": 8, "held_out": 4, "unseen_prompts": 4}


@pytest.fixture(scope="session", autouse=True)
def few_scenes():
    """Rendered scenes are few in every test; how many of each split there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlm_jax.data.datasets.shape_scenes.NUM_IMAGES", SCENES)
        yield SCENES


@pytest.fixture(scope="session")
def data_directory(tmp_path_factory):
    """easy-VQA, prepared once for all tests."""
    from vlm_jax.data.datasets.easy_vqa import EasyVQA
    from vlm_jax.data.sources import open_split

    directory = tmp_path_factory.mktemp("prepared")
    open_split(EasyVQA(directory=directory), "train")
    return directory


@pytest.fixture(scope="session")
def trained(data_directory, tmp_path_factory):
    """The folder of a finished `tiny` run."""
    from experiments.train import main

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    tiny = str(Path(__file__).parent.parent / "configs" / "tiny.py")
    assert main([tiny, "--workdir", str(folder), "--data.directory", str(data_directory)]) == 0
    return folder
