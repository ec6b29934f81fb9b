"""Archives and parquet files that are damaged, or made to do harm: one line each, and nothing outside is touched."""

import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vlm_jax.data.images import read_image_file
from vlm_jax.data.sources import open_split
from vlm_jax.data.user_files.dataset import read_split
from vlm_jax.data.user_files.table import TableCaptions
from vlm_jax.errors import InputError


def png(colour="red"):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(file, "PNG")
    return file.getvalue()


def archive_of(path, *members, **options):
    """An archive of members: a name with its content, or a `TarInfo` without any."""
    with tarfile.open(path, "w", **options) as archive:
        for member in members:
            is_info = isinstance(member, tarfile.TarInfo)
            info, content = (member, b"") if is_info else (tarfile.TarInfo(member[0]), member[1])
            info.size = info.size or len(content)
            archive.addfile(info, io.BytesIO(content) if content else None)
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def read(path):
    splits = dict.fromkeys(("train", "validation", "test"), (path,))
    return read_split(TableCaptions(directory=path.parent / "kept", bad_rows="skip", **splits), "train")


GOOD = (("good.png", png()), ("good.txt", b"a good one"))


@pytest.mark.parametrize(
    ("kind", "target"),
    [(tarfile.SYMTYPE, "/etc/passwd"), (tarfile.LNKTYPE, "good.png"), (tarfile.CHRTYPE, ""), (tarfile.FIFOTYPE, ""),
     (tarfile.DIRTYPE, "")],
)  # fmt: skip
def test_links_and_devices_are_no_images(tmp_path, kind, target):
    reading = read(archive_of(tmp_path / "a.tar", special("bad.png", kind, target), ("bad.txt", b"x"), *GOOD))
    ((_, place, reason),) = reading.bad_rows
    assert place == "bad" and ("0 images" if kind == tarfile.DIRTYPE else "no regular file") in reason
    assert [example.image_id for example in reading.examples] == ["a.tar/good.png"]


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "a/../../evil", "C:\\evil", "evil\x01"])
def test_names_are_never_paths(tmp_path, name):
    (tmp_path / "in").mkdir()
    path = archive_of(tmp_path / "in" / "a.tar", (f"{name}.png", png("blue")), (f"{name}.txt", b"x"))
    (example,) = read(path).examples
    assert example.image_id == f"a.tar/{name}.png" and example.image.file == path.absolute()
    assert sorted(entry.name for entry in tmp_path.rglob("*") if entry.is_file() and "evil" in entry.name) == []


def test_keys_that_lack_a_part(tmp_path):
    members = {"a.png": png(), "b.txt": b"no image", "c.png": png(), "c.jpg": png(), "d.png": png(), "d.json": b"[1",
               "e.png": png(), "e.txt": b"\xff", "f.png": b"no image", "f.txt": b"f"}  # fmt: skip
    reading = read(archive_of(tmp_path / "a.tar", *members.items()))
    reasons = {
        "a": "'captions' is missing",
        "b": "0 images",
        "c": "2 images",
        "d": "not JSON",
        "e": "e.txt is not UTF-8",
    }
    assert {row.place for row in reading.bad_rows} == reasons.keys()
    assert all(reasons[row.place] in row.reason for row in reading.bad_rows)
    assert [example.image_id for example in reading.examples] == ["a.tar/f.png"]


def damaged_sizes():
    """Archives with an absurd size in a header, with its checksum put right."""
    for field in (b"77777777777\0", b"\x80" + b"\x7f" * 11, b"\xff" * 12, b"-0000000100\0"):
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("a.png"))
        data = bytearray(content.getvalue())
        data[124:136] = field
        data[148:156] = b" " * 8
        data[148:156] = b"%06o\0 " % sum(data[:512])
        yield bytes(data)


def test_absurd_sizes_end_the_archive(tmp_path):
    for number, data in enumerate(damaged_sizes()):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"cut short|damaged tar"):
            read(path)


def test_sparse_files_and_packed_archives_are_refused(tmp_path):
    sparse = archive_of(tmp_path / "sparse.tar", special("a.png", tarfile.GNUTYPE_SPARSE))
    with pytest.raises(InputError, match="sparse"):
        read(sparse)
    pax = tarfile.TarInfo("a.png")
    pax.pax_headers = {"GNU.sparse.major": "1"}
    with pytest.raises(InputError, match="sparse"):
        read(archive_of(tmp_path / "pax.tar", pax, format=tarfile.PAX_FORMAT))
    for name, mode in (("a.tar.gz", "w:gz"), ("b.tar", "w:gz")):
        with tarfile.open(tmp_path / name, mode):
            pass
        with pytest.raises(InputError, match="gzip"):
            read(tmp_path / name)
    for name, head in (("a.csv", b"\xff\xfea\0"), ("b.csv", b"PK\x03\x04")):
        (tmp_path / name).write_bytes(head)
        with pytest.raises(InputError, match=r"UTF-16|Excel"):
            read(tmp_path / name)


def test_a_shard_that_changes_after_it_was_read(tmp_path):
    path = archive_of(tmp_path / "a.tar", *GOOD)
    (example,) = read(path).examples
    path.write_bytes(path.read_bytes()[:520])
    with pytest.raises(InputError, match=r"a\.tar is cut short"):
        read_image_file(example.image)


def parquet(path, **columns):
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


FILES = {
    "rows.tar": lambda path: archive_of(path, *GOOD, ("x.png", png("blue")), ("x.json", b'{"caption": "x"}')),
    "rows.parquet": lambda path: parquet(path, image=[png(), png("blue"), png("green")], text=["a", "b", "c"]),
    "paths.parquet": lambda path: parquet(path, image=["a.png", "b.png"], text=["a", "b"]),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_cut_short_is_refused(tmp_path, name):
    data = FILES[name](tmp_path / name).read_bytes()
    end = len(data.rstrip(b"\0"))
    for share in (0.1, 0.3, 0.5, 0.9):
        (tmp_path / name).write_bytes(data[: int(end * share)])
        with pytest.raises(InputError, match=r"cut short|no whole parquet"):
            read(tmp_path / name)
    assert not any((tmp_path / "kept").rglob("*.part"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(list(FILES)), changes=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=4))
def test_flipped_bytes_give_no_traceback(tmp_path, name, changes):
    original = tmp_path / f"original-{name}"
    data = bytearray(original.read_bytes() if original.exists() else FILES[name](original).read_bytes())
    for share, flip in changes:
        data[int(share * (len(data) - 1))] ^= flip
    (tmp_path / name).write_bytes(bytes(data))
    try:
        read(tmp_path / name)
    except InputError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "columns",
    [
        {"image": ["a.png"], "text": [b"a"]},
        {"image": ["a.png"], "text": [{"bytes": b"a"}]},
        {"image": [png()], "text": [b"a"]},
        {"image": [{"bytes": "no bytes", "path": "a.png"}], "text": ["a"]},
        {"image": [{"bytes": None, "path": b"a.png"}], "text": ["a"]},
    ],
)
def test_bytes_where_text_should_be_and_text_where_bytes_should_be(tmp_path, columns):
    path = parquet(tmp_path / "rows.parquet", **columns)
    try:
        reading = read(path)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert reading.examples == () and len(reading.bad_rows) == 1


def test_parquet_made_to_fill_the_memory(tmp_path):
    """A few kilobytes that are a million rows."""
    path = tmp_path / "bomb.parquet"
    pq.write_table(pa.table({"image": ["a.png"] * 1_000_000, "text": ["a"] * 1_000_000}), path)
    with pytest.raises(InputError, match=r"bytes and declares 1,000,000 rows"):
        read(path)


def test_labels_and_columns_that_do_not_fit(tmp_path):
    features = {"info": {"features": {"text": {"names": ["cat"], "_type": "ClassLabel"}}}}
    table = pa.table({"image": [png(), png("blue"), None], "text": [0, 7, 0]})
    for metadata, bad in ((json.dumps(features), {"row 2", "row 3"}), ("[", {"row 3"}), ("[1]", {"row 3"})):
        pq.write_table(table.replace_schema_metadata({"huggingface": metadata}), tmp_path / "rows.parquet")
        assert {row.place for row in read(tmp_path / "rows.parquet").bad_rows} == bad
    for columns in ({"image": [[0.5]], "text": ["a"]}, {"image": ["a"], "other": [1]}, {"other": [1]}):
        pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
        try:
            assert read(tmp_path / "rows.parquet").examples == ()
        except InputError as error:
            assert "rows.parquet" in str(error)


def test_one_missing_folder_is_one_line(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.png").write_bytes(png())
    names = [*(f"gone/{number}.png" for number in range(500)), "there/a.png", *(f"there/{n}.png" for n in range(20))]
    (tmp_path / "rows.csv").write_text("image,caption\n" + "".join(f"{name},a\n" for name in names), encoding="utf-8")
    reading = read(tmp_path / "rows.csv")
    assert len(reading.examples) == 1 and len(reading.bad_rows) == 21
    assert "500 images" in reading.bad_rows[0].reason and reading.bad_rows[0].place == 2


def test_a_quote_that_never_closes_names_what_is_lost(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    lines = ["image,caption", "a.png,one", 'a.png,"two', *["a.png,three"] * 5]
    (tmp_path / "rows.csv").write_text("\n".join(lines), encoding="utf-8")
    ((_, place, reason),) = read(tmp_path / "rows.csv").bad_rows
    assert place == 3 and "lines 3 to 8" in reason


def test_nothing_usable_says_the_reason_first(tmp_path):
    (tmp_path / "rows.csv").write_text("image,caption\nb.png,one\n", encoding="utf-8")
    data = TableCaptions(train=(tmp_path / "rows.csv",), directory=tmp_path / "kept", bad_rows="skip")
    with pytest.raises(InputError, match=r"^\S*rows\.csv:2: no image 'b\.png'; that is 1 of 1 bad row, and the train"):
        open_split(data, "train")
