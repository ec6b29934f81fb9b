"""Image generation: the codes of a picture, from its prompt and those codes that are not hidden."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

from vlm_jax.config import Config, Generation
from vlm_jax.data.encoding import ExampleEncoder
from vlm_jax.decoding import CodeDecoder, before, code_log_probabilities, hide
from vlm_jax.errors import InputError
from vlm_jax.models.code_vectors import starting_alike
from vlm_jax.models.vlm import VisualLanguageModel
from vlm_jax.tasks.baselines import shuffled_difference
from vlm_jax.tasks.drawn import Drawn, check_drawn, remarks_on, score_drawn
from vlm_jax.tasks.image_codes import TrainedTokenizer, differing
from vlm_jax.tasks.judge import Judge
from vlm_jax.tasks.nearest_image import spread
from vlm_jax.tasks.picture_distance import PictureFeatures, distances
from vlm_jax.tasks.reach import code_reach
from vlm_jax.tasks.shared import Changed, Sums, Task, others, place_keys
from vlm_jax.types import Batch, Example

DROP, HIDE, MODEL = range(3)  # what a picture's key is used for
JUDGED = 512  # candidates whose pixels are in memory at a time
LEAST_COUNT = 10  # what no training picture has, or hardly any, is taken to be as rare as this


def code_losses(
    logits: Float[Array, "*s V"],
    codes: Int[Array, "*s"],
    *,
    weights: Float[np.ndarray, " V"] | None,
    smoothing: float,
) -> tuple[Float[Array, "*s"], Bool[Array, "*s"]]:
    """Cross-entropy of each code, times its weight, and whether it was held for the likeliest.

    Where codes have weights w, the cross-entropy is that of softmax(logits + log w), times w. Over codes of
    probability p its mean is least where softmax(logits + log w) is p w, rescaled: where softmax(logits) is p, whatever
    the weights. (Menon et al. 2021, arXiv:2007.07314, pair weights and logits so for a balanced error; here what is
    learned stays p.)
    """
    right = jnp.argmax(logits, axis=-1) == codes
    if weights is not None:
        logits = logits + jnp.log(weights).reshape(*[1] * codes.ndim, -1)
    log_p = jax.nn.log_softmax(logits)
    loss = -jnp.take_along_axis(log_p, codes[..., None], axis=-1)[..., 0]
    if smoothing:
        loss = (1 - smoothing) * loss - smoothing * jnp.mean(log_p, axis=-1)
    return loss if weights is None else loss * jnp.asarray(weights)[codes], right


class ImageGeneration(Task):
    """The task of one config: its encoder, its model, its loss, its decoding and its scores."""

    scores = (
        *("log_likelihood", "log_frequency", "prompt_gain", "frechet_distance"),
        *("sample_diversity", "prompt_diversity"),
        *("objects_right", "objects_and_sizes_right", "count_right", "relation_right", "all_right"),
    )
    shuffled = "shuffled_prompts"
    sheets = True

    @classmethod
    def metric_of(cls, config: Config) -> str:
        """What a rule sees on pictures of drawn scenes; of others, how likely the real ones are."""
        return "objects_right" if config.data.name == "shape_scenes" else "log_likelihood"

    def __init__(
        self, config: Config, encode: ExampleEncoder, tokenizer: TrainedTokenizer, judge: Judge | None = None
    ) -> None:
        if apart := differing(config, tokenizer.config):
            raise InputError(f"the image tokenizer has {apart}, and the config says otherwise; give the same")
        self.config, self.tokenizer, self.judge = config, tokenizer, judge
        self._pixels = dataclasses.replace(encode, image=tokenizer.image, texts_per_image=1)
        self.encode = dataclasses.replace(encode, image_token_grid=tokenizer.grid)
        self.model = VisualLanguageModel(config.model, tokenizer.codes)
        self.metric = self.metric_of(config)
        self._empty = tuple(row[0] for row in encode.encode_texts([""]))
        self._autoregressive = config.model.attention_pattern == "autoregressive"
        self._weights: Float[np.ndarray, " V"] | None = None
        self._decoders: dict[Generation, CodeDecoder] = {}
        self._likelihood = jax.jit(self._log_likelihood)

    def init_params(self, key: Key[Array, ""]) -> dict[str, Any]:
        """Fresh float32 parameters."""
        ids = jnp.zeros((1, 1, self.encode.max_length), jnp.int32)
        codes = jnp.zeros((1, *self.tokenizer.grid), jnp.int32)
        return self.model.init(key, codes, ids, jnp.ones(ids.shape, bool), method="code_logits")["params"]

    def start(self, params: dict[str, Any], key: Key[Array, ""]) -> dict[str, Any]:
        """With vectors that are alike where codes look alike: what is learned of one is learned of all of them."""
        looks = jnp.asarray(self.tokenizer.looks())
        for number, place in enumerate(("image", "head")):
            vectors = starting_alike(params[place]["codes"], looks, key=jax.random.fold_in(key, number))
            params = params | {place: params[place] | {"codes": vectors}}
        return params

    @cached_property
    def _features(self) -> PictureFeatures | None:
        settings = self.config.generation
        return PictureFeatures(settings) if settings.features is not None else None

    def facts(self) -> dict[str, Any]:
        """Whose codes are drawn, which network's features a distance is of, and who chose among candidates."""
        tokenizer = {"run": self.config.generation.tokenizer, "sha256": self.tokenizer.digest}
        named = {"features": self._features, "reranker": self.judge}
        return {"image_tokenizer": tokenizer} | {name: each.origin for name, each in named.items() if each}

    def prepare(self, examples: Sequence[Example]) -> Changed:
        """The examples with codes in the place of pictures; a picture's codes are computed once and kept."""
        _ = self._features  # what is wrong with the network is said before anything is trained
        codes = self.tokenizer.cached(examples, self._pixels, self.config.data)
        return Changed(examples, lambda index, example: example._replace(image=codes[index]))

    def learn_from(self, train: Changed) -> None:
        """What each code counts in the loss, by how rare it is; 1 on average over the training codes."""
        if power := self.config.generation.token_frequency_power:
            counts = np.bincount(np.ravel([example.image for example in train]), minlength=self.tokenizer.codes)
            share = np.maximum(counts, LEAST_COUNT) / counts.sum()
            weights = share**-power
            self._weights = (weights / np.average(weights, weights=counts)).astype(np.float32)

    def loss_sums(self, params: dict[str, Any], batch: Batch, keys: Key[Array, " I"]) -> Sums:
        """Cross-entropy of the hidden codes, or of each after those before it; a share has lost its prompt."""
        settings = self.config.generation
        drop, places, dropout = (
            jax.vmap(lambda key, use=use: jax.random.fold_in(key, use))(keys) for use in (DROP, HIDE, MODEL)
        )
        without = jax.vmap(jax.random.bernoulli, (0, None))(drop, settings.cond_drop_prob)[:, None, None]
        ids, mask = (
            jnp.where(without, row, given)
            for row, given in zip(self._empty, (batch.input_ids, batch.text_mask), strict=True)
        )
        if self._autoregressive:
            codes, hidden = before(batch.image, mask_code=self.tokenizer.codes), jnp.ones(batch.image.shape, bool)
        else:
            codes, hidden = hide(batch.image, places, schedule=settings.mask_schedule, mask_code=self.tokenizer.codes)
        logits = self.model.apply({"params": params}, codes, ids, mask, keys=dropout, method="code_logits")
        target = jnp.broadcast_to(batch.image.reshape(len(codes), 1, -1), logits.shape[:-1])
        assert self._weights is not None or not settings.token_frequency_power, "learn_from was not called"
        smoothing = self.config.training.label_smoothing
        loss, right = code_losses(logits, target, weights=self._weights, smoothing=smoothing)
        counted = hidden.reshape(len(codes), 1, -1).astype(jnp.float32)
        if settings.loss_weighting == "elbo":
            # The weight 1 / t of masked diffusion (Sahoo et al. 2024, arXiv:2406.07524, section 3).
            counted = counted / jnp.mean(counted, axis=-1, keepdims=True)
        weight = counted * batch.weight[..., None]
        return Sums(jnp.sum(loss * weight), jnp.sum(weight), jnp.sum(right * weight), jnp.sum(batch.weight))

    def _log_likelihood(self, params, codes, ids, mask) -> Float[Array, " I"]:
        """Of each picture, the mean log-probability of a code, in one pass: how well the prompt fits it.

        All codes are hidden; with `autoregressive` each is given those before it, so that the sum is the picture's own.
        """
        nothing = jnp.full(codes.shape, self.tokenizer.codes, jnp.int32)
        shown = before(codes, mask_code=self.tokenizer.codes) if self._autoregressive else nothing
        logits = self.model.apply({"params": params}, shown, ids[:, None], mask[:, None], method="code_logits")[:, 0]
        return jnp.mean(code_log_probabilities(logits, codes), axis=-1)

    def decoder(self, settings: Generation) -> CodeDecoder:
        """The compiled decoder of some settings."""
        if settings not in self._decoders:
            shape = {"grid": self.tokenizer.grid, "codes": self.tokenizer.codes, "empty": self._empty}
            self._decoders[settings] = CodeDecoder(self.model, settings, autoregressive=self._autoregressive, **shape)
        return self._decoders[settings]

    def draw(
        self, params: dict[str, Any], prompts: Sequence[str], settings: Generation, *, batch: int | None = None
    ) -> UInt8[np.ndarray, "N S h w 3"]:
        """`settings.num_images` pictures of each prompt; what is drawn depends on the prompt's place, not on the batch.

        `batch`, by default as many as are evaluated at a time, counts candidates.
        """
        if self.judge and settings.num_candidates > 1:
            return self._judged(self.judge, params, prompts, settings, batch)
        pictures = self.tokenizer.decode(self._draw_codes(params, prompts, settings, batch))
        return pictures.reshape(len(prompts), settings.num_images, *pictures.shape[1:])

    def _draw_codes(
        self, params: dict[str, Any], prompts: Sequence[str], settings: Generation, batch: int | None
    ) -> Int[np.ndarray, "P gh gw"]:
        size = max(1, (batch or self.config.training.evaluation_batch_images) // settings.num_candidates)
        count = len(prompts) * settings.num_images
        texts = [prompt for prompt in prompts for _ in range(settings.num_images)] + [""] * (-count % size)
        ids, mask = self.encode.encode_texts(texts)
        draw, found = self.decoder(settings), []
        for first in range(0, len(texts), size):
            some = slice(first, first + size)
            keys = place_keys(self.config.seed, first, size)
            found.append(draw({"params": params}, *jax.device_put((ids[some], mask[some])), keys))
        return np.concatenate(jax.device_get(found))[:count]

    def _judged(
        self, judge: Judge, params: dict[str, Any], prompts: Sequence[str], settings: Generation, batch: int | None
    ) -> UInt8[np.ndarray, "N S h w 3"]:
        many = settings.num_images * settings.num_candidates
        drawn = dataclasses.replace(settings, num_images=many, num_candidates=1)
        codes = self._draw_codes(params, prompts, drawn, batch).reshape(
            -1, settings.num_candidates, *self.tokenizer.grid
        )
        asked, chosen = [prompt for prompt in prompts for _ in range(settings.num_images)], []
        size = max(1, JUDGED // settings.num_candidates)
        for first in range(0, len(asked), size):
            some = codes[first : first + size]
            pictures = self.tokenizer.decode(some.reshape(-1, *self.tokenizer.grid))
            texts = [prompt for prompt in asked[first : first + size] for _ in range(settings.num_candidates)]
            best = judge(pictures, texts).reshape(some.shape[:2]).argmax(1)
            chosen.append(pictures.reshape(*some.shape[:2], *pictures.shape[1:])[np.arange(len(best)), best])
        return np.concatenate(chosen).reshape(len(prompts), settings.num_images, *chosen[0].shape[1:])

    def predict(
        self,
        params: dict[str, Any],
        examples: Sequence[Example],
        *,
        prompts: Sequence[str] | None = None,
    ) -> list[Drawn]:
        """Pictures for the first text of every example, or for `prompts` in their place, held against its scene."""
        rows = list(examples)
        texts = [_prompt(example) for example in rows] if prompts is None else list(prompts)
        pictures = self.draw(params, texts, self.config.generation)
        likelihoods = self.log_likelihoods(params, rows, texts)
        gains = [float("nan")] * len(rows)
        if prompts is None and len(rows) > 1:
            exchanged = [texts[place] for place in others(len(texts), self.config.seed)]
            without = self.log_likelihoods(params, rows, exchanged)
            both = zip(texts, exchanged, likelihoods, without, strict=True)
            gains = [float("nan") if one == other else own - its for one, other, own, its in both]
        return [
            Drawn(row.image_id, text, some, check_drawn(row, some), likelihood, gain, row.image)
            for row, text, some, likelihood, gain in zip(rows, texts, pictures, likelihoods, gains, strict=True)
        ]

    def log_likelihoods(self, params: dict[str, Any], examples: Sequence[Example], texts: Sequence[str]) -> list[float]:
        """How well each text fits the picture of its example."""
        size = self.config.training.evaluation_batch_images
        rest = -len(texts) % size
        codes = np.stack([*(example.image for example in examples), *[examples[0].image] * rest])
        ids, mask = self.encode.encode_texts([*texts, *[""] * rest])
        found = [
            self._likelihood(params, *jax.device_put((codes[some], ids[some], mask[some])))
            for some in (slice(first, first + size) for first in range(0, len(codes), size))
        ]
        return np.concatenate(jax.device_get(found))[: len(texts)].tolist()

    def score(self, drawn: Sequence[Drawn]) -> dict[str, float]:
        """How well true pictures are expected and, where it is known what was asked for, how much of it was drawn."""
        return score_drawn(drawn)

    def reach(self, train: Changed, validation: Changed) -> list[str]:
        """The score of true images that went through their codes."""
        return code_reach(validation, self.tokenizer.decode, metric=self.metric)

    def remarks(self, drawn: Sequence[Drawn], metrics: dict[str, float]) -> list[str]:
        """What a person should know of the scores."""
        return remarks_on(drawn, metrics)

    def title(self, metrics: dict[str, float]) -> str:
        """The scores in a few words."""
        if "objects_right" in metrics:
            return f"{metrics['objects_right']:.1%} of the objects right"
        return f"{metrics['log_likelihood']:.2f} nats a code"

    def baselines(
        self,
        params: dict[str, Any],
        examples: Changed,
        train: Changed,
        predictions: Sequence[Drawn],
    ) -> dict[str, float]:
        """Prompts that no training picture has, apart; prompts exchanged between the examples; distances, if wanted."""
        known = {question.text for example in train for question in example.questions}
        new = [row for row in predictions if row.prompt not in known]
        exchanged = [predictions[place].prompt for place in others(len(predictions), self.config.seed)]
        rows = {"unseen_prompts": self.score(new) if new else {}}
        found = {"unseen_prompts/count": float(len(new))} | self._distances(examples, train, predictions)
        if len({row.prompt for row in predictions}) > 1:
            drawn = self.predict(params, examples, prompts=exchanged)
            rows[f"baseline/{self.shuffled}"] = self.score(drawn)
            scores = [[row.score(self.metric) for row in each] for each in (predictions, drawn)]
            found |= shuffled_difference(self.shuffled, self.metric, predictions, *scores)
        return found | {f"{name}/{metric}": value for name, row in rows.items() for metric, value in row.items()}

    def _distances(self, examples: Changed, train: Changed, predictions: Sequence[Drawn]) -> dict[str, float]:
        if self._features is None:
            return {}
        real, known = (
            [self._pixels(example).image for example in some] for some in (examples.unchanged, spread(train.unchanged))
        )
        drawn = [row.pictures[0] for row in predictions]
        decoded = list(self.tokenizer.decode(np.stack([row.codes for row in predictions])))
        rows = {"drawn": drawn, "decoded": decoded, "real": real, "train": known}
        return distances(self._features, **rows, seed=self.config.seed)


def _prompt(example: Example) -> str:
    """A picture of which nothing is said has the empty prompt."""
    return example.questions[0].text if example.questions else ""
