"""Ask a trained model: `python -m experiments.predict runs/quickstart --image cat.png --question "what colour is it?"`.

Every question is asked about every image. A captioning run takes images alone: `--image photos/ --decoding.kind beam`.
An image generation run takes prompts: `--prompt "a small red circle left of a blue square" --output sheet.png`.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import MinLen

from vlm_jax.command_line import run_command
from vlm_jax.config.rules import Seed
from vlm_jax.config.use import Candidates
from vlm_jax.errors import InputError
from vlm_jax.settings.changes import with_changes
from vlm_jax.settings.command_line import first_path, parse_for_run
from vlm_jax.settings.effects import Effect
from vlm_jax.settings.groups import POSITIONAL, Group

if TYPE_CHECKING:
    from vlm_jax.config.captioning import Captioning
    from vlm_jax.config.image_generation import ImageGeneration
    from vlm_jax.config.vqa import VQA
    from vlm_jax.run_folder import RunFolder

AT_ONCE = 64  # images, candidates too
SHOWN = 200  # characters of a text or of words that a note shows
READ_CHARACTERS = 10_000  # characters whose words a note can be about; all of them would take all memory


class Predict(Group):
    """What every task takes."""

    run: Annotated[Path, POSITIONAL]
    """Directory of a run."""
    checkpoint: str = "best"
    """`best` by the validation score, `latest`, or an optimizer step that was kept."""
    output: Path | None = None
    """A PNG that shows the images with the predictions."""
    json_: bool = False
    """One line of JSON for each prediction instead of text."""


class Answer(Predict):
    """Answer every question about every image, with the five most probable answers and their probabilities."""

    image: Annotated[tuple[Path, ...], MinLen(1)]
    """Image files, or folders of them."""
    question: Annotated[tuple[str, ...], MinLen(1)]
    """Questions."""


class Caption(Predict):
    """Write captions of images, with their log-probabilities. The run's settings `--decoding.*` can be changed."""

    image: Annotated[tuple[Path, ...], MinLen(1)]
    """Image files, or folders of them."""
    choices: Annotated[tuple[str, ...], MinLen(1)] | None = None
    """The only captions to choose from."""
    seed: Seed | None = None
    """Other sampled captions than those of the run's seed; the same seed gives the same captions."""


class Generate(Predict, Candidates):
    """Generate images of prompts. The run's settings `--generation.*` of decoding can be changed."""

    prompt: Annotated[tuple[str, ...], MinLen(1)]
    """Prompts."""
    seed: Seed | None = None
    """Other images than those of the run's seed; the same seed gives the same images."""
    output: Path
    """The PNG that shows all generated images."""


PROG = "python -m experiments.predict"
DESCRIPTION = "Answer questions about images, write captions of images, or generate images, as the run's task is."
OPTIONS: dict[str, type[Predict]] = {"vqa": Answer, "captioning": Caption, "image_generation": Generate}


def main(argv: list[str]) -> int:
    from vlm_jax.run_folder import open_run

    folder = open_run(first_path(argv, prog=PROG, description=DESCRIPTION))
    config = folder.config()
    if config.task not in OPTIONS:
        raise InputError(f"{folder.path} is a run of the task {config.task!r}, which has nothing to predict")
    options, config = parse_for_run(argv, OPTIONS[config.task], config, (Effect.DECODING,), prog=PROG)
    if options.output is not None:
        _check_output(options.output)
    if (seed := getattr(options, "seed", None)) is not None:
        config = with_changes(config, {"seed": seed})
    match options:
        case Answer():
            _answer(folder, config, options)
        case Caption():
            _generate_captions(folder, config, options)
        case Generate():
            _generate_images(folder, config, options)
    return 0


def _check_output(output: Path) -> None:
    writable = output.parent.is_dir() and os.access(output.parent, os.W_OK) and not output.is_dir()
    if output.suffix.lower() != ".png" or not writable:
        raise InputError(f"--output {output} must be a PNG file in a folder that exists and can be written to")


def _answer(folder: "RunFolder", config: "VQA", arguments: Answer) -> None:
    from vlm_jax.data.input_images import input_images
    from vlm_jax.types import Example, Text

    questions = tuple(Text(text_id=text, text=text) for text in arguments.question)
    examples = [
        Example(name, data, questions)
        for name, data in input_images(arguments.image, max_pixels=config.data.max_pixels)
    ]

    from vlm_jax.training.setup import load_trained, make_encoder

    encode = make_encoder(config, folder)
    notes = {text: _notes(text, encode, config) for text in dict.fromkeys(arguments.question)}
    task, params, _ = load_trained(config, folder, encode, which=arguments.checkpoint)
    predictions = task.predict(params, examples, batch_images=_rows(len(examples), len(questions), encode))
    for prediction in predictions:
        if arguments.json_:
            line = _line(prediction) | {"notes": notes[prediction.question.text]}
            print(json.dumps(line, ensure_ascii=False))
        else:
            print(f"{prediction.image_id}: {prediction.question.text}")
            print("\n".join(f"  {probability:6.1%}  {answer}" for answer, probability in prediction.top))
    _write_contact_sheet(config, predictions, examples, arguments.output)


def _generate_captions(folder: "RunFolder", config: "Captioning", arguments: Caption) -> None:
    from vlm_jax.data.input_images import input_images
    from vlm_jax.types import Example

    if arguments.seed is not None and config.decoding.kind != "sample":
        raise InputError("--seed is for sampled captions; give --decoding.kind sample, or leave it out")
    examples = [Example(name, data) for name, data in input_images(arguments.image, max_pixels=config.data.max_pixels)]

    from vlm_jax.training.setup import load_trained, make_encoder

    task, params, _ = load_trained(config, folder, make_encoder(config, folder), which=arguments.checkpoint)
    # A power of two, so that few batch sizes are ever compiled.
    size = min(AT_ONCE, 1 << (len(examples) - 1).bit_length())
    captions = task.predict(params, examples, choices=arguments.choices or (), batch_images=size)
    for caption in captions:
        if arguments.json_:
            hypotheses = [hypothesis.as_dict() for hypothesis in caption.hypotheses]
            print(json.dumps({"image": caption.image_id, "captions": hypotheses, "notes": []}, ensure_ascii=False))
        else:
            print(caption.image_id)
            print(
                "\n".join(
                    f"  {hypothesis.log_probability:8.2f}  {hypothesis.text}" for hypothesis in caption.hypotheses
                )
            )
    _write_contact_sheet(config, captions, examples, arguments.output)


def _write_contact_sheet(config, predictions, examples, output):
    """The images with what was said of them, where that is wanted."""
    if output is None:
        return
    from vlm_jax.data.images import decode_image
    from vlm_jax.figures import plot_contact_sheet, thumbnail

    most = config.data.max_pixels
    small = {
        example.image_id: thumbnail(decode_image(example.image, name=example.image_id, max_pixels=most))
        for example in examples
    }
    plot_contact_sheet(
        [prediction.card(small[prediction.image_id]) for prediction in predictions], output, title=config.name
    )


def _generate_images(folder: "RunFolder", config: "ImageGeneration", arguments: Generate) -> None:
    import numpy as np

    from vlm_jax.config.use import ImageScoring
    from vlm_jax.figures import Card, plot_contact_sheet

    candidates = {name: getattr(arguments, name) for name in Candidates.model_fields}
    scoring = ImageScoring(**candidates)
    many = len(arguments.prompt) * scoring.num_images * scoring.num_candidates
    most = max(AT_ONCE, config.training.evaluation_batch_images)
    config = with_changes(config, {"training.evaluation_batch_images": most})

    from vlm_jax.training.setup import load_trained, make_encoder

    encode = make_encoder(config, folder)
    notes = {prompt: _notes(prompt, encode, config) for prompt in dict.fromkeys(arguments.prompt)}
    task, params, _ = load_trained(config, folder, encode, which=arguments.checkpoint, scoring=scoring)
    size = max(min(AT_ONCE, 1 << (many - 1).bit_length()), 1 if scoring.reranker else scoring.num_candidates)
    images = task.generate_images(params, arguments.prompt, batch=size)
    rows = [
        (prompt, image)
        for prompt, prompt_images in zip(arguments.prompt, images, strict=True)
        for image in prompt_images
    ]
    items = [Card(np.asarray(image), "", prompt, None, (), None) for prompt, image in rows]
    plot_contact_sheet(items, arguments.output, title=config.name)
    if arguments.json_:
        for place, (prompt, _) in enumerate(rows, 1):
            line = {"contact_sheet": str(arguments.output), "place": place, "prompt": prompt, "notes": notes[prompt]}
            print(json.dumps(line, ensure_ascii=False))
    else:
        print(f"{len(items)} images in {arguments.output}")


def _rows(images, questions, encode):
    """Enough for all of them in one batch, within reason; an image takes a row for every K questions."""
    return min(AT_ONCE, images * -(-questions // encode.texts_per_image))


def _notes(text, encode, config):
    """Which part of a text does not reach the model, or was not among what it learned from; printed to stderr too."""
    words, notes = encode.tokenizer.words(text.strip()[:READ_CHARACTERS]), []
    if not words:
        notes.append(f"no word is in {text[:SHOWN]!r}: the model is asked nothing")
    unknown = [word for word, ids in words if encode.tokenizer.unknown_id in ids]
    if unknown:
        notes.append(f"the model cannot read {_listed(unknown)}")
    # A vocabulary built from the training questions holds their words whole.
    new = [word for word, ids in words if len(ids) > 1] if config.model.text.tokenizer is None else []
    if new:
        notes.append(f"not a word of the training texts: {_listed(new)}")
    if encode.tokenizer.truncated([text], encode.max_length):
        notes.append(f"only the first {encode.max_length - 2} tokens are read of {text[:SHOWN]!r}")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return notes


def _listed(words):
    """Each word once, as many as fit a line."""
    text = ", ".join(map(repr, dict.fromkeys(words)))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _line(prediction):
    answers = [{"answer": answer, "probability": probability} for answer, probability in prediction.top]
    return {"image": prediction.image_id, "question": prediction.question.text, "answers": answers}


if __name__ == "__main__":
    run_command(main)
