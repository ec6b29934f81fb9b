"""The forward pass of a published model: texts, images or arrays in, outputs under transformers' names."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NotRequired, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from vlm_jax.config.architecture import Architecture
from vlm_jax.data.settings import MAX_PIXELS
from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.errors import InputError, one_of, shown
from vlm_jax.inference.images import ImageProcessor, Images, as_images, as_pairs, as_texts, grid_features
from vlm_jax.inference.model import Model
from vlm_jax.models.blip import AnswerOutput, CaptionOutput, RetrievalOutput
from vlm_jax.models.dual_encoder import DualEncoderOutput
from vlm_jax.models.git import GitOutput
from vlm_jax.models.ids import check_ids
from vlm_jax.models.pretrained import PretrainedModel, check_text
from vlm_jax.models.pretrained_output import ImageClassifierOutput, PretrainedOutput
from vlm_jax.models.vit_heads import PretrainedImageOutput, PretrainedImageTransformer
from vlm_jax.types import Parameters
from vlm_jax.weights.converted_model import ConvertedModel
from vlm_jax.weights.text_encoder import bucket_length

if TYPE_CHECKING:
    from vlm_jax.models.nnx_module import ToNNX

TEXT_INPUTS = ("input_ids", "text_mask", "segments")
IMAGE_INPUTS = ("image", "image_mask", "image_segments")
AnyArray = jax.Array | np.ndarray
Arrays = Mapping[str, AnyArray]
ENCODED = (Mapping, np.ndarray, jax.Array)
"""Types of what is no text any more."""
ImageTextOutput = CaptionOutput | AnswerOutput | RetrievalOutput | GitOutput
Output = PretrainedOutput | PretrainedImageOutput | ImageClassifierOutput | DualEncoderOutput | ImageTextOutput


class Inputs(TypedDict):
    """What a model takes besides its texts."""

    pairs: NotRequired[str | Sequence[str] | None]
    """The second text of each, where a text is a pair."""
    images: NotRequired[Images | Float[np.ndarray, "B G C"] | None]
    """Images of an image encoder; grid features [G, C] of VisualBERT, one array a text."""
    visual_token_type_ids: NotRequired[Int[np.ndarray, "B G"] | Sequence[Sequence[int]] | None]
    """Token types of VisualBERT's grid features; 1 where they are left out."""
    length: NotRequired[int | None]
    """Tokens of every text: longer ones lose their end, shorter ones are padded. Without it the longest decides."""


class ForwardModel(Model):
    """A published model that computes its outputs: `model(texts)`."""

    def __init__(
        self, converted: ConvertedModel, params: Parameters | None = None, tokenizer: Tokenizer | None = None
    ) -> None:
        """`params` and `tokenizer` are those of `converted` where they are loaded already."""
        self.converted, self.source, self.module = converted, converted.origin.source, converted.module
        self.config = converted.architecture
        self.params = jax.device_put(converted.params) if params is None else params
        if converted.architecture.input is not None:
            self.processor = ImageProcessor(converted.architecture.input, max_pixels=MAX_PIXELS)
        if tokenizer is not None:
            self.tokenizer = tokenizer
        self._forward = jax.jit(self._apply, static_argnames=("output_hidden_states", "output_attentions"))

    def __call__(
        self,
        texts: str | Sequence[str] | Arrays | AnyArray | None = None,
        *,
        params: Parameters | None = None,
        keys: Key[Array, ""] | Key[Array, " B"] | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        **inputs: Unpack[Inputs],
    ) -> Output:
        """Outputs of texts, of token ids [B, T], or of what `encode` returned; they have transformers' names.

        A key switches dropout on: one for the batch, or one an example. `params` stand in the place of `model.params`.
        Texts without `length` are computed at one of a few lengths, so that few programs are compiled; outputs have the
        length of the longest text.
        """
        arrays = self._arrays(texts, inputs)
        are_encoded = isinstance(texts, ENCODED) or self.config.is_image_encoder
        length = None if are_encoded or inputs.get("length") is not None else arrays["input_ids"].shape[1]
        if not isinstance(self.module, PretrainedModel) and keys is not None:
            raise InputError(f"the image encoder {self.source} has no dropout; leave keys out")
        is_cnn = not isinstance(self.module, (PretrainedModel, PretrainedImageTransformer))
        if is_cnn and (output_hidden_states or output_attentions):
            raise InputError(f"{self.source} is a CNN, without hidden states and attentions; leave both out")
        params = self.params if params is None else params
        options = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
        if length is not None:
            return self._forward(params, self._padded(arrays), keys, **options).cut(length)
        return self._forward(params, arrays, keys, **({} if is_cnn else options))

    def encode(self, texts: str | Sequence[str] | None = None, **inputs: Unpack[Inputs]) -> Arrays:
        """The arrays that `model.module` takes, by its arguments' names: `model.module.apply(variables, **arrays)`."""
        pairs, images = inputs.get("pairs"), inputs.get("images")
        if self.config.is_image_encoder:
            if texts is not None or pairs is not None:
                raise InputError(f"{self.source} is an image encoder and reads no texts; give images=...")
            if images is None:
                raise InputError(f"{self.source} is an image encoder; give images=...")
            return {"image": np.stack([self.processor(image) for image in as_images(images)])}
        arrays = self._encode_texts(texts, pairs, inputs.get("length"))
        if images is None and inputs.get("visual_token_type_ids") is None:
            return arrays
        if not self.config.sees:
            raise InputError(f"{self.source} is a text encoder; leave images and visual_token_type_ids out")
        return arrays | self._encode_grids(images, inputs.get("visual_token_type_ids"), len(arrays["input_ids"]))

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer that lies beside the weights, read when it is first used; None where there is none."""
        return Tokenizer.load(self.converted.tokenizer[0].parent) if self.converted.tokenizer else None

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the arrays that the module takes."""
        return ("image",) if self.config.is_image_encoder else TEXT_INPUTS + IMAGE_INPUTS

    @property
    def _text_settings(self) -> Architecture:
        """Tables and layers of texts."""
        return self.config.model

    def to_nnx(self) -> "ToNNX":
        """The module with its parameters as a module of Flax NNX."""
        from vlm_jax.models.nnx_module import to_nnx  # here: NNX takes half a second to import

        return to_nnx(self.module, self.params)

    def _apply(self, params: Parameters, arrays: Arrays, keys: Key[Array, "..."] | None, **options: bool) -> Output:
        return self.module.apply({"params": params}, **arrays, **({} if keys is None else {"keys": keys}), **options)

    def _arrays(self, texts: str | Sequence[str] | Arrays | AnyArray | None, inputs: Inputs) -> Arrays:
        """The arguments of the module."""
        if not isinstance(texts, ENCODED):
            return self.encode(texts, **inputs)
        if inputs:
            raise InputError(f"arrays came, so leave out {', '.join(inputs)}; model.encode takes them")
        arrays = texts if isinstance(texts, Mapping) else {"input_ids": texts}
        arrays = {name: jnp.asarray(array) for name, array in arrays.items()}
        names = self.input_names
        if unknown := [name for name in arrays if name not in names]:
            raise InputError(f"the model {self.source} has no input {unknown[0]!r}; {one_of(names)}")
        if names[0] not in arrays:
            raise InputError(f"the model {self.source} needs the array {names[0]!r}")
        if not self.config.is_image_encoder:
            ids = arrays["input_ids"]
            if ids.ndim != 2 or ids.dtype.kind not in "iu":
                raise InputError(f"input_ids are {ids.dtype}{list(ids.shape)}; expected whole numbers [texts, tokens]")
            check_text(self._text_settings, ids, arrays.get("segments"))  # compiled, nothing is checked
        return arrays

    def _padded(self, arrays: Arrays) -> Arrays:
        """The arrays of texts at one of a few lengths."""
        model, length = self._text_settings, arrays["input_ids"].shape[1]
        free = bucket_length(length, model.max_position_embeddings - model.first_position) - length
        fills = {"input_ids": self.tokenizer.pad_id, "text_mask": False, "segments": 0}
        names = fills.keys() & arrays.keys()
        padded = {name: np.pad(arrays[name], ((0, 0), (0, free)), constant_values=fills[name]) for name in names}
        return {**arrays, **padded}

    def _encode_texts(
        self, texts: str | Sequence[str] | None, pairs: str | Sequence[str] | None, length: int | None
    ) -> Arrays:
        if self.tokenizer is None:
            raise InputError(f"no tokenizer lies beside {self.source}; give token ids: model({{'input_ids': ids}})")
        if texts is None:
            raise InputError(f"{self.source} is a text encoder; give texts")
        listed = as_texts(texts, "text")
        seconds = as_pairs(pairs, listed)
        model, frame = self._text_settings, 2 if seconds is None else 3 + self.tokenizer.doubles_sep
        most = model.max_position_embeddings - model.first_position
        counts = [list(map(len, self.tokenizer.tokens(side))) for side in (listed, seconds or [""] * len(listed))]
        needed = [sum(row) + frame for row in zip(*counts, strict=True)]
        if length is None:
            length = max(needed)
            if length > most:
                text = shown(listed[needed.index(length)])
                raise InputError(f"the text {text} needs {length} positions; there are {most}: give length={most}")
        elif not frame < length <= most:
            raise InputError(f"length is {length}; expected {frame + 1} to {most} tokens")
        if seconds is None:
            input_ids, mask = self.tokenizer.encode(listed, length)
            segments = np.zeros_like(input_ids)
        else:
            input_ids, mask, segments = self.tokenizer.encode_pairs(listed, seconds, length)
        arrays = {"input_ids": input_ids, "text_mask": mask}
        arrays |= {"segments": segments} if model.type_vocab_size > 1 else {}
        check_text(model, input_ids)
        return arrays

    def _encode_grids(
        self, images: Images | None, types: Int[np.ndarray, "B G"] | Sequence[Sequence[int]] | None, count: int
    ) -> Arrays:
        """Grid features [B, G, C], padded to the longest, with their mask and token types."""
        if images is None:
            raise InputError("visual_token_type_ids came without images; give images=...")
        is_batch = isinstance(images, np.ndarray) and images.ndim == 3
        size = self.config.model.image.feature_size
        grids = [grid_features(image, (None, size)) for image in (list(images) if is_batch else as_images(images))]
        if len(grids) != count:
            raise InputError(f"{count} texts and {len(grids)} images came; give one image for each text")
        longest = max(map(len, grids))
        mask = np.arange(longest) < np.array([len(grid) for grid in grids])[:, None]
        padded = np.stack([np.pad(grid, ((0, longest - len(grid)), (0, 0))) for grid in grids])
        arrays = {"image": padded, "image_mask": mask}
        if types is None:
            return arrays
        segments = np.asarray(types)
        if segments.shape != mask.shape or segments.dtype.kind not in "iu":
            expected = f"whole numbers {list(mask.shape)}, one for each grid feature"
            raise InputError(f"visual_token_type_ids are {segments.dtype}{list(segments.shape)}; expected {expected}")
        check_ids(segments, self.config.model.modality_type_vocab_size, "visual token type")
        return arrays | {"image_segments": segments.astype(np.int32)}
