"""The outputs of a config's image encoder, written to a directory for runs that read features."""

import sys
import tempfile
from functools import partial
from pathlib import Path

import jax

from vlm_jax.config.run import Config
from vlm_jax.data.caches import shown_size
from vlm_jax.data.row_store import SPECIFICATION, RowStore
from vlm_jax.data.settings import SPLITS
from vlm_jax.data.sources import open_split
from vlm_jax.errors import InputError
from vlm_jax.failures import os_failure
from vlm_jax.placement import on_every
from vlm_jax.run_folder import RunFolder
from vlm_jax.settings.changes import with_changes
from vlm_jax.training.devices import evaluation_devices
from vlm_jax.training.initialization import start
from vlm_jax.training.setup import fresh_params, make_encoder, make_task
from vlm_jax.training.stored_features import (
    feature_specification,
    has_image_encoder,
    wanted_views,
    write_features,
)


def extract_features(config: Config, output: Path) -> RowStore:
    """Write the features of every image of a config's data set; those that are there already are not computed again.

    The image encoder has the weights that the config's `init` gives. `InputError` where it has none, or where the
    directory holds something else.
    """
    config = with_changes(config, {"data.stored_views": 0})
    where = on_every(evaluation_devices(config))
    splits = {split: open_split(config.data, split) for split in SPLITS}
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place))
        task = make_task(config, make_encoder(config, folder, splits["train"]), folder)
    key = jax.random.key(config.seed)
    params = fresh_params(task, key, where)
    if not has_image_encoder(task, params):
        raise InputError(f"{config.name} has no image encoder with parameters, whose outputs could be written")
    params, weights = start(config, task.start(params, key), task.answers, task.encode.tokenizer)
    if weights is None or "image" in weights["fresh"]:
        print("note: the image encoder has fresh weights; init.image gives it pretrained ones", file=sys.stderr)
    if output.is_dir() and any(output.iterdir()) and not (output / SPECIFICATION).exists():
        raise InputError(f"--output {output} is not empty and holds no features; give another directory")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise os_failure(error, f"cannot write features to --output {output}") from None
    params = jax.device_put(params, where)
    store, views = RowStore(output, feature_specification(task, params)), wanted_views(config, splits).views
    missing = [key for key in views if key not in store]
    size = shown_size(len(missing) * store.row_bytes)
    print(f"computing features of {len(missing):,} of {len(views):,} images, {size}, in {output}", file=sys.stderr)
    write = partial(write_features, task=task, params=params, views=views)
    with store.writing() as append:
        write(append, [key for key in views if key not in store])
    return store
