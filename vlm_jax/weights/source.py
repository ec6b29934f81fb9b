"""Where pretrained weights come from: files, folders, hub repositories, installed packages, or any of these by name.

Tensors are read from safetensors, and those of a DINOv2 from ONNX. Nothing in a source is trusted: names of shards may
not leave the folder, sizes are those of the file and not what a header claims, and pickles are refused before they are
opened.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import ml_dtypes  # safetensors needs it to give bfloat16
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vlm_jax.data.joined_zip import package_path
from vlm_jax.data.unigram import MODELS, refuse_model_alone
from vlm_jax.errors import InputError, one_of
from vlm_jax.files import read_settings_file, sha256, text_sha256
from vlm_jax.integrity import MANIFEST
from vlm_jax.invocation import command_name
from vlm_jax.packages import PREFIX
from vlm_jax.run_folder import VOCABULARIES
from vlm_jax.text_lines import first_line
from vlm_jax.types import Json
from vlm_jax.weights.onnx_dinov2 import read_dinov2
from vlm_jax.weights.onnx_file import SUFFIX as ONNX
from vlm_jax.weights.onnx_file import OnnxGraph
from vlm_jax.weights.published_sets import PREFIX as PUBLISHED
from vlm_jax.weights.published_sets import ways_of
from vlm_jax.weights.settings_files import PATTERNS as SETTINGS_PATTERNS

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
TOKENIZER_FILES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json",
)  # fmt: skip
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
INTEGER_TYPES = ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8")
FLOATS = {"F32": np.dtype("float32"), "F16": np.dtype("float16"), "BF16": np.dtype(ml_dtypes.bfloat16)}
TYPES = FLOATS | {"F64": np.dtype("float64"), "BOOL": np.dtype("bool")}
TYPES |= {f"{kind[0].upper()}{8 * np.dtype(kind).itemsize}": np.dtype(kind) for kind in INTEGER_TYPES}
INTEGERS = ("I64", "I32")  # counters and buffers, which no model needs


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file, unread."""

    file: Path
    shape: tuple[int, ...]
    dtype: str
    """As safetensors names it: F32, F16, BF16, I64, ..."""
    name: str
    """Its name in the file."""
    place: slice
    """Its bytes in the file."""


def _header(content: np.ndarray) -> tuple[int, dict[str, Json]]:
    """Where the tensors begin, and what the header says of each; the file is intact."""
    begin = 8 + int.from_bytes(content[:8].tobytes(), "little")
    header = json.loads(content[8:begin].tobytes())
    header.pop("__metadata__", None)
    return begin, header


class Tensors(Mapping[str, Tensor]):
    """The tensors of one or several safetensors files by name; each is read when asked for, through a memory map."""

    def __init__(self, files: list[Path]) -> None:
        self._maps: dict[Path, np.ndarray] = {}
        self._tensors: dict[str, Tensor] = {}
        for file in files:
            try:
                safe_open(str(file), framework="numpy")  # refuses a header that does not fit the file
                self._add(file, np.asarray(np.memmap(file, np.uint8, "r")))
            except (SafetensorError, OSError, ValueError) as error:
                raise InputError(f"{file} is no intact safetensors file: {error}") from None

    @classmethod
    def of(cls, file: Path, arrays: Mapping[str, np.ndarray]) -> "Tensors":
        """Arrays that were read from a file of another format."""
        tensors = cls([])
        content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        tensors._add(file, np.frombuffer(content, np.uint8))
        return tensors

    def _add(self, file: Path, content: np.ndarray) -> None:
        """The tensors of one file, whose bytes are those of an intact safetensors file."""
        self._maps[file] = content
        begin, header = _header(content)
        for name, entry in header.items():
            if name in self._tensors:
                raise InputError(f"{file} and {self._tensors[name].file} both hold {name!r}")
            place = slice(*(begin + offset for offset in entry["data_offsets"]))
            self._tensors[name] = Tensor(file, tuple(entry["shape"]), entry["dtype"], name, place)

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self):
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def read(self, name: str) -> np.ndarray:
        """The tensor; floats as float32, whose values hold those of float16 and bfloat16 exactly."""
        tensor = self[name]
        if tensor.dtype not in (*FLOATS, *INTEGERS):
            raise InputError(f"{name!r} in {tensor.file} is of type {tensor.dtype}; {one_of(FLOATS)}")
        array = self.raw(name)
        return array.astype(np.float32, copy=False) if tensor.dtype in FLOATS else array

    def raw(self, name: str) -> np.ndarray:
        """The tensor in the type that it has in the file; a view of the file that cannot be written to."""
        tensor = self[name]
        if tensor.dtype not in TYPES:
            raise InputError(f"{name!r} in {tensor.file} is of type {tensor.dtype}; {one_of(TYPES)}")
        return self._maps[tensor.file][tensor.place].view(TYPES[tensor.dtype]).reshape(tensor.shape)

    def renamed(self, names: Mapping[str, str]) -> "Tensors":
        """Of these tensors those that `names` has, new names to old ones."""
        view = Tensors([])
        view._maps = self._maps
        view._tensors = {new: self._tensors[old] for new, old in names.items()}
        return view


class Changes(NamedTuple):
    """What was done to the names of a file before it was ported."""

    strip_prefix: str = ""
    """The prefix that was taken off."""
    stripped: int = 0
    """Names that had it."""
    drop_tensors: str = ""
    """The regular expression of names that were left out; empty where they are all that is no encoder."""
    dropped: tuple[str, ...] = ()
    """These names, without the prefix."""
    warnings: tuple[str, ...] = ()
    """What a port without them does not compute."""

    def lines(self) -> list[str]:
        """The record for people; empty where nothing was done."""
        lines = [f"prefix {self.strip_prefix} stripped from {self.stripped} names"] if self.stripped else []
        if self.dropped:
            by = f" by {self.drop_tensors}" if self.drop_tensors else ""
            lines.append(f"{len(self.dropped)} tensors dropped{by}: {', '.join(self.dropped)}")
        return lines + [f"warning: {line}" for line in self.warnings]


NO_CHANGES = Changes()


@dataclass(frozen=True)
class Source:
    """Pretrained weights as somebody published them."""

    name: str
    """What was asked for."""
    folder: Path
    tensors: Tensors
    config: dict[str, Json]
    """What its config.json says; empty where there is none."""
    revision: str | None
    """The commit of a hub repository."""
    sha256: str
    """Of the file; where there are several, of the list of their digests and names."""
    changes: Changes = NO_CHANGES
    """What `tensor_names.renamed` did to the names."""

    def tokenizer_files(self) -> list[Path]:
        """The tokenizer's files that lie beside the weights; `InputError` for a SentencePiece model alone."""
        refuse_model_alone(self.folder)
        return [self.folder / name for name in TOKENIZER_FILES if (self.folder / name).is_file()]


def new_folder(path: Path) -> Path:
    """The folder, made; `InputError` where something is there already."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} is there already; give another --output")
    path.mkdir(parents=True, exist_ok=True)
    return path


def open_source(name: str) -> Source:
    """The weights at a folder, a file, `package:NAME/folder`, a hub id (`owner/name@revision`) or `published:NAME`.

    Raises `InputError` where there are none, or only pickles.
    """
    name = first_way(name)
    path, revision = locate(name)
    if path.suffix == ONNX and path.is_file():
        return _open_onnx(name, path)
    files = _weight_files(path)
    folder = path if path.is_dir() else path.parent
    digests = {file.name: _file_sha256(file) for file in files}
    listed = "".join(f"{digest}  {file}\n" for file, digest in sorted(digests.items()))
    digest = next(iter(digests.values())) if len(digests) == 1 else text_sha256(listed)
    return Source(name, folder, Tensors(files), read_settings_file(folder / CONFIG), revision, digest)


def _open_onnx(name: str, path: Path) -> Source:
    """The encoder of an ONNX file; the rest is left out, and what its names had before them taken off."""
    encoder = read_dinov2(OnnxGraph(path))
    changes = Changes(encoder.prefix, len(encoder.tensors) if encoder.prefix else 0, "", encoder.left)
    beside = read_settings_file(path.parent / CONFIG)
    for key in encoder.config.keys() & beside.keys() - {"architectures"}:
        if beside[key] != encoder.config[key]:
            raise InputError(
                f"{key} is {beside[key]} in {path.parent / CONFIG} and {encoder.config[key]} in {path.name}"
            )
    config = encoder.config | beside
    return Source(name, path.parent, Tensors.of(path, encoder.tensors), config, None, _file_sha256(path), changes)


def first_way(name: str) -> str:
    """The source that `published:NAME` stands for, the first of its ways that is there; another name as it is.

    Raises `InputError` that names all ways, and files that are not the published ones, where none is there.
    """
    if not name.startswith(PUBLISHED):
        return name
    ways, other_files = ways_of(name), []
    for way in ways:
        try:
            path, _ = locate(way.source)
        except InputError:
            continue
        file = path / WEIGHTS if path.is_dir() else path
        if file.is_file() and _file_sha256(file) == way.sha256:
            return way.source
        other_files.append(f"{file} is not the published file (sha256 {way.sha256}); ")  # as of another version
    raise InputError(f"{name} is not here: {''.join(other_files)}{', or '.join(way.how for way in ways)}")


def _file_sha256(file: Path) -> str:
    """The SHA-256 of a file; a process computes it anew only where its size or time is another one."""
    state = file.stat()
    return _sha256_of_state(file.absolute(), state.st_size, state.st_mtime_ns)


@cache
def _sha256_of_state(file: Path, size: int, modified_ns: int) -> str:
    return sha256(file)


def locate(name: str) -> tuple[Path, str | None]:
    """Where a source lies on this machine, and its commit where it comes from the hub."""
    name = first_way(name)
    if name.startswith(PREFIX):
        return package_path(name), None
    path = as_path(name)
    if path.exists():
        return path, None
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?", name) and not name.endswith(PICKLES):
        return _from_hub(name)
    raise InputError(f"no weights at {name!r}: no such file or folder, and no hub id such as owner/name@revision")


def as_path(name: str) -> Path:
    """The path that a name is; `InputError` where no file system could have it."""
    try:
        path = Path(name).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:  # too long, not to be entered, the home of nobody
        raise InputError(f"no weights at {name!r}: {getattr(error, 'strerror', None) or error}") from None
    return path


def _weight_files(path: Path) -> list[Path]:
    if path.is_file():
        if path.suffix in PICKLES:
            raise InputError(_refused(path))
        if path.suffix != ".safetensors":
            raise InputError(
                f"{path} is no .safetensors file and no {ONNX} file; give one, or a folder that holds {WEIGHTS}"
            )
        return [path]
    if (path / WEIGHTS).is_file():
        return [path / WEIGHTS]
    if (path / INDEX).is_file():
        return _shards(path)
    if not path.is_dir():
        raise InputError(f"{path} is neither a file nor a folder")
    files = sorted(entry for entry in path.iterdir() if entry.is_file())
    pickles = [entry for entry in files if entry.suffix in PICKLES]
    if pickles:
        raise InputError(_refused(pickles[0]))
    single = [entry for entry in files if entry.suffix == ".safetensors"]
    if len(single) == 1:
        return single
    raise InputError(f"{path} holds no weights; expected {WEIGHTS}, or {INDEX} and its shards")


def _refused(path: Path) -> str:
    return (
        f"{path} is a pickle, which can run anything when it is opened; convert it first: "
        f"{command_name('port')} convert {path} --output {path.with_name(WEIGHTS)}"
    )


def _shards(folder: Path) -> list[Path]:
    index = folder / INDEX
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError, OSError, RecursionError) as error:
        raise InputError(f"{index} is no index of shards: {type(error).__name__} {error}") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise InputError(f"{index} names the shard {name!r}; expected .safetensors files in the same folder")
        try:
            exists = (folder / name).is_file()
        except OSError:  # the name is too long
            exists = False
        if not exists:
            raise InputError(f"{index} names {name!r}, which is not there")
    return [folder / name for name in names]


def _from_hub(name: str) -> tuple[Path, str]:
    """The repository's weights, config and tokenizer, from the local cache where they are there, and the commit."""
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    patterns = [CONFIG, WEIGHTS, INDEX, "model-*.safetensors", *TOKENIZER_FILES, *SETTINGS_PATTERNS]
    patterns += [*MODELS, MANIFEST, *VOCABULARIES]  # the last two of a model that `save_pretrained` wrote
    wanted = {"revision": revision or None, "allow_patterns": patterns}
    try:
        path = snapshot_download(repository, local_files_only=True, **wanted)
    except Exception:  # the hub's client answers with a dozen kinds of errors; not in the cache is one of them
        try:
            path = snapshot_download(repository, etag_timeout=10, **wanted)
        except Exception as error:
            raise InputError(f"no weights at {name!r}, and the hub does not give it: {first_line(error)}") from None
    return Path(path), Path(path).name
