"""Visual question answering: classify [CLS] over the answer vocabulary, soft targets where people disagree."""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from vlm_jax.config.vqa import VQA
from vlm_jax.data.answers import AnswerVocabulary
from vlm_jax.data.encoding import ExampleEncoder
from vlm_jax.data.loader import EvaluationBatches
from vlm_jax.data.settings import DataSet
from vlm_jax.data.sources import open_split
from vlm_jax.errors import InputError
from vlm_jax.figures import Card
from vlm_jax.metrics.vqa import ACCURACIES, BlindPrior, accuracy_by_kind
from vlm_jax.metrics.vqa_accuracy import lenient_vqa_accuracy
from vlm_jax.models.pixels import normalise_pixels
from vlm_jax.models.vlm import VisualLanguageModel
from vlm_jax.placement import split_over_devices
from vlm_jax.tasks.base import Item, Sums
from vlm_jax.tasks.baselines import distinct_images, shuffled_difference
from vlm_jax.tasks.examples import shuffled_images
from vlm_jax.tasks.reach import answer_reach
from vlm_jax.tasks.text_task import TextTask, init_params
from vlm_jax.types import Batch, Example, Json, Parameters, Text

TOP = 5  # answers of a prediction that are kept
ASSUMED_CLASSES = 1000  # answers that an inspection assumes where the config leaves them to the data


class Prediction(NamedTuple):
    """One answered question."""

    image_id: str
    question: Text
    top: tuple[tuple[str, float], ...]
    """The likeliest answers with their probabilities, best first."""
    score: float
    """1 right, 0 wrong, between where people disagree."""

    @property
    def right(self) -> bool | None:
        """Whether half of the people or more gave this answer; None where there is no reference."""
        return self.score >= 0.5 if self.question.answers else None

    def card(self, image: np.ndarray) -> Card:
        answer, probability = self.top[0]
        return Card(image, self.question.text, answer, probability, self.question.answers, self.right)

    def as_dict(self) -> dict[str, Json]:
        return {
            "question_id": self.question.text_id,
            "image_id": self.image_id,
            "question": self.question.text,
            "kind": self.question.kind,
            "answers": list(self.question.answers),
            "prediction": self.top[0][0],
            "score": self.score,
            "top": [{"answer": answer, "probability": probability} for answer, probability in self.top],
        }


def batch_sums(logits: Float[Array, "I K A"], batch: Batch, *, label_smoothing: float) -> Sums:
    """Cross-entropy with soft targets, -sum_a t_a log p_a, over the real questions of a batch.

    A question none of whose answers is in the vocabulary has no target: it counts in the accuracy (as wrong), with
    loss zero. Label smoothing e (Szegedy et al. 2016, section 7) turns t into (1 - e) t + e / A.
    """
    log_p = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_p, batch.answers, axis=-1)
    loss = -jnp.sum(picked * batch.answer_weights, axis=-1)
    if label_smoothing:
        answered = jnp.sum(batch.answer_weights, axis=-1)
        loss = (1 - label_smoothing) * loss - label_smoothing * answered * jnp.mean(log_p, axis=-1)
    right = batch.answers == jnp.argmax(logits, -1)[..., None]
    score = jnp.sum(jnp.where(right, batch.answer_weights, 0), -1)
    count = jnp.sum(batch.weight)
    return Sums(jnp.sum(loss * batch.weight), count, jnp.sum(score * batch.weight), count)


@functools.lru_cache
def _count_answers(data: DataSet) -> int:
    return len(AnswerVocabulary.build(open_split(data, "train"), min_count=data.min_answer_count))


class VisualQuestionAnswering(TextTask[Prediction]):
    """The task of one config: its encoder, its model, its loss and its scores."""

    metric = "accuracy"
    scores = shares = ("accuracy", "accuracy_lenient")
    by_kind = ("accuracy",)
    unit = "accuracy"
    text_name = "question"
    shuffled = "shuffled_images"
    classifies = True

    @classmethod
    def scale_of(cls, config: VQA) -> tuple[str, ...]:
        """The rule by which an answer is right."""
        return ("data.accuracy",)

    @classmethod
    def num_classes(cls, config: VQA) -> int:
        """The head's classes, or the answers of the training set."""
        return config.classes or _count_answers(config.data)

    @classmethod
    def outputs(cls, config: VQA, classes: int | None) -> tuple[int, str]:
        """The number of answers; of a config that leaves it to the data, the one that is assumed."""
        own = config.classes
        if own is not None and classes not in (None, own):
            raise InputError(
                f"--classes is {classes}, and the config has model.fusion.head.classes {own}; leave --classes out, "
                "or set --model.fusion.head.classes"
            )
        number = own or classes or ASSUMED_CLASSES
        assumed = " (assumed, since the config leaves them to the data; --classes sets them)"
        return number, f"{number:,} answers" + assumed * (own is None and classes is None)

    @classmethod
    def read_item(cls, line: dict[str, Json]) -> Item:
        """Right where at least half of the people gave the answer."""
        score = line["score"]
        text, kind, references = line["question"], line["kind"], tuple(line["answers"])
        return Item(line["image_id"], score, text, kind, references, line["prediction"], score >= 0.5)

    def __init__(self, config: VQA, encode: ExampleEncoder) -> None:
        answers = len(encode.answers)
        classes = config.classes or answers
        if classes < answers:
            raise InputError(
                f"model.fusion.head.classes is {classes}, the training set has {answers} answers; raise it to {answers}"
            )
        self.config, self.encode, self.answers = config, encode, encode.answers.answers
        self.model = VisualLanguageModel(config.architecture, classes)
        self._accuracy = ACCURACIES[config.data.accuracy]
        self._predict = split_over_devices(self._predict_batch)

    def init_params(self, key: Key[Array, ""]) -> Parameters:
        return init_params(self.model, self.encode, key)

    def loss_sums(self, params: Parameters, batch: Batch, keys: Key[Array, " I"] | None) -> Sums:
        inputs = (normalise_pixels(batch.image, self.encode.image), batch.input_ids, batch.text_mask)
        logits = self.model.bind({"params": params}).task_logits(*inputs, keys=keys)
        return batch_sums(logits, batch, label_smoothing=self.config.training.label_smoothing)

    def _predict_batch(
        self, params: Parameters, batch: Batch, see_image: Bool[Array, "I 1"]
    ) -> tuple[Float[Array, "I K top"], Int[Array, "I K top"]]:
        image = normalise_pixels(batch.image, self.encode.image)
        return self.top_answers(params, image, batch.input_ids, batch.text_mask, see_image)

    def top_answers(
        self,
        params: Parameters,
        image: Float[Array, "I *grid C"],
        input_ids: Int[Array, "I K T"],
        text_mask: Bool[Array, "I K T"],
        see_image: Bool[Array, "I 1"] | None = None,
    ) -> tuple[Float[Array, "I K top"], Int[Array, "I K top"]]:
        """The probabilities of the most probable answers, and their classes."""
        inputs = (image, input_ids, text_mask)
        logits = self.model.bind({"params": params}).task_logits(*inputs, image_mask=see_image)
        known = logits[..., : len(self.encode.answers)]  # a head may have more classes than there are answers
        probabilities, classes = jax.lax.top_k(jax.nn.softmax(known), min(TOP, len(self.encode.answers)))
        return probabilities, classes

    def predict(
        self,
        params: Parameters,
        examples: Sequence[Example],
        *,
        see_image: bool = True,
        batch_images: int | None = None,
    ) -> list[Prediction]:
        """Every question of `examples`, in order; without `see_image` from the question alone."""
        size = batch_images or self.config.training.evaluation_batch_images
        batches = EvaluationBatches(examples, self.encode, batch_images=size, threads=self.config.data.threads)
        visible = np.full((size, 1), see_image)
        waiting = []
        for loaded in batches:
            waiting.append((loaded.batch.weight > 0, self._predict(params, loaded.batch, visible)))
        if not waiting:
            return []
        real = [(top_p[mask], top_c[mask]) for mask, (top_p, top_c) in jax.device_get(waiting)]
        probabilities, classes = (np.concatenate(column) for column in zip(*real, strict=True))
        questions = [(example.image_id, question) for example in examples for question in example.texts]
        return [self._prediction(*row) for row in zip(questions, probabilities, classes, strict=True)]

    def _prediction(self, question_of: tuple[str, Text], probabilities: np.ndarray, classes: np.ndarray) -> Prediction:
        image_id, question = question_of
        names = [self.encode.answers.answers[c] for c in classes]
        top = tuple(zip(names, map(float, probabilities), strict=True))
        return Prediction(image_id, question, top, self._accuracy(names[0], question.answers))

    def score(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """Accuracy overall and by question kind; beside the official one what it is when spelling is forgiven."""
        scores = np.array([p.score for p in predictions], np.float64)
        metrics = accuracy_by_kind(scores, [p.question.kind for p in predictions])
        if self.config.data.accuracy == "vqa" and predictions:
            forgiven = [lenient_vqa_accuracy(p.top[0][0], p.question.answers) for p in predictions]
            metrics["accuracy_lenient"] = float(np.mean(forgiven))
        return metrics

    def can_score(self, examples: Sequence[Example]) -> bool:
        """Whether questions have answers: all of a split have, or none."""
        return any(question.answers for example in examples for question in example.texts)

    def files(self, predictions: Sequence[Prediction]) -> dict[str, Json]:
        """Answers to questions without references, in the format of VQA's evaluation server."""
        if any(prediction.question.answers for prediction in predictions):
            return {}
        rows = [(prediction.question.text_id, prediction.top[0][0]) for prediction in predictions]
        return {
            "vqa_results.json": [
                {"question_id": int(name) if re.fullmatch(r"0|[1-9]\d{0,17}", name) else name, "answer": answer}
                for name, answer in rows
            ]
        }

    def reach(self, train: Sequence[Example], validation: Sequence[Example]) -> list[str]:
        """How many answers questions have, and the best accuracy of any answer."""
        return answer_reach(train, validation, self.encode.answers, accuracy=self.config.data.accuracy)

    def title(self, metrics: dict[str, float]) -> str:
        return f"{metrics['accuracy']:.1%} right"

    def baselines(
        self,
        params: Parameters,
        examples: Sequence[Example],
        train: Sequence[Example],
        predictions: Sequence[Prediction],
    ) -> dict[str, float]:
        """What is reached without looking: by the trained model, and by answer counts of the training set."""
        blind = self.predict(params, examples, see_image=False)
        prior = BlindPrior((q.text, q.answers) for example in train for q in example.texts)
        questions = [question for example in examples for question in example.texts]

        def counted(answer_to):
            return float(np.mean([self._accuracy(answer_to(q.text), q.answers) for q in questions]))

        return {
            "baseline/question_only": self.score(blind)["accuracy"],
            **self._shuffled(params, examples, predictions),
            "baseline/answer_prior": counted(prior.answer),
            "baseline/majority": counted(lambda text: prior.majority),
        }

    def _shuffled(
        self, params: Parameters, examples: Sequence[Example], predictions: Sequence[Prediction]
    ) -> dict[str, float]:
        if distinct_images(examples) < 2:
            return {}
        shuffled = self.predict(params, shuffled_images(examples, self.config.seed))
        scores = [[prediction.score for prediction in rows] for rows in (predictions, shuffled)]
        difference = shuffled_difference(self.shuffled, self.metric, predictions, *scores)
        return {f"baseline/{self.shuffled}": self.score(shuffled)["accuracy"], **difference}


TASK = VisualQuestionAnswering
