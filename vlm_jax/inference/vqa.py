"""Answers to questions about images."""

import jax
import numpy as np

from vlm_jax.config.run import Config
from vlm_jax.config.use import Answer as Options
from vlm_jax.figures import Card
from vlm_jax.inference.images import ImageLike, named_images, thumbnails
from vlm_jax.inference.results import Answer
from vlm_jax.inference.runs import FusedModel, Shown
from vlm_jax.run_folder import RunFolder
from vlm_jax.tasks.vqa import VisualQuestionAnswering
from vlm_jax.types import Parameters


class QuestionAnswering(FusedModel):
    """The model of a run of visual question answering."""

    task: VisualQuestionAnswering

    def __init__(self, folder: RunFolder, config: Config, task: VisualQuestionAnswering, params: Parameters, step: int):
        super().__init__(folder, config, task, params, step)
        self._top_answers = jax.jit(task.top_answers)

    def _answer(self, images: list[ImageLike], questions: list[str]) -> list[Answer]:
        rows = self._over_texts(self._top_answers, images, questions)
        return [
            self._result(question, *ranked) for row in rows for question, ranked in zip(questions, row, strict=True)
        ]

    def _result(self, question: str, probabilities: np.ndarray, classes: np.ndarray) -> Answer:
        names = [self.task.answers[index] for index in classes]
        top = tuple(zip(names, map(float, probabilities), strict=True))
        return Answer(question, *top[0], top, self._warnings(question))

    def show(self, options: Options) -> Shown:
        """The most probable answers to every question about every image."""
        names, images = named_images(options.image, max_pixels=self.config.data.max_pixels)
        answers = self._answer(images, list(options.question))
        small = thumbnails(images, self.processor, options.output)
        lines, text, cards = [], [], []
        for number, answer in enumerate(answers):
            place = number // len(options.question)
            top = [{"answer": candidate, "probability": probability} for candidate, probability in answer.top]
            line = {"image": names[place], "question": answer.question, "answers": top}
            lines.append(line | {"notes": list(answer.warnings)})
            text.append(f"{names[place]}: {answer.question}")
            text += [f"  {probability:6.1%}  {candidate}" for candidate, probability in answer.top]
            if small:
                cards.append(Card(small[place], answer.question, answer.text, answer.probability, (), None))
        return Shown(lines, "\n".join(text), cards)


MODEL = QuestionAnswering
