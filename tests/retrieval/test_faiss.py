"""FAISS indexes: forms, search parameters, and what FAISS refuses."""

from types import SimpleNamespace

import faiss
import numpy as np
import pytest
from small_index import QUESTIONS, ROWS, build, config, nothing_is_encoded, refusal

from pipeline.errors import UserError
from retrieval import encode, index
from retrieval.encoder.encoder import Encoder
from retrieval.indexes import factory
from retrieval.indexes.dense import NEVER, fill
from retrieval.indexes.manifest import read_manifest
from retrieval.indexes.searcher import open_searcher


def test_lists_shorter_than_k_give_what_they_hold(built, tmp_path):
    searcher = open_searcher([build(built[0], "dense", tmp_path / "dense", faiss="IVF2,Flat")])
    dense, counts = searcher.indexes[0], []
    dense.index = SimpleNamespace(
        ntotal=10_000, search=lambda vector, count: counts.append(count) or search(vector, count)
    )
    search = open_searcher([tmp_path / "dense"]).indexes[0].index.search
    hits = dense.search(QUESTIONS[:1], 5)[0]
    assert 0 < len(hits) <= 5
    assert len(counts) == 1


@pytest.mark.parametrize("form", ["HNSW8", "IVF2,Flat"])
def test_other_faiss_indexes_work(built, tmp_path, form):
    searcher = open_searcher([build(built[0], "dense", tmp_path / "dense", faiss=form)])
    assert searcher.search(QUESTIONS[:1], 1)[0][0].id == "melville"


@pytest.mark.parametrize("form", ["HNSW8", "IVF64,PQ48", "IVF64_HNSW8,Flat"])
def test_an_index_does_not_depend_on_the_number_of_threads(tmp_path, form):
    part, threads = tmp_path / "part.npy", faiss.omp_get_max_threads()
    np.save(part, np.random.default_rng(0).standard_normal((4096, 96), np.float32))
    arrays = []
    for count in (1, 5):
        index = factory.blank_index(form, 96, 4096)
        faiss.omp_set_num_threads(count)
        fill(index, [part], 4096, form)
        arrays.append(faiss.serialize_index(index))
    faiss.omp_set_num_threads(threads)
    assert np.array_equal(*arrays)
    assert faiss.cvar.distance_compute_blas_threshold == NEVER


def test_search_parameters_are_kept_in_the_index(built, tmp_path):
    folder = build(built[0], "dense", tmp_path / "ivf", faiss="IVF4,Flat nprobe=4")
    dense = open_searcher([folder]).indexes[0]
    assert dense.index.nprobe == 4
    assert len(dense.search(QUESTIONS[:1], len(ROWS))[0]) == len(ROWS)
    plain = build(built[0], "dense", tmp_path / "plain", faiss="IVF4,Flat")
    manifests = [read_manifest(path) for path in (folder, plain)]
    assert manifests[0]["identity"] != manifests[1]["identity"]
    assert len(open_searcher([plain]).search(QUESTIONS[:1], len(ROWS))[0]) < len(ROWS)
    graph = build(built[0], "dense", tmp_path / "graph", faiss="HNSW8 efSearch=99")
    assert open_searcher([graph]).indexes[0].index.hnsw.efSearch == 99


@pytest.mark.parametrize("form", ["nprobe=32", "IVF2,Flat nprob=3", "HNSW8 nprobe=2", "IVF2,Flat nprobe",
                                   "IVF2,Flat nprobe=0", "IVF2,Flat nprobe=2,max_codes=9", ""])  # fmt: skip
def test_unknown_search_parameters_are_refused(form):
    with pytest.raises(UserError, match=r"params: index\.faiss: ") as refused:
        factory.blank_index(form, 384, 2048)
    assert repr((form.split() or [""])[-1]) in str(refused.value)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("Nonsense", "'Nonsense' does not fit vectors of 384 numbers: could not parse"),
        ("IVF2,PQ7", "'IVF2,PQ7' does not fit vectors of 384 numbers: "),
        ("IVF13,Flat", "learns from 13 vectors or more, here are 12; "),
        ("IVF2,PQ48x4", "learns from 16 vectors or more"),
        ("HNSW8_PQ48", "learns from 256 vectors or more"),
        ("OPQ48,IVF2,PQ48x4", "learns from 256 vectors or more"),
        ("PCA16,IVF2,Flat,RFlat", "learns from 16 vectors or more"),
        ("HNSW1", "can't be built"),
        ("IDMap,HNSW8", "can't be built"),
    ],
)
def test_an_index_that_cannot_be_built_is_refused_before_encoding(
    built, tmp_path, capsys, monkeypatch, form, message
):
    monkeypatch.setattr(Encoder, "passages", nothing_is_encoded)
    argv = (*config(faiss=form), "--corpus", built[0], "--out", tmp_path / "out")
    assert message in refusal(capsys, index.main, *argv, "--kind", "dense")
    assert message in refusal(capsys, encode.main, *argv, "--shard", 1)
    assert list(tmp_path.iterdir()) == []


def test_lists_may_be_as_many_as_there_are_vectors():
    assert factory.blank_index("IVF300000,Flat", 8, 300_000).nlist == 300_000
    with pytest.raises(UserError, match="300001 vectors or more, here are 300000"):
        factory.blank_index("IVF300001,PQ4", 8, 300_000)


@pytest.mark.parametrize(
    ("form", "rows", "step"),
    [
        ("IVF256,PQ4", 12_000, 1),
        ("IVF256,PQ4", 399_999, 1),
        ("IVF256,PQ4", 21_000_000, 105),  # 200,000 rows and no fewer
        ("IVF16384,PQ4", 638_975, 1),
        ("IVF16384,PQ4", 21_000_000, 32),  # 656,250 rows; 39 for each list are 638,976
    ],
)
def test_an_index_learns_from_39_vectors_or_more_for_each_list(form, rows, step):
    assert factory.training_step(factory.blank_index(form, 8, rows), rows) == step


def test_what_faiss_refuses_late_is_one_line(built, tmp_path, capsys):
    argv = (*config(faiss="NSG8"), "--corpus", built[0], "--kind", "dense", "--out", tmp_path / "out")
    assert "index.faiss does not fit 12 passages: " in refusal(capsys, index.main, *argv)
    assert list(tmp_path.iterdir()) == []
