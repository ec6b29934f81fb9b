"""Name what is in images: `python -m experiments.classify SOURCE --image cat.jpg --classes names.json`.

SOURCE is an image encoder with its classifier, as `port` takes it. The five likeliest classes of each image are
printed; `--output contact_sheet.png` shows them beside the images.
"""

import json
from pathlib import Path
from typing import Annotated, ClassVar

from vlm_jax.command_line import run_command
from vlm_jax.errors import InputError
from vlm_jax.invocation import command_name
from vlm_jax.settings.command_line import parse_options
from vlm_jax.settings.groups import POSITIONAL, Group
from vlm_jax.text_lines import split_lines

TOP = 5


class Classify(Group):
    """Name what is in images, with the five likeliest classes of a converted image encoder."""

    examples: ClassVar[tuple[str, ...]] = (
        "imports/resnet50 --image cat.jpg",
        "microsoft/resnet-50 --image photos/ --output sheet.png",
    )
    source: Annotated[str, POSITIONAL]
    """The encoder: a folder, a .safetensors file, owner/name@revision, package:NAME/folder, or an import's folder."""
    image: tuple[Path, ...]
    """Image files, or folders of them."""
    classes: Path | None = None
    """Names of the classes in order: a JSON list, or a line each. Without it those of config.json, or numbers."""
    output: Path | None = None
    """A PNG that shows the images with their classes."""


def main(argv: list[str]) -> int:
    options = parse_options(argv, Classify, prog=command_name("classify"))
    if not options.image:
        raise InputError("--image is empty; give at least one image file")
    names = _names(options.classes) if options.classes else None

    from vlm_jax.data.settings import MAX_PIXELS
    from vlm_jax.figures import Card, plot_contact_sheet
    from vlm_jax.inference.images import named_images, thumbnails
    from vlm_jax.inference.published import ClassifierModel
    from vlm_jax.weights.import_folder import read

    converted = read(options.source).image_side
    architecture = converted.architecture
    if not architecture.is_image_encoder or not architecture.classes:
        names = f"{command_name('port')} list names some"
        raise InputError(f"{options.source} is no image encoder with a classifier; {names}")
    if names is not None and len(names) != architecture.classes:
        raise InputError(f"{options.classes} has {len(names)} names, the classifier {architecture.classes} classes")
    model = ClassifierModel(converted, tuple(names or ()))
    paths, images = named_images(options.image, max_pixels=MAX_PIXELS)
    results = model.classify(images, min(TOP, architecture.classes))
    guesses = [[f"{label} {probability:.0%}" for label, probability in result.top] for result in results]
    for path, row in zip(paths, guesses, strict=True):
        print(f"{path}: {', '.join(row)}")
    if options.output:
        small = thumbnails(images, model.processor, options.output)
        cards = [
            Card(image, ", ".join(row[1:]), result.label, result.probability, (), None)
            for image, row, result in zip(small, guesses, results, strict=True)
        ]
        title = f"{architecture.model.name}, converted from {Path(options.source).name}: likeliest class and runners-up"
        plot_contact_sheet(cards, options.output, title=title)
    return 0


def _names(path):
    try:
        text = path.read_bytes().decode()
        names = json.loads(text) if text.lstrip().startswith("[") else split_lines(text)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} holds no names of classes: {error}") from None
    return [str(name) for name in names]


if __name__ == "__main__":
    run_command(main)
