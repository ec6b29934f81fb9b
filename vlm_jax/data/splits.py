"""Which split an image belongs to where a data set does not say: by hash, whatever the order of its file.

From `EXACT_BELOW` images on, the hash of an image alone decides: an image keeps its split when others are added. Of few
images such a rule gives tenths that are far off or empty. Then the images are sorted by hash and counted off.
"""

from collections.abc import Iterable, Sequence

from vlm_jax.data.settings import Record
from vlm_jax.files import text_sha256

EXACT_BELOW = 1_000  # images; at so many, nine of ten hash tenths have 84 to 116 images
HELD_OUT = ("validation", "test")  # the first tenth, the second one


def tenth(image_id: str) -> int:
    """0 to 9, SHA-256 of the id modulo ten. Of training images, those of 0 are the validation split."""
    return int(text_sha256(image_id), 16) % 10


def with_validation(train: Iterable[Record]) -> dict[str, list[Record]]:
    """The training records without a tenth of the images, and that tenth as validation."""
    splits: dict[str, list[Record]] = {"train": [], "validation": []}
    for record in train:
        splits["validation" if tenth(record[0]) == 0 else "train"].append(record)
    return splits


def divide(image_ids: Sequence[str], groups: Sequence[Sequence[str]] = ()) -> list[str]:
    """The split of each image: a tenth `validation`, another one `test`, the rest `train`.

    `groups` are names for each image, none for most; images that share a name, or are joined by an image with both of
    their names, are in one split. Below `EXACT_BELOW` images a tenth is rounded, at least one image, and larger only
    where the smallest group is. With fewer than three images, or groups, `train` is the first to be empty.
    """
    units = _units(image_ids, groups or [()] * len(image_ids))
    if len(image_ids) < EXACT_BELOW:
        taken = _counted_off(units, len(image_ids))
    else:
        taken = {unit: tenth(unit) for unit in units}
    splits = ["train"] * len(image_ids)
    for unit, number in taken.items():
        if number < len(HELD_OUT):
            for place in units[unit]:
                splits[place] = HELD_OUT[number]
    return splits


def _counted_off(units: dict[str, list[int]], images: int) -> dict[str, int]:
    """The number in `HELD_OUT` of each unit that is held out: as many as fit into a tenth, in order of their hashes."""
    size, taken = max(1, (images + 5) // 10), {}
    order = sorted(units, key=text_sha256)
    for number in range(len(HELD_OUT)):
        free, left = size, [unit for unit in order if unit not in taken]
        for unit in left:
            if len(units[unit]) <= free:
                taken[unit] = number
                free -= len(units[unit])
        if free == size and left:
            taken[min(left, key=lambda unit: len(units[unit]))] = number
    return taken


def _units(image_ids: Sequence[str], groups: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    """Places of the images that stay together, by what is hashed: the image's id, or the first name of its groups."""
    above: dict[str, str] = {}

    def first(name: str) -> str:
        """The alphabetically first name of all groups that are joined with this one."""
        while (upper := above.get(name, name)) != name:
            above[name] = above.get(upper, upper)
            name = upper
        return name

    for names in groups:
        for name in names[1:]:
            low, high = sorted((first(names[0]), first(name)))
            above[high] = low
    units: dict[str, list[int]] = {}
    for place, (image_id, names) in enumerate(zip(image_ids, groups, strict=True)):
        # A path holds no NUL: no image has the key of a group.
        units.setdefault(f"\0{first(names[0])}" if names else image_id, []).append(place)
    return units
