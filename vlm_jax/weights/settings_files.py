"""The settings files that lie beside published weights and travel with them: into an import, out with an export."""

import json
from collections.abc import Mapping
from pathlib import Path

from vlm_jax.errors import InputError
from vlm_jax.files import read_json
from vlm_jax.types import Json

MODULES, SENTENCES = "modules.json", "config_sentence_transformers.json"
TRANSFORMERS = ("sentence_bert_config.json", "sentence_roberta_config.json", "sentence_distilbert_config.json")
POOLING, PREPROCESSOR, PROCESSOR = "1_Pooling/config.json", "preprocessor_config.json", "processor_config.json"
FILES = (MODULES, SENTENCES, *TRANSFORMERS, POOLING, PREPROCESSOR, PROCESSOR)
PATTERNS = (*FILES, "[0-9]_*/config.json")
"""The same on the hub, where sentence-transformers numbers the folders of its modules."""
SUPPORTED_MODULES = ("Transformer", "Pooling", "Normalize", "Dropout")
"""Modules of sentence-transformers without weights of their own, and the encoder."""

SettingsFiles = dict[str, Json]
"""What each file holds, by its path under the folder."""


def read_settings_files(folder: Path) -> SettingsFiles:
    """The files in a folder; `InputError` where one is no JSON, or a module computes what is not ported.

    An encoder in a folder of its own, as old sentence-transformers keep it (`0_Transformer`), has them one folder up.
    """
    root = folder.parent if folder.name in _folders(folder.parent, "Transformer") else folder
    names = dict.fromkeys([*FILES, *(f"{name}/config.json" for name in _folders(root, "Pooling", "Normalize"))])
    contents = {
        name: read_json(path) for name in names for path in (root / name, folder / name)[::-1] if path.is_file()
    }
    if MODULES in contents:
        contents[MODULES] = [_at_home(module, root / MODULES) for module in _modules(contents[MODULES], root / MODULES)]
    return contents


def write_settings_files(settings_files: Mapping[str, Json], folder: Path) -> None:
    """Write the files under a folder."""
    for name, value in settings_files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def kind_of(module: Mapping[str, Json]) -> str:
    """The class of an entry of modules.json, without the package that it moved between."""
    return str(module.get("type")).rpartition(".")[2]


def _folders(root: Path, *kinds: str) -> list[str]:
    """The folders that modules.json gives modules of some kinds; names that would leave the folder do not count."""
    path = root / MODULES
    modules = _modules(read_json(path), path) if path.is_file() else []
    names = [module["path"] for module in modules if kind_of(module) in kinds]
    return [name for name in names if name and Path(name).name == name]


def _modules(value: Json, path: Path) -> list[dict[str, Json]]:
    shaped = isinstance(value, list) and all(
        isinstance(module, dict) and isinstance(module.get("path"), str) for module in value
    )
    if not shaped:
        raise InputError(f"{path} lists no modules; expected a list of objects with type and path")
    return value


def _at_home(module: dict[str, Json], path: Path) -> dict[str, Json]:
    """The entry with the encoder beside the file, where an import and an export have it."""
    kind = kind_of(module)
    if kind not in SUPPORTED_MODULES:
        raise InputError(
            f"{path} names {module.get('type')!r} in {module['path']!r}, which is not ported; supported are "
            f"{', '.join(SUPPORTED_MODULES)}; take its entry out of the file to port the encoder without it"
        )
    if module.get("kwargs"):
        raise InputError(f"{path} says kwargs = {module['kwargs']!r}, which is not supported; expected none")
    return module | {"path": ""} if kind == "Transformer" else module
