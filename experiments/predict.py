"""Ask a trained model: `python -m experiments.predict runs/quickstart --image cat.png --question "what colour is it?"`.

Every question is asked about every picture. A model that writes captions is asked nothing: `--image photos/ --beam 5`.
"""

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from vlm_jax.command_line import parse, run_command
from vlm_jax.errors import InputError

CAPTION_OPTIONS = ("beam", "samples", "temperature", "top_p", "prefix", "choices")


def main(argv: list[str]) -> int:
    import tyro

    @dataclass(frozen=True)
    class Predict:
        """Answer every question about every picture, with the likeliest five answers and their probabilities; or say
        what is in it, with the log-probability of what was said."""

        run: Annotated[Path, tyro.conf.Positional]
        """Folder of a run."""
        image: tuple[Path, ...]
        """Picture files, or folders of them."""
        question: tuple[str, ...] = ()
        """Questions, for a model that answers them."""
        beam: int | None = None
        """Captions: search with so many beams, and show the best."""
        samples: int | None = None
        """Captions: so many of a picture, drawn at random; with --beam, so many of the best."""
        temperature: float | None = None
        """Captions: above 1 the draws vary more, below 1 less."""
        top_p: float | None = None
        """Captions: draw among the likeliest words that together have this probability."""
        prefix: str | None = None
        """Captions: words with which each begins."""
        choices: tuple[str, ...] | None = None
        """Captions: the only texts to choose from."""
        checkpoint: str = "best"
        """`best` by the validation score, `latest`, or an optimizer step that was kept."""
        json: bool = False
        """One line of JSON an answer or picture instead of text."""

    arguments = parse(Predict, argv, prog="python -m experiments.predict")
    if not arguments.image:
        raise InputError("--image is empty; give at least one value")

    from vlm_jax.run_folder import open_run

    folder = open_run(arguments.run)
    config = folder.config()
    captions = config.task == "captioning"
    given = [name for name in CAPTION_OPTIONS if getattr(arguments, name) is not None]
    if arguments.choices == ():
        raise InputError("--choices is empty; give at least one text, or leave it out")
    if captions and arguments.question:
        raise InputError(f"{folder.path} writes captions and answers no question; leave --question out")
    if not captions and given:
        raise InputError(f"{folder.path} answers questions; --{given[0].replace('_', '-')} is for captions")
    if not captions and not arguments.question:
        raise InputError("--question is empty; give at least one value")
    (_say_captions if captions else _answer)(folder, config, arguments)
    return 0


def _answer(folder, config, arguments):
    from vlm_jax.data.given_pictures import given_pictures
    from vlm_jax.types import Example, Question

    questions = tuple(Question(question_id=text, text=text, answers=(), kind="") for text in arguments.question)
    examples = [Example(name, data, questions) for name, data in given_pictures(arguments.image)]

    from vlm_jax.training.setup import load_trained, make_encoder

    encode = make_encoder(config, folder)
    for text in arguments.question:
        _warn_of_unread(text, encode, built=config.model.text.tokenizer is None)
    task, params, _ = load_trained(config, folder, encode, which=arguments.checkpoint)
    for prediction in task.predict(params, examples, batch_images=_rows(len(examples), len(questions), encode)):
        if arguments.json:
            print(json.dumps(_line(prediction), ensure_ascii=False))
        else:
            print(f"{prediction.image_id}: {prediction.question.text}")
            print("\n".join(f"  {probability:6.1%}  {answer}" for answer, probability in prediction.top))


def _say_captions(folder, config, arguments):
    from vlm_jax.config_checks import check
    from vlm_jax.data.given_pictures import given_pictures
    from vlm_jax.types import Example

    decoding = check(dataclasses.replace(config, decoding=_decoding(config.decoding, arguments))).decoding
    examples = [Example(name, data) for name, data in given_pictures(arguments.image)]

    from vlm_jax.training.setup import load_trained, make_encoder

    task, params, _ = load_trained(config, folder, make_encoder(config, folder), which=arguments.checkpoint)
    # A power of two, so that few batch sizes are ever compiled.
    size = min(64, 1 << (len(examples) - 1).bit_length())
    options = {"decoding": decoding, "choices": arguments.choices or (), "batch_images": size}
    for caption in task.predict(params, examples, **options):
        if arguments.json:
            said = [each.as_dict() for each in caption.said]
            print(json.dumps({"image": caption.image_id, "captions": said}, ensure_ascii=False))
        else:
            print(caption.image_id)
            print("\n".join(f"  {each.log_probability:8.2f}  {each.text}" for each in caption.said))


def _decoding(settings, arguments):
    """The run's way of decoding, as far as the command line does not say another."""
    changes = {}
    if arguments.beam is not None:
        kept = settings.texts if settings.method == "beam" else 1
        changes = {"method": "beam", "beams": arguments.beam, "texts": arguments.samples or kept}
        if arguments.temperature is not None or arguments.top_p is not None:
            raise InputError("--temperature and --top-p are for --samples without --beam; leave out either")
    elif arguments.samples is not None or arguments.temperature is not None or arguments.top_p is not None:
        kept = settings.texts if settings.method == "sample" else 1
        changes = {"method": "sample", "texts": arguments.samples or kept}
    for name in ("temperature", "top_p", "prefix"):
        if getattr(arguments, name) is not None:
            changes[name] = getattr(arguments, name)
    return dataclasses.replace(settings, **changes)


def _rows(pictures, questions, encode):
    """Enough for all of them in one batch, within reason; a picture takes a row for every K questions."""
    return min(64, pictures * -(-questions // encode.questions_per_image))


def _warn_of_unread(text, encode, *, built):
    """Say which part of a question does not reach the model, or was not among what it learned from."""
    words = encode.tokenizer.words(text)
    unknown = [word for word, ids in words if encode.tokenizer.unknown_id in ids]
    if unknown:
        print(f"note: the model cannot read {', '.join(map(repr, unknown))}", file=sys.stderr)
    # A vocabulary built from the training questions holds their words whole.
    new = [word for word, ids in words if len(ids) > 1] if built else []
    if new:
        print(f"note: not a word of the training questions: {', '.join(map(repr, new))}", file=sys.stderr)
    if encode.tokenizer.truncated([text], encode.max_length):
        print(f"note: only the first {encode.max_length - 2} tokens are read of {text!r}", file=sys.stderr)


def _line(prediction):
    answers = [{"answer": answer, "probability": probability} for answer, probability in prediction.top]
    return {"image": prediction.image_id, "question": prediction.question.text, "answers": answers}


if __name__ == "__main__":
    run_command(main)
