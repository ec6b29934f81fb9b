"""Examples of prepared splits: small ones are read once."""

from vlm_jax.data import records
from vlm_jax.data.records import Examples


class Counted(list):
    """Records, and how often one was read."""

    reads = 0

    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)


def test_only_small_splits_stay_in_memory(tmp_path, monkeypatch):
    file = tmp_path / "records"
    file.write_bytes(b"1234567")
    for limit, reads in ((8, 2), (7, 4)):
        monkeypatch.setattr(records, "KEEP_BYTES", limit)
        rows = Counted({"image_id": str(n), "image": b"", "captions": ["a dot"]} for n in range(2))
        examples = Examples(rows, texts="captions", files=[file])
        assert list(examples) == list(examples) and rows.reads == reads
        assert examples[1].texts[0].text_id == "1#1"
