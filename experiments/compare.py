"""Do two trained checkpoints differ on the test split? `python -m experiments.compare runs/a runs/b`.

Item by item, with the picture as the unit, since questions about one picture are not independent. That says something
about these two checkpoints. Whether a way to train is better needs several seeds of each: experiments.ablate.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vlm_jax.command_line import parse, run_command
from vlm_jax.errors import InputError

if TYPE_CHECKING:
    from vlm_jax.ablation.paired import Paired

UNITS = {
    "vqa": "accuracy",
    "captioning": "captions that are right (by rule, or word for word)",
    "image_generation": "objects right, or log-likelihood",
    "image_tokenizer": "PSNR in dB",
}


def main(argv: list[str]) -> int:
    import tyro

    @dataclass(frozen=True)
    class Compare:
        """Compare two finished runs on the items of the test split that both predicted."""

        run_a: Annotated[Path, tyro.conf.Positional]
        """Folder of a finished run."""
        run_b: Annotated[Path, tyro.conf.Positional]
        """Folder of another one, on the same data."""

    arguments = parse(Compare, argv, prog="python -m experiments.compare")

    from vlm_jax.ablation.items import read_items
    from vlm_jax.ablation.paired import paired_difference
    from vlm_jax.run_folder import open_run

    configs = [open_run(path).config() for path in (arguments.run_a, arguments.run_b)]
    if configs[0].task != configs[1].task:
        raise InputError(f"the runs have different tasks, {configs[0].task} and {configs[1].task}")
    a, b = (read_items(path, configs[0].task) for path in (arguments.run_a, arguments.run_b))
    shared = [key for key in a if key in b and (a[key].picture, a[key].asked) == (b[key].picture, b[key].asked)]
    if not shared:
        raise InputError("the runs predicted no item in common; compare runs on the same data")
    left_out = len(a) + len(b) - 2 * len(shared)
    if left_out:
        print(f"note: {left_out} items that only one of them predicted are left out")
    pictures = [a[key].picture for key in shared]
    print(f"a: {arguments.run_a}\nb: {arguments.run_b}\n{UNITS[configs[0].task]}")
    kinds = sorted({a[key].kind for key in shared} - {""})
    for kind in ["", *(kinds if len(kinds) > 1 else [])]:
        of_kind = [place for place, key in enumerate(shared) if not kind or a[key].kind == kind]
        scores = ([items[shared[place]].score for place in of_kind] for items in (a, b))
        print(_line(kind or "all", paired_difference(*scores, [pictures[place] for place in of_kind])))
    print(
        "The interval is about these two checkpoints on pictures like these, not about the ways they were trained: "
        "another seed of either may turn it round. For that, train several seeds of each (experiments.ablate)."
    )
    return 0


def _line(name: str, found: "Paired") -> str:
    counts = (
        f"{found.questions:,} items on {found.pictures:,} pictures, b better on {found.wins:,}, a on {found.losses:,}"
    )
    text = f"{name}: a {found.a:.4f}, b {found.b:.4f}, b - a {found.difference:+.4f}"
    if found.low is None:
        return f"{text} (one picture: no interval); {counts}"
    differ = "these checkpoints differ" if found.p is not None and found.p <= 0.05 else "not distinguishable"
    return f"{text} [{found.low:+.4f}, {found.high:+.4f}], p {_p(found.p)}: {differ}; {counts}"


def _p(p: Any) -> str:
    return "missing" if p is None else "< 0.0001" if p < 0.0001 else f"{p:.4f}"


if __name__ == "__main__":
    run_command(main)
