"""Going on with a run: its data and sources must be those it began with; what else changed is said and recorded."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vlm_jax.config.run import Config
from vlm_jax.data.digests import SplitDigest, digest_split, from_row, what_differs
from vlm_jax.data.sources import open_split
from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.errors import InputError
from vlm_jax.identity import Change, changes
from vlm_jax.invocation import command_name
from vlm_jax.run_folder import DATA, IMAGE_TOKENIZER, TEXT_TOKENIZER, RunFolder
from vlm_jax.settings.effects import Effect
from vlm_jax.tasks.trained_tokenizer import save_tokenizer, tokenizer_run
from vlm_jax.training.pretrained import open_pretrained
from vlm_jax.training.setup import load_best
from vlm_jax.types import Example
from vlm_jax.weights.source import first_way

# What a change means, by its effect, where there is more to say than that it is one.
MEANS = {
    Effect.ROUNDING: "parameters differ by rounding from here on",
    Effect.USE: "it changes scores and which checkpoint is best, no parameter",
    Effect.DECODING: "it changes scores and which checkpoint is best, no parameter",
}


def check_data(config: Config, folder: RunFolder, splits: Mapping[str, Sequence[Example]]) -> dict[str, SplitDigest]:
    """The digests of splits as they are now; `InputError` names what is not as the run began with."""
    digests = {split: digest_split(examples, config.data, split) for split, examples in splits.items()}
    for split, what in changed_data(folder, digests).items():
        raise InputError(
            f"{folder.path} began with another {split} split: {what}; give the data that it began with or another "
            f"--workdir, or take a deliberate change with {command_name('accept')} {folder.path} --data --yes"
        )
    return digests


def changed_data(folder: RunFolder, digests: Mapping[str, SplitDigest]) -> dict[str, str]:
    """What of each split is not as the run began with, in words."""
    known = folder.data()
    differences = {split: what_differs(from_row(known[split]), now) for split, now in digests.items() if split in known}
    return {split: what for split, what in differences.items() if what is not None}


def current_data(folder: RunFolder) -> dict[str, SplitDigest]:
    """The digests of the splits that a run has used, as they are now in the places that its config names."""
    data = folder.config().data
    splits = {"train", "validation"} | set(folder.data())
    return {split: digest_split(open_split(data, split), data, split) for split in sorted(splits)}


def record_data(folder: RunFolder, digests: Mapping[str, SplitDigest]) -> None:
    """Write digests of splits to `data.json`, beside those of other splits."""
    known = folder.data()
    new = known | {split: digest._asdict() for split, digest in digests.items()}
    if new != known:
        folder.write_json(DATA, new)


def adopt(config: Config, folder: RunFolder, step: int, *, devices: tuple[str | None, str]) -> list[str]:
    """Record what changed since the run was last started, `devices` among it, and say it, a line a change."""
    before, now = devices
    other = [Change("devices", before, now, Effect.ROUNDING)] if before not in (None, now) else []
    changed = folder.adopt(config, step, other)
    ends = (f"; {MEANS[change.effect]}" if change.effect in MEANS else "" for change in changed)
    return [f"changed after optimizer step {step}: {change}{end}" for change, end in zip(changed, ends, strict=True)]


def check_sources(config: Config, folder: RunFolder) -> None:
    """`InputError` where a source of the run is said to be elsewhere, and is another one there.

    What a run took from its sources is in its folder: they need not be anywhere.
    """
    for change in changes(folder.config(), config):
        if change.effect is not Effect.SOURCE or not _is_other_source(change, config, folder):
            continue
        now = f"{change.setting} {change.after} is not what {folder.path} began with ({change.before})"
        raise InputError(f"{now}; leave it as it was, or give another --workdir")


def _is_other_source(change: Change, config: Config, folder: RunFolder) -> bool:
    if change.setting == "model.text.tokenizer":
        return _other_tokenizer(first_way(change.after), folder.file(TEXT_TOKENIZER))
    if change.setting == "image_tokenizer.run":
        return _other_image_tokenizer(config, folder.file(IMAGE_TOKENIZER))
    sources = (folder.weights() or {"sources": []})["sources"]
    digests = [source["sha256"] for source in sources if source["setting"] == change.setting]
    return bool(digests) and open_pretrained(change.after).origin.sha256 != digests[0]


def _other_tokenizer(source: str, saved_file: Path) -> bool:
    if not saved_file.exists():  # it was never read
        return False
    with tempfile.TemporaryDirectory() as place:
        Tokenizer.load(source).save(place)
        return (Path(place) / saved_file.name).read_bytes() != saved_file.read_bytes()


def _other_image_tokenizer(config: Config, saved_file: Path) -> bool:
    if not saved_file.exists():
        return False
    from safetensors.numpy import load_file

    run = tokenizer_run(config)
    with tempfile.TemporaryDirectory() as place:
        save_tokenizer(Path(place) / saved_file.name, run.config(), load_best(run)[1])
        now, before = load_file(Path(place) / saved_file.name), load_file(saved_file)
    return now.keys() != before.keys() or any(not np.array_equal(now[name], before[name]) for name in before)
