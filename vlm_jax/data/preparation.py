"""Preparing a data set once: safe against being killed and against a second process."""

import contextlib
import fcntl
import io
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_jax.errors import InputError
from vlm_jax.interrupts import on_interrupt

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


def prepare(open_builder: Callable[[Path], "tfds.core.DatasetBuilder"], directory: Path) -> "tfds.core.DatasetBuilder":
    """The builder with its records on disk under `directory`, written by the first caller only.

    Records are written to a temporary folder that is renamed when complete, under a lock that the system
    releases when its holder dies; what a killed preparation left behind is removed.
    """
    with _quiet():
        builder = open_builder(directory)
        if not builder.is_prepared():
            with _lock(directory, builder.name):
                builder = open_builder(directory)
                if not builder.is_prepared():
                    _write(builder)
    return builder


def _write(builder: "tfds.core.DatasetBuilder") -> None:
    import tensorflow_datasets as tfds

    final = Path(builder.data_dir)

    def remove_leftovers() -> None:
        for leftover in final.parent.glob(f"incomplete.*_{final.name}"):
            shutil.rmtree(leftover, ignore_errors=True)

    remove_leftovers()
    print(f"preparing {builder.name} in {final} (once)", file=sys.stderr, flush=True)
    quiet = contextlib.redirect_stdout(io.StringIO())  # TFDS announces a download that there is none of
    with quiet, on_interrupt(undo=remove_leftovers):
        builder.download_and_prepare(
            file_format="array_record",
            download_config=tfds.download.DownloadConfig(try_download_gcs=False),
        )
    counts = ", ".join(f"{name} {split.num_examples:,}" for name, split in builder.info.splits.items())
    print(f"prepared {builder.name}: {counts} pictures", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _lock(directory: Path, name: str) -> Iterator[None]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / f"{name}.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise InputError(f"cannot write the data set {name} to data.directory {directory}: {error}") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without TFDS's log lines and progress bars."""
    import tensorflow_datasets as tfds

    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
