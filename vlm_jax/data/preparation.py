"""Preparing a data set once: safe against being killed and against a second process."""

import contextlib
import fcntl
import io
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_jax.errors import InputError
from vlm_jax.failures import os_failure
from vlm_jax.integrity import matches_digests, write_digests
from vlm_jax.interrupts import on_interrupt

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

_looked_into: set[Path] = set()


def prepare(open_builder: Callable[[Path], "tfds.core.DatasetBuilder"], directory: Path) -> "tfds.core.DatasetBuilder":
    """The builder with its records on disk under `directory`, written by the first caller only.

    Records are written to a temporary folder that is renamed when complete, under a lock that the system
    releases when its holder dies; what a killed preparation left behind is removed. The SHA-256 of its files stand
    beside it: a damaged data set is named and prepared again.
    """
    with _quiet():
        builder = _intact(open_builder, directory)
        if builder is None:
            final = _place(open_builder, directory)
            with _lock(directory, final.relative_to(directory).parts[0]):
                builder = _intact(open_builder, directory)
                if builder is None:
                    if final.exists():
                        print(f"the prepared data set in {final} is damaged: preparing it again", file=sys.stderr)
                        shutil.rmtree(final)
                    builder = open_builder(directory)
                    _write(builder)
                    _digests(final).unlink(missing_ok=True)
                    write_digests(final, _digests(final))
    return builder


def _intact(
    open_builder: Callable[[Path], "tfds.core.DatasetBuilder"], directory: Path
) -> "tfds.core.DatasetBuilder | None":
    """The builder where its records are there and as they were written; looked into once in a process."""
    try:
        builder = open_builder(directory)
    except InputError:
        raise
    except Exception:  # its description is damaged, and what is raised depends on where
        if _place(open_builder, directory).exists():
            return None
        raise
    final = Path(builder.data_dir)
    if not builder.is_prepared():
        return None
    if final not in _looked_into:
        if not matches_digests(final, _digests(final)):
            return None
        _looked_into.add(final)
    return builder


def _place(open_builder: Callable[[Path], "tfds.core.DatasetBuilder"], directory: Path) -> Path:
    """The folder of a data set, which a builder whose files are damaged does not tell."""
    with tempfile.TemporaryDirectory() as empty:
        return directory / Path(open_builder(Path(empty)).data_dir).relative_to(empty)


def _digests(final: Path) -> Path:
    return final.with_name(f"{final.name}.sha256.json")


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
    print(f"prepared {builder.name}: {counts} images", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _lock(directory: Path, name: str) -> Iterator[None]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / f"{name}.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise os_failure(error, f"cannot write the data set {name} to data.directory {directory}") from None


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
