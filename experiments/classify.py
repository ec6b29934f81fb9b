"""Name what is in images: `python -m experiments.classify SOURCE --image cat.jpg --classes names.json`.

SOURCE is a CNN with its classifier, as `port` takes it. The five likeliest classes of each image are printed;
`--output contact_sheet.png` shows them beside the images.
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

TOP, BATCH = 5, 16


class Classify(Group):
    """Name what is in images, with the five likeliest classes of a converted CNN."""

    examples: ClassVar[tuple[str, ...]] = (
        "imports/resnet50 --image cat.jpg",
        "microsoft/resnet-50 --image photos/ --output sheet.png",
    )
    source: Annotated[str, POSITIONAL]
    """The CNN: a folder, a .safetensors file, owner/name@revision, package:NAME/folder, or an import's folder."""
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

    import jax
    import numpy as np

    from vlm_jax.config.encoders import PublishedCNN
    from vlm_jax.data.images import decode_image, normalise, resize_image
    from vlm_jax.data.input_images import input_images
    from vlm_jax.data.settings import MAX_PIXELS
    from vlm_jax.figures import Card, plot_contact_sheet
    from vlm_jax.weights.import_folder import read

    converted = read(options.source)
    architecture = converted.architecture
    if not isinstance(architecture.model, PublishedCNN) or not architecture.classes:
        raise InputError(f"{options.source} is no CNN with a classifier; {command_name('port')} list names some")
    names = names if names is not None else converted.labels or None
    if names is not None and len(names) != architecture.classes:
        raise InputError(f"{options.classes} has {len(names)} names, the classifier {architecture.classes} classes")
    settings, module = architecture.input, converted.module
    run = jax.jit(lambda params, x: jax.lax.top_k(jax.nn.softmax(module.apply({"params": params}, x)[1]), TOP))
    inputs, items = list(input_images(options.image, max_pixels=MAX_PIXELS)), []
    for begin in range(0, len(inputs), BATCH):
        paths = [name for name, _ in inputs[begin : begin + BATCH]]
        images = [
            decode_image(image, name=name, max_pixels=MAX_PIXELS) for name, image in inputs[begin : begin + BATCH]
        ]
        batch = np.zeros((BATCH, *settings.size, 3), np.float32)
        for row, image in enumerate(images):
            batch[row] = normalise(resize_image(image, settings), settings)
        for path, image, probabilities, classes in zip(
            paths, images, *jax.device_get(run(converted.params, batch)), strict=False
        ):
            labels = [names[c] if names else f"class {c}" for c in classes]
            guesses = [f"{label} {p:.0%}" for label, p in zip(labels, probabilities, strict=True)]
            print(f"{path}: {', '.join(guesses)}")
            items.append(Card(image, ", ".join(guesses[1:]), labels[0], float(probabilities[0]), (), None))
    if options.output:
        title = f"{architecture.model.name}, converted from {Path(options.source).name}: likeliest class and runners-up"
        plot_contact_sheet(items, options.output, title=title)
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
