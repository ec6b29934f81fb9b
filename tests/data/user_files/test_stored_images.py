"""Images inside archives and parquet files make the batches that files of their own make, bit for bit, also resumed."""

import dataclasses
import io
import itertools
import pickle
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vlm_jax.data.cached_images import cache_images
from vlm_jax.data.encoding import ExampleEncoder
from vlm_jax.data.image_settings import AugmentedImages
from vlm_jax.data.loader import ReadAhead, TrainLoader
from vlm_jax.data.sources import open_split
from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.data.user_files.table import TableCaptions

NAMES = [f"{number:09d}.png" for number in range(20)]
CAPTIONS = [f"a caption of image {number}" for number in range(20)]


def png(number):
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (40, 30, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_files(place):
    for number, name in enumerate(NAMES):
        (place / name).write_bytes(png(number))
    rows = zip(NAMES, CAPTIONS, strict=True)
    (place / "rows.csv").write_text("image,caption\n" + "".join(f"{name},{text}\n" for name, text in rows))
    return place / "rows.csv"


def write_shard(place):
    with tarfile.open(place / "rows.tar", "w") as archive:
        for number, name in enumerate(NAMES):
            for member, content in ((name, png(number)), (name.replace("png", "txt"), CAPTIONS[number].encode())):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return place / "rows.tar"


def write_parquet(place):
    images = [png(number) for number in range(20)]
    pq.write_table(pa.table({"image": images, "text": CAPTIONS}), place / "rows.parquet", row_group_size=7)
    return place / "rows.parquet"


@pytest.fixture
def loader_of(tmp_path):
    """A loader of the table that a function writes."""
    made = []

    def make(write, *, cached=False):
        path = write(tmp_path)
        data = TableCaptions(train=(path,), validation=(path,), test=(path,), directory=tmp_path / "kept")
        image = AugmentedImages(size=(16, 16), flip=True, shift=2)
        encode = ExampleEncoder(Tokenizer.build(CAPTIONS, 64), None, image, max_length=8, texts_per_image=1)
        examples = open_split(data, "train")
        if cached:
            encode = dataclasses.replace(encode, cached=cache_images([examples], encode, data))
        made.append(TrainLoader(examples, encode, seed=1, batch_images=4, read_ahead=ReadAhead(1, 2)))
        return made[-1]

    yield make
    for loader in made:
        loader.close()


def arrays(batches):
    return [{name: array for name, array in loaded.batch._asdict().items() if array is not None} for loaded in batches]


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("write", [write_shard, write_parquet])
def test_batches_are_those_of_files_also_when_they_go_on_elsewhere(loader_of, write, cached):
    expected = arrays(itertools.islice(loader_of(write_files), 12))
    loader = loader_of(write, cached=cached)
    first = arrays(itertools.islice(loader, 5))
    resumed = pickle.loads(pickle.dumps(loader))
    again = loader_of(write, cached=cached)
    again.restore(loader.state())
    for following in (resumed, again):
        batches = [*first, *arrays(itertools.islice(following, 7))]
        for batch, its_expected in zip(batches, expected, strict=True):
            assert batch.keys() == its_expected.keys()
            for name, array in batch.items():
                np.testing.assert_array_equal(array, its_expected[name], err_msg=name)
    resumed.close()
