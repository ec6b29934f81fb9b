"""Strictness for every test: no rank promotion, highest precision, a persistent compilation cache.

Programs are compiled without optimizing machine code and by XLA's older fusion emitter, which takes more than half off
a suite that mostly compiles; what they compute is held to the same bounds. `XLA_FLAGS=` (empty) compiles them as a
user's are: the slow tests run so.
"""

import gc
import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if os.environ["JAX_PLATFORMS"] == "cpu":
    flags = ("backend_optimization_level=0", "cpu_use_fusion_emitters=false", "cpu_parallel_codegen_split_count=1")
    os.environ.setdefault("XLA_FLAGS", " ".join(f"--xla_{flag}" for flag in flags))
# Two threads that wait for each other's small matrices use two processors for the work of one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Workers share the cores, and programs for one device are those of every test and of the processes that it starts.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "1")
# Variables, so that processes which tests start share the programs, and what Python compiles, too.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).parent.parent / ".pytest_cache" / "jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# A process may read an entry that another is writing, and then compiles for itself.
os.environ.setdefault("PYTHONWARNINGS", "ignore:Error reading persistent compilation cache entry")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import hypothesis
import jax
import pytest

# The same examples in every run; `--hypothesis-profile default` searches for others.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")

sys.dont_write_bytecode = False
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")


def pytest_collection_finish(session):
    """What is imported stays: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


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
