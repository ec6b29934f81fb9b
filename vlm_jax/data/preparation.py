"""Preparing a data set once: safe against being killed and against a second process."""

import contextlib
import fcntl
import io
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_jax.data.settings import Prepared
from vlm_jax.failures import os_failure
from vlm_jax.integrity import matches_digests, write_digests
from vlm_jax.interrupts import on_interrupt

if TYPE_CHECKING:
    from vlm_jax.data.datasets.builder import RecordBuilder

_looked_into: set[Path] = set()


def prepare(data: Prepared) -> "RecordBuilder":
    """The builder of a data set with its records on disk under `data.directory`, written by the first caller only.

    Records are written to a temporary folder that is renamed when complete, under a lock that the system
    releases when its holder dies; what a killed preparation left behind is removed. The SHA-256 of its files stand
    beside it: a damaged data set is named and prepared again.
    """
    from vlm_jax.data.datasets.builder import RecordBuilder

    with _quiet():
        directory = data.directory.expanduser()
        final = directory / data.kind / data.variant / str(RecordBuilder.VERSION)
        if _intact(final):
            return RecordBuilder(data, directory)
        with _lock(directory, data.kind):
            if not _intact(final):
                if final.exists():
                    print(f"the prepared data set in {final} is damaged: preparing it again", file=sys.stderr)
                    shutil.rmtree(final)
                _write(RecordBuilder(data, directory))
                _digests(final).unlink(missing_ok=True)
                write_digests(final, _digests(final))
        return RecordBuilder(data, directory)


def _intact(final: Path) -> bool:
    """Whether the records are there and as they were written; looked into once in a process."""
    if not final.exists():
        return False
    if final not in _looked_into and matches_digests(final, _digests(final)):
        _looked_into.add(final)
    return final in _looked_into


def _digests(final: Path) -> Path:
    return final.with_name(f"{final.name}.sha256.json")


def _write(builder: "RecordBuilder") -> None:
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
            file_format="array_record", download_config=tfds.download.DownloadConfig(try_download_gcs=False)
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
