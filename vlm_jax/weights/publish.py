"""A folder for other people: an export with the files around it and a model card, as `hf upload` takes it."""

import dataclasses
import logging
from pathlib import Path

import numpy as np

from vlm_jax.data.tokenizer_settings import read_settings
from vlm_jax.trees import compare_trees, flatten, unflatten
from vlm_jax.types import Parameters
from vlm_jax.weights.checks import Check, verdict
from vlm_jax.weights.converted_model import ConvertedModel, shapes
from vlm_jax.weights.export import export
from vlm_jax.weights.model_card import CARD, model_card
from vlm_jax.weights.preprocessor import write_preprocessor
from vlm_jax.weights.sentences import sentence_settings, write_sentence_settings
from vlm_jax.weights.settings_files import MODULES, PREPROCESSOR, PROCESSOR, SettingsFiles
from vlm_jax.weights.verify import verify_export

_logger = logging.getLogger(__name__)


def publish(converted: ConvertedModel, folder: Path, *, params: Parameters | None = None, prove: bool = True) -> None:
    """Write a new folder that transformers and sentence-transformers load, with a model card.

    `params` are the model's where they were trained; else they are the port's. The card holds the proof: every output
    beside that of transformers, which loads the folder. Without `prove` it says that nothing was compared. Raises
    `InputError` for parameters that do not fit the model or are not finite, before anything is written.
    """
    # In float32, whatever the model computes in.
    model = dataclasses.replace(converted, settings_files=_settings_files(converted), dtype=None)
    if params is not None:
        model = dataclasses.replace(model, params=_fitting(params, converted))
    export(model, folder)
    checks: list[Check] = list(verify_export(model, folder)) if prove else []
    if checks and (result := verdict(checks))[1]:
        _logger.warning("%s: %s; see %s", folder, result[0], CARD)
    card = model_card(model, folder.name, trained=_changed(model, converted), checks=checks)
    (folder / CARD).write_text(card, encoding="utf-8")


def _fitting(params: Parameters, converted: ConvertedModel) -> Parameters:
    """The parameters as float32 on the host; `InputError` where they are not those of the model."""
    leaves = unflatten({path: np.asarray(leaf, np.float32) for path, leaf in flatten(params).items()})
    compare_trees(leaves, unflatten(shapes(converted.architecture)), what="parameters")
    return leaves


def _changed(model: ConvertedModel, converted: ConvertedModel) -> int:
    """Numbers that differ from the port's."""
    ported = flatten(converted.params)
    return sum(int((leaf != np.asarray(ported[path])).sum()) for path, leaf in flatten(model.params).items())


def _settings_files(converted: ConvertedModel) -> SettingsFiles:
    """The files around the weights: the source's, and where it has none such, those that say what is computed here."""
    files, architecture, family = converted.settings_files, converted.architecture, converted.family
    if architecture.input is not None:
        own = {} if {PREPROCESSOR, PROCESSOR} & files.keys() else write_preprocessor(architecture.input)
        return own | files
    is_trunk = family.class_of(architecture) == family.trunk and not architecture.sees and not architecture.is_decoder
    if MODULES in files or not converted.tokenizer or not is_trunk:
        return files
    width, positions = architecture.model.hidden_size, architecture.model.max_position_embeddings
    settings = sentence_settings(files, width, read_settings(converted.tokenizer[0].parent).longest)
    longest = min(filter(None, (settings.longest, positions - architecture.model.first_position)))
    return write_sentence_settings(settings._replace(longest=longest), width) | files
