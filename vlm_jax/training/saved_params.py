"""The parameters of a checkpoint alone, read without Orbax, whose import takes longer than reading them."""

import json
from pathlib import Path

import numpy as np

from vlm_jax.errors import InputError
from vlm_jax.trees import unflatten
from vlm_jax.types import Parameters


def read_params(checkpoint: Path, *, ema: bool) -> Parameters:
    """The parameters in the folder of a checkpoint, or their moving average, as NumPy arrays.

    Orbax (0.11 to 0.12) writes each array as zarr into one OCDBT store, under its path with dots, and lists the paths
    in `_METADATA`. The caller has compared the files with their manifest.
    """
    import tensorstore

    item = "ema" if ema else "params"
    folder = (checkpoint / item).resolve()  # tensorstore takes no `..`
    try:
        listed = json.loads((folder / "_METADATA").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"checkpoint {checkpoint.name} in {checkpoint.parent} holds no {item}") from None
    driver = "zarr3" if listed["use_zarr3"] else "zarr"
    store = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder}/"}}
    context = tensorstore.Context()  # one for all arrays: the store is opened once
    opened = {}
    for entry in listed["tree_metadata"].values():
        names = [key["key"] for key in entry["key_metadata"]]
        spec = {"driver": driver, "kvstore": store | {"path": f"{'.'.join(names)}/"}}
        opened["/".join(names)] = tensorstore.open(spec, open=True, read=True, context=context)
    reading = {path: array.result().read() for path, array in opened.items()}
    return unflatten({path: np.asarray(array.result()) for path, array in reading.items()})
