"""Ask a trained model: `python -m experiments.predict runs/quickstart --image cat.png --question "what colour is it?"`.

Every question is asked about every picture.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from vlm_jax.command_line import parse, run_command
from vlm_jax.errors import InputError


def main(argv: list[str]) -> int:
    import tyro

    @dataclass(frozen=True)
    class Predict:
        """Answer every question about every picture, with the likeliest five answers and their probabilities."""

        run: Annotated[Path, tyro.conf.Positional]
        """Folder of a run."""
        image: tuple[Path, ...]
        """Picture files."""
        question: tuple[str, ...]
        """Questions."""
        checkpoint: str = "best"
        """`best` by validation accuracy, `latest`, or an optimizer step that was kept."""
        json: bool = False
        """One line of JSON an answer instead of text."""

    arguments = parse(Predict, argv, prog="python -m experiments.predict")
    for name, values in (("--image", arguments.image), ("--question", arguments.question)):
        if not values:
            raise InputError(f"{name} is empty; give at least one value")

    from vlm_jax.data.images import read_picture
    from vlm_jax.run_folder import open_run
    from vlm_jax.types import Example, Question

    folder = open_run(arguments.run)
    config = folder.config()
    questions = tuple(Question(question_id=text, text=text, answers=(), kind="") for text in arguments.question)
    examples = [Example(str(path), read_picture(path), questions) for path in arguments.image]

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
    return 0


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
