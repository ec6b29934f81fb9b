"""A run as it is now, changed on purpose, taken for the run that it was: its manifests are written anew."""

from vlm_jax.errors import InputError
from vlm_jax.integrity import MANIFEST, change, read_manifest
from vlm_jax.run_folder import CONFIG, RESULTS, SETUP, RunFolder, read_config
from vlm_jax.training import checkpoint_manifest


def differing(folder: RunFolder) -> dict[str, str]:
    """What happened to the files of a run since its manifest was written, in words, by their names.

    Without a manifest that can be read, every file is listed.
    """
    file = folder.path / MANIFEST
    try:
        listed = read_manifest(file)["files"]
    except InputError:
        present = (name for name in (*SETUP, *RESULTS) if (folder.path / name).exists())
        return dict.fromkeys(present, f"is in no {MANIFEST}" if not file.exists() else f"is in a damaged {MANIFEST}")
    changes = {name: change(folder.path / name, entry) for name, entry in listed.items()}
    # Results that were not listed when the run ended are half of what it would have written.
    new = (name for name in SETUP if name not in listed and (folder.path / name).exists())
    changes |= dict.fromkeys(new, f"is not in {MANIFEST}")
    return {name: why for name, why in changes.items() if why is not None}


def accept(folder: RunFolder) -> list[str]:
    """Take all that `differing` names as it is; a line for each checkpoint that becomes one of the run.

    Raises `InputError`, and changes nothing, where the config cannot be used. The arrays of a checkpoint are never
    taken as they are: a damaged one stays out of use.
    """
    read_config(folder.path / CONFIG)
    file, names = folder.path / MANIFEST, differing(folder)
    try:
        read_manifest(file)
    except InputError:
        file.unlink(missing_ok=True)
    folder.seal(*names)
    return checkpoint_manifest.accept(folder.checkpoints, folder.made_with())
