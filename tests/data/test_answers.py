"""The answer vocabulary's order, and its file."""

import pytest

from vlm_jax.data.answers import AnswerVocabulary, most_answers
from vlm_jax.errors import InputError
from vlm_jax.types import Example, Text


def example(*answers):
    return Example("1", b"", tuple(Text("q", "what?", references, "open") for references in answers))


def test_common_answers_come_first_and_ties_are_alphabetical():
    examples = [example(("no",), ("yes", "yes", "maybe")), example(("no",), ("cat",), ("no",))]
    vocabulary = AnswerVocabulary.build(examples)
    assert vocabulary.answers == ("no", "yes", "cat", "maybe")
    assert len(vocabulary) == 4 and vocabulary.index("cat") == 2 and vocabulary.index("dog") is None
    assert most_answers(examples) == 2 and most_answers([]) == 1 and most_answers([example(())]) == 1


def test_one_answer_however_spelled():
    vocabulary = AnswerVocabulary.build([example(("A cat.", "two", "cat"), ("2",), ("a",), ("The x-ray",))])
    assert vocabulary.answers == ("2", "cat", "a", "x ray")  # "a" would be nothing without its article
    assert [vocabulary.index(answer) for answer in ("cat!", "Two", "an x-ray", "A")] == [1, 0, 3, None]


def test_infrequent_answers_can_be_left_out():
    examples = [example(("no",), ("yes", "yes", "Yes"), ("no",), ("maybe",))]
    assert AnswerVocabulary.build(examples, min_count=2).answers == ("yes", "no")
    with pytest.raises(InputError, match=r"no answer was given 4 times; set data.min_answer_count to 3 or less"):
        AnswerVocabulary.build(examples, min_count=4)


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
