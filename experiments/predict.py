"""Ask a trained model: `python -m experiments.predict runs/quickstart --image cat.png --question "what colour is it?"`.

Every question is asked about every image. A model that writes captions is asked nothing: `--image photos/ --beam 5`.
One that draws takes what to draw: `--prompt "a small red circle left of a blue square" --output sheet.png`.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Annotated

from vlm_jax.command_line import run_command
from vlm_jax.errors import InputError
from vlm_jax.settings.command_line import parse_options
from vlm_jax.settings.groups import POSITIONAL, Group

# Settings of `generation`.
GENERATION_OPTIONS = (
    "samples",
    "num_candidates",
    "reranker",
    "temperature",
    "num_decoding_steps",
    "guidance",
    "num_refinement_rounds",
)
AT_ONCE = 64  # images, candidates too
SHOWN = 200  # characters of a text or of words that a note shows
READ_CHARACTERS = 10_000  # characters whose words a note can be about; all of them would take all memory
MASKED_ONLY = ("num_decoding_steps",)
# The options of each task, beside those that all have.
OPTIONS = {
    "vqa": ("image", "question", "output"),
    "captioning": ("image", "beam", "samples", "temperature", "top_p", "prefix", "choices", "seed", "output"),
    "image_generation": ("prompt", *GENERATION_OPTIONS, "seed", "output"),
}
DOES = {"vqa": "answers questions", "captioning": "writes captions", "image_generation": "draws images"}


class Predict(Group):
    """Answer every question about every image, with the likeliest five answers and their probabilities; say what
    is in it, with the log-probability of what was said; or draw what is asked for."""

    run: Annotated[Path, POSITIONAL]
    """Folder of a run."""
    image: tuple[Path, ...] | None = None
    """Image files, or folders of them."""
    question: tuple[str, ...] | None = None
    """Questions, for a model that answers them."""
    prompt: tuple[str, ...] | None = None
    """What to draw, for a model that draws."""
    beam: int | None = None
    """Captions: search with so many beams, and show the best."""
    samples: int | None = None
    """Captions: so many of an image, drawn at random; with --beam, so many of the best. Images of a prompt."""
    temperature: float | None = None
    """Captions and images: above 1 the draws vary more, below 1 less. --num-refinement-rounds have one of their own,
    0.5."""
    top_p: float | None = None
    """Captions: draw among the likeliest words that together have this probability."""
    prefix: str | None = None
    """Captions: words with which each begins."""
    choices: tuple[str, ...] | None = None
    """Captions: the only texts to choose from."""
    steps: int | None = None
    """Images: steps in which one is drawn."""
    num_refinement_rounds: int | None = None
    """Images: rounds in which each of their codes is then drawn anew."""
    guidance: float | None = None
    """Images: how far logits are pushed from those without the prompt towards those with it; 0 is none."""
    candidates: int | None = None
    """Images: each is the best of so many that are drawn."""
    judge: str | None = None
    """Images: folder of a captioning run that chooses among the candidates."""
    seed: int | None = None
    """Other captions or images than those of the run's seed; with the same one they are the same again."""
    output: Path | None = None
    """A PNG that shows the images with what was said of them, or all that were drawn."""
    checkpoint: str = "best"
    """`best` by the validation score, `latest`, or an optimizer step that was kept."""
    json_: bool = False
    """One line of JSON an answer or image instead of text."""


def main(argv: list[str]) -> int:
    arguments = parse_options(argv, Predict, prog="python -m experiments.predict")
    from vlm_jax.run_folder import open_run

    folder = open_run(arguments.run)
    config = folder.config()
    if config.task not in OPTIONS:
        raise InputError(f"{folder.path} is a run of the task {config.task!r}, which has nothing to predict")
    for name in sorted({name for names in OPTIONS.values() for name in names} - set(OPTIONS[config.task])):
        if getattr(arguments, name) is not None:
            raise InputError(f"{folder.path} {DOES[config.task]}; leave --{name.replace('_', '-')} out")
    wanted = {"image", "question", "prompt"} | ({"output"} if config.task == "image_generation" else set())
    for name in OPTIONS[config.task]:
        if name in wanted and getattr(arguments, name) is None:
            raise InputError(f"{folder.path} {DOES[config.task]}; give --{name}")
    for name in ("image", "question", "prompt", "choices"):
        if getattr(arguments, name) == ():
            raise InputError(f"--{name} is empty; give at least one value")
    output = arguments.output
    if output is not None:
        writable = output.parent.is_dir() and os.access(output.parent, os.W_OK) and not output.is_dir()
        if output.suffix.lower() != ".png" or not writable:
            raise InputError(f"--output {output} must be a PNG file in a folder that exists and can be written to")
    if arguments.seed is not None:
        config = dataclasses.replace(config, seed=arguments.seed)
    {"vqa": _answer, "captioning": _generate_captions, "image_generation": _generate_images}[config.task](
        folder, config, arguments
    )
    return 0


def _answer(folder, config, arguments):
    from vlm_jax.data.input_images import input_images
    from vlm_jax.types import Example, Question

    questions = tuple(Question(question_id=text, text=text, answers=(), kind="") for text in arguments.question)
    examples = [
        Example(name, data, questions)
        for name, data in input_images(arguments.image, max_pixels=config.data.image.max_pixels)
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


def _generate_captions(folder, config, arguments):
    from vlm_jax.config_checks import check
    from vlm_jax.data.input_images import input_images
    from vlm_jax.types import Example

    decoding = check(dataclasses.replace(config, decoding=_decoding(config.decoding, arguments))).decoding
    if arguments.seed is not None and decoding.method != "sample":
        raise InputError(
            "--seed is for captions that are drawn at random; give --samples or --temperature, or leave it out"
        )
    examples = [
        Example(name, data) for name, data in input_images(arguments.image, max_pixels=config.data.image.max_pixels)
    ]

    from vlm_jax.training.setup import load_trained, make_encoder

    task, params, _ = load_trained(config, folder, make_encoder(config, folder), which=arguments.checkpoint)
    # A power of two, so that few batch sizes are ever compiled.
    size = min(AT_ONCE, 1 << (len(examples) - 1).bit_length())
    options = {"decoding": decoding, "choices": arguments.choices or (), "batch_images": size}
    captions = task.predict(params, examples, **options)
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

    most = config.data.image.max_pixels
    small = {
        example.image_id: thumbnail(decode_image(example.image, name=example.image_id, max_pixels=most))
        for example in examples
    }
    plot_contact_sheet(
        [prediction.card(small[prediction.image_id]) for prediction in predictions], output, title=config.name
    )


def _generate_images(folder, config, arguments):
    import numpy as np

    from vlm_jax.config_checks import check
    from vlm_jax.figures import Card, plot_contact_sheet

    for name in MASKED_ONLY if config.model.attention_pattern == "autoregressive" else ():
        if getattr(arguments, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise InputError(
                f"{folder.path} draws one code after the other (attention_pattern autoregressive); leave {option} out"
            )
    options = {name: getattr(arguments, name) for name in GENERATION_OPTIONS}
    changes = {
        "num_images" if name == "samples" else name: value for name, value in options.items() if value is not None
    }
    if arguments.num_candidates == 1 and arguments.reranker is None:
        changes["reranker"] = None  # nothing is left to choose among
    settings = dataclasses.replace(config.generation, **changes)
    many = len(arguments.prompt) * settings.num_images * settings.num_candidates
    most = max(AT_ONCE, config.training.evaluation_batch_images)
    at_once = dataclasses.replace(config.training, evaluation_batch_images=most)
    config = check(dataclasses.replace(config, generation=settings, training=at_once))

    from vlm_jax.training.setup import load_trained, make_encoder

    encode = make_encoder(config, folder)
    notes = {prompt: _notes(prompt, encode, config) for prompt in dict.fromkeys(arguments.prompt)}
    task, params, _ = load_trained(config, folder, encode, which=arguments.checkpoint)
    size = max(min(AT_ONCE, 1 << (many - 1).bit_length()), 1 if settings.reranker else settings.num_candidates)
    images = task.generate_images(params, arguments.prompt, settings, batch=size)
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


def _decoding(settings, arguments):
    """The run's way of decoding, as far as the command line does not say another."""
    changes, sampled = {}, arguments.temperature is not None or arguments.top_p is not None
    if arguments.beam is not None and sampled:
        raise InputError("--temperature and --top-p are for --samples without --beam; leave out either")
    if arguments.beam is not None or arguments.samples is not None or sampled:
        method = "sample" if arguments.beam is None else "beam"
        count = settings.num_return_sequences if settings.method == method else 1
        changes = {"method": method, "num_return_sequences": count if arguments.samples is None else arguments.samples}
        changes |= {} if arguments.beam is None else {"num_beams": arguments.beam}
    for name in ("temperature", "top_p", "prefix"):
        if getattr(arguments, name) is not None:
            changes[name] = getattr(arguments, name)
    return dataclasses.replace(settings, **changes)


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
