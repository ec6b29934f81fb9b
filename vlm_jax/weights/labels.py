"""What the classes of a published head mean: `id2label` of its config.json."""

from collections.abc import Mapping

from vlm_jax.errors import InputError
from vlm_jax.types import Json


def labels_of(config: Mapping[str, Json], classes: int) -> tuple[str, ...]:
    """The names of the classes in order; none where config.json has none, or only transformers' LABEL_0, LABEL_1, ...

    Raises `InputError` where it names or counts another number of classes than the head has.
    """
    named = config.get("id2label")
    if not classes:
        return ()
    if (count := config.get("num_labels")) not in (None, classes):
        raise InputError(f"config.json says num_labels = {count!r}, and the head has {classes} classes")
    if named is None:
        return ()
    if not isinstance(named, Mapping) or not all(isinstance(label, str) for label in named.values()):
        raise InputError("config.json says id2label, but not a label for each class; expected {'0': 'cat', ...}")
    if set(map(str, named)) != {str(index) for index in range(classes)}:
        names = f"config.json names {len(named)} classes in id2label, and the head has {classes}"
        raise InputError(f"{names}; name each of 0 to {classes - 1}, or take id2label out of the file")
    labels = tuple(named[key] for key in sorted(named, key=int))
    return () if all(label == f"LABEL_{index}" for index, label in enumerate(labels)) else labels
