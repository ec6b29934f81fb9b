"""What a score can reach on the validation split, before training: one that cannot move selects no checkpoint."""

from collections.abc import Callable, Sequence
from statistics import median_low

import numpy as np
from jaxtyping import Int, UInt8

from vlm_jax.data.answers import AnswerVocabulary
from vlm_jax.data.encoding import ExampleEncoder
from vlm_jax.errors import counted
from vlm_jax.metrics.captions import score_captions
from vlm_jax.metrics.vqa import ACCURACIES, soft_accuracy
from vlm_jax.metrics.vqa_accuracy import canonical
from vlm_jax.scenes.rules import check_caption
from vlm_jax.scenes.scene import from_json
from vlm_jax.tasks.examples import spread
from vlm_jax.tasks.generated import check_generated, image_scores
from vlm_jax.types import Example

Decode = Callable[[Int[np.ndarray, "N gh gw"]], UInt8[np.ndarray, "N h w 3"]]
"""From image tokens to images."""

COUNTED = 5_000  # images whose references are counted
SCORED = {"questions": 2_000, "captions": 500, "images": 64}  # at most; a second or two each
FEWEST = 4  # answers of a question from which on the official accuracy can be 1: three others have to agree


def answer_reach(
    train: Sequence[Example], validation: Sequence[Example], vocabulary: AnswerVocabulary, *, accuracy: str
) -> list[str]:
    """How many answers questions have, and the mean accuracy of the best answer to each validation question.

    `accuracy` is a name in `ACCURACIES`. With a warning where it is 0, or where there is one answer to choose.
    """
    counts = [len(question.answers) for example in spread(train, COUNTED) for question in example.texts]
    lines = [f"training questions have {_range(counts, 'answer')}{_sampled_note(train)}"] if counts else []
    if len(vocabulary) == 1:
        lines.append(
            f"warning: training has one answer, {vocabulary.answers[0]!r}: nothing can be learned; "
            "give questions with at least two answers, or lower data.min_answer_count"
        )
    answer_lists = [
        question.answers for example in spread(validation, SCORED["questions"]) for question in example.texts
    ]
    answer_lists = spread([answers for answers in answer_lists if answers], SCORED["questions"])
    if not answer_lists:
        return [*lines, "warning: no validation question has an answer: accuracy is 0 whatever is learned"]
    known = set(vocabulary.answers)
    best, open_best = _best(answer_lists, ACCURACIES[accuracy], known)
    part = f" of {len(answer_lists):,} questions looked at" if len(answer_lists) == SCORED["questions"] else ""
    lines.append(
        f"validation accuracy ({accuracy}){part} can reach {best:.4f} with the {len(vocabulary):,} answers of the "
        f"vocabulary, {open_best:.4f} with any answer"
    )
    if not best:
        cure = "set data.accuracy soft"
        if not _best(answer_lists, soft_accuracy, known)[0]:
            cure = "no answer of validation is in the vocabulary: lower data.min_answer_count, or check the files"
        elif open_best:
            cure = f"the official accuracy compares spelling where all people agree: {cure}"
        else:
            cure = f"the official accuracy counts how many other people gave the answer: {cure}"
        lines.append(f"warning: accuracy is 0 whatever is learned, and chooses no checkpoint; {cure}")
    few = sum(len(answers) < FEWEST for answers in answer_lists) / len(answer_lists)
    if accuracy == "vqa" and best and few:
        lines.append(
            f"note: {few:.1%} of the validation questions have fewer than {FEWEST} answers, for which the official "
            "accuracy is always below 1; data.accuracy soft has no such limit"
        )
    return lines


def _best(
    answer_lists: Sequence[Sequence[str]], accuracy: Callable[[str, Sequence[str]], float], known: set[str]
) -> tuple[float, float]:
    """Mean over questions of the best accuracy of an answer in `known`, and of any answer."""
    scores = []
    for answers in answer_lists:
        candidates = {canonical(answer) for answer in answers} | set(answers)
        accuracies = {candidate: accuracy(candidate, answers) for candidate in candidates}
        within = max((score for candidate, score in accuracies.items() if candidate in known), default=0.0)
        scores.append((within, max(accuracies.values())))
    within, anywhere = np.mean(scores, axis=0)
    return float(within), float(anywhere)


def caption_reach(
    train: Sequence[Example], validation: Sequence[Example], encode: ExampleEncoder, *, metric: str
) -> list[str]:
    """How many captions images have, and the score of each image's first reference as the model can write it.

    With a warning where that is 0: a text is cut, its words are not in the vocabulary, or CIDEr-D has no rare word.
    """
    counts = [len(example.texts) for example in spread(train, COUNTED)]
    lines = [f"training images have {_range(counts, 'caption')}{_sampled_note(train)}"]
    examples = [example for example in spread(validation, SCORED["captions"]) if example.texts]
    if not examples:
        return [*lines, f"warning: no validation image has a caption: {metric} cannot be computed"]
    texts = [example.texts[0].text for example in examples]
    written = _score([_writable(text, encode) for text in texts], examples, metric)
    lines.append(
        f"validation {metric} of each image's first reference, as far as the model can write it: {written:.4f}"
    )
    if not written:
        cure = "raise model.text.max_length or model.text.vocab_size"
        if not _score(texts, examples, metric):
            cure = "its references score 0 themselves"
            if metric == "cider_d":
                cure = "no word of its references is rarer than another; give more validation images that differ"
        lines.append(f"warning: {metric} is 0 whatever is learned, and chooses no checkpoint; {cure}")
    return lines


def _writable(text: str, encode: ExampleEncoder) -> str:
    """The text without words that the tokenizer does not know, and without what is beyond the longest text."""
    tokenizer = encode.tokenizer
    known = [token for token in tokenizer.tokens([text])[0] if token != tokenizer.unknown_id]
    return tokenizer.decode(known[: encode.max_length - 2])


def _score(texts: Sequence[str], examples: Sequence[Example], metric: str) -> float:
    if metric != "rule_accuracy":
        references = [[text.text for text in example.texts] for example in examples]
        return score_captions(texts, references)[metric]
    scenes = [None if example.scene is None else from_json(example.scene) for example in examples]
    right = [check_caption(text, scene).true for text, scene in zip(texts, scenes, strict=True) if scene is not None]
    return float(np.mean(right)) if right else 0.0


def image_token_reach(validation: Sequence[Example], decode: Decode, *, metric: str) -> list[str]:
    """The score of true images that went through their image tokens, where a rule can see it; examples carry image
    tokens.

    With a warning where it is 0, or where all images have the same image tokens.
    """
    examples = spread(validation, SCORED["images"])
    tokens = np.stack([example.image_tokens for example in examples])
    lines = []
    if len(tokens) > 1 and (tokens == tokens[:1]).all():
        lines.append(
            "warning: all validation images have the same image tokens, so that every prompt has the same image; "
            "train the image tokenizer longer"
        )
    if metric != "objects_right":
        return lines
    checks = [check_generated(example, image[None]) for example, image in zip(examples, decode(tokens), strict=True)]
    value = image_scores([check for row in checks for check in row])[metric]
    lines.append(f"validation {metric} of the true images, through their image tokens: {value:.4f}")
    if not value:
        lines.append(
            f"warning: {metric} is 0 whatever is learned, and chooses no checkpoint: the image tokenizer loses "
            "the objects; train it longer"
        )
    return lines


def _range(counts: Sequence[int], what: str) -> str:
    low, high = min(counts), max(counts)
    return counted(low, what) if low == high else f"{low} to {high} {what}s, median {median_low(counts)}"


def _sampled_note(examples: Sequence[Example]) -> str:
    return f" ({COUNTED:,} images looked at)" if len(examples) > COUNTED else ""
