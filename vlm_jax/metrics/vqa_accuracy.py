"""VQA accuracy as the official evaluation computes it, oddities included, so that figures compare with published ones.

Every rule and table entry is a fact of PythonEvaluationTools/vqaEvaluation/vqaEval.py in GT-Vision-Lab/VQA at a013f00.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'  # no colon, no apostrophe: "4:30" and "man's" stay
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
_MOST_FULL_STOPS = 32  # the official call passes re.UNICODE, which is 32, where `re.sub` expects a count

_ARTICLES = frozenset(("a", "an", "the"))
_NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6"}
_NUMBERS |= {"seven": "7", "eight": "8", "nine": "9", "ten": "10"}

# A word that lacks exactly one of these apostrophes gets it back: "dont", "couldnt've". Left out is what the official
# table holds to no effect: four entries with a capital I, looked up in lower case, and two that map a word to itself.
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
_APOSTROPHES = {
    word[:place] + word[place + 1 :]: word
    for word in _CONTRACTIONS.split()
    for place, sign in enumerate(word)
    if sign == "'"
}
_APOSTROPHES["somebody'd"] = "somebodyd"  # the wrong way round in the official table


def normalize_answer(text: str) -> str:
    """What the official evaluation compares where people disagree: "The two, really?" becomes "2 really".

    A punctuation mark is deleted everywhere in `text` where it touches a space anywhere, or where any comma stands
    between digits; else it becomes a space. At most 32 full stops go, and none before a digit.
    """
    words = _without_punctuation(_trim(text)).lower().split()
    numbered = (_NUMBERS.get(word, word) for word in words if word not in _ARTICLES)
    return " ".join(_APOSTROPHES.get(word, word) for word in numbered)


@lru_cache(maxsize=2**17)
def canonical(answer: str) -> str:
    """One spelling of an answer, by which training counts it: normalised, unless nothing would be left ("a")."""
    return normalize_answer(answer) or answer


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Official VQA accuracy of one prediction, 0 to 1: the mean of min(1, matches / 3), leaving each person out once.

    Both sides are normalised by `normalize_answer`, except where all answers agree: "Yes" against ten "yes" is wrong.
    0 without answers, and with a single one, since nobody else is left to agree with.
    """
    if len({_trim(answer) for answer in answers}) > 1:
        return lenient_vqa_accuracy(prediction, answers)
    return _leave_one_out(_trim(prediction), [_trim(answer) for answer in answers])


def lenient_vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """`vqa_accuracy` with both sides always normalised: NOT the official number, and never below it.

    For answers written with capitals or a full stop, which the official evaluation marks wrong where people agree.
    """
    return _leave_one_out(normalize_answer(prediction), [normalize_answer(answer) for answer in answers])


def _trim(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _without_punctuation(text: str) -> str:
    glued = _DIGIT_COMMA_DIGIT.search(text) is not None
    table = {ord(mark): "" if glued or f"{mark} " in text or f" {mark}" in text else " " for mark in _PUNCTUATION}
    return _FULL_STOP.sub("", text.translate(table), count=_MOST_FULL_STOPS)


def _leave_one_out(prediction: str, answers: Sequence[str]) -> float:
    """Counted in whole thirds and divided once, so 0.3 is 0.3."""
    people, matches = len(answers), sum(answer == prediction for answer in answers)
    thirds = matches * min(3, matches - 1) + (people - matches) * min(3, matches)
    return thirds / (3 * people) if people else 0.0
