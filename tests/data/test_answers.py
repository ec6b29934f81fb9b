"""The answer vocabulary's order, and its file."""

import pytest

from vlm_jax.data.answers import AnswerVocabulary, most_answers
from vlm_jax.errors import InputError
from vlm_jax.types import Example, Question


def example(*answers):
    return Example("1", b"", tuple(Question("q", "what?", given, "open") for given in answers))


def test_common_answers_come_first_and_ties_are_alphabetical():
    examples = [example(("no",), ("yes", "yes", "maybe")), example(("no",), ("cat",), ("no",))]
    vocabulary = AnswerVocabulary.build(examples)
    assert vocabulary.answers == ("no", "yes", "cat", "maybe")
    assert len(vocabulary) == 4 and vocabulary.index("cat") == 2 and vocabulary.index("dog") is None
    assert most_answers(examples) == 2 and most_answers([]) == 1 and most_answers([example(())]) == 1


def test_the_file_gives_it_back(tmp_path):
    vocabulary = AnswerVocabulary(["yes", "crème\nbrûlée", '"quoted"'])
    vocabulary.save(tmp_path / "answers.json")
    assert AnswerVocabulary.load(tmp_path / "answers.json") == vocabulary


@pytest.mark.parametrize("content", ["", "{}", "[1, 2]", '["a", "a"]', "[]"])
def test_other_files_are_refused_by_name(tmp_path, content):
    (tmp_path / "answers.json").write_text(content)
    with pytest.raises(InputError, match="answer vocabulary"):
        AnswerVocabulary.load(tmp_path / "answers.json")


def test_a_missing_file_and_an_empty_training_set(tmp_path):
    with pytest.raises(InputError, match=r"answers\.json"):
        AnswerVocabulary.load(tmp_path / "answers.json")
    with pytest.raises(InputError, match="empty"):
        AnswerVocabulary.build([])
