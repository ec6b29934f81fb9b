"""Real texts for proofs, as a port's own tokenizer reads them."""

from collections.abc import Sequence

import numpy as np

from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.weights.converted_model import ConvertedModel

SENTENCES = (
    "A man is riding a bicycle along the river.", "Two children play football in the rain.",
    "What is the capital of the country with the longest coast?", "The train to the north leaves at half past six.",
    "She bought three apples, a loaf of bread and some cheese.", "A black cat sleeps on a red sofa.",
    "The committee will publish its report in the spring of next year.", "Water boils sooner on a mountain.",
    "He has played the violin since he was four years old.", "How many windows does the yellow house have?",
    "An old map of the harbour hangs above the fireplace.", "The price of copper fell by two percent on Monday.",
    "Several people wait for the bus under a large umbrella.", "Please close the door behind you.",
    "The museum is closed for repairs until the end of March.", "Bees see ultraviolet light, which people cannot.",
    "A plate of noodles with vegetables and two chopsticks.", "They walked for hours without meeting anybody.",
    "The second half of the book is better than the first.", "A surfer falls from a wave near the pier.",
    "Which of these animals lays eggs?", "The engineers measured the bridge before and after the storm.",
    "My brother forgot his keys again, so he climbed through the window.", "A bowl of oranges on a table.",
    "Nobody in the village remembered the name of the painter.", "The answer is no.",
    "A herd of elephants crosses a dusty road at sunset.", "Scientists found a new species of frog in the forest.",
    "The baker opens at five, except on Sundays.", "Two planes fly side by side over the city.",
    "If it snows tomorrow, the match will be played indoors.", "A small boat with a white sail leaves the island.",
)  # fmt: skip


def text_inputs(
    converted: ConvertedModel, texts: Sequence[str], *, length: int = 24, seed: int = 0
) -> dict[str, np.ndarray]:
    """The arguments of a module for some texts; of a port without a tokenizer, random ids and token types.

    Grid features of VisualBERT and the states that a decoder attends to are random. Long texts lose their end.
    """
    model, random = converted.architecture.model, np.random.default_rng(seed)
    length = min(length, model.max_position_embeddings - model.first_position)
    if converted.tokenizer:
        ids, mask = Tokenizer.load(converted.tokenizer[0].parent).encode(list(texts), length)
    else:
        first = min(model.first_position, model.vocab_size - 1)
        ids = random.integers(first, model.vocab_size, (len(texts), length))
        mask = np.arange(length)[None] < random.integers(3, length + 1, len(texts))[:, None]
        ids = np.where(mask, ids, converted.architecture.pad_id or 0)
    inputs = {"input_ids": ids.astype(np.int32), "text_mask": mask}
    if model.type_vocab_size > 1:
        kinds = 1 if converted.tokenizer else model.type_vocab_size
        inputs["segments"] = random.integers(0, kinds, mask.shape).astype(np.int32)
    if size := converted.architecture.image_size:
        inputs["image"] = random.normal(size=(len(texts), 7, size)).astype(np.float32)
        inputs["image_mask"] = np.ones((len(texts), 7), bool)
    return inputs
