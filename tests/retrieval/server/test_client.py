"""Our client against the server's and every other answer form, and rollouts that search through it."""

import http.server
import json
import socket
import threading

import pyarrow.parquet as pq
import pytest
from small_index import ROWS, paged_index, refusal, section_of
from small_server import QUERIES, running

from igpo import rollout
from igpo.experiment import schema
from pipeline import storage
from pipeline.errors import UserError
from retrieval import serve
from retrieval.indexes.searcher import open_searcher
from retrieval.server import client, exchange


@pytest.fixture(scope="module")
def paged(tmp_path_factory):
    return open_searcher([paged_index(tmp_path_factory)])


def test_our_client_gives_the_same_hits_as_the_index(url, searcher):
    remote = client.HttpSearcher(url)
    assert remote.search([*QUERIES, ""], 5) == searcher.search([*QUERIES, ""], 5)
    assert remote.identity == searcher.identity
    assert remote.corpus_sha256 == searcher.corpus_sha256
    assert remote.search([], 5) == []
    for path in ("/search", "/search/", "/retrieve/"):
        remote = client.HttpSearcher(url + path)
        assert remote.search(QUERIES, 2) == searcher.search(QUERIES, 2)
        assert remote.corpus_sha256 == searcher.corpus_sha256


def test_our_client_notices_another_index(url):
    remote = client.HttpSearcher(url)
    remote.search(QUERIES, 1)
    remote.identity = "of an index that was there before"
    with pytest.raises(UserError, match="another index answers than before"):
        remote.search(QUERIES, 1)


def test_our_client_gets_documents_and_what_follows_them(paged):
    with running(serve.create_app(paged, 3)) as url:
        remote = client.HttpSearcher(url)
        assert remote.get("a0") == paged.get("a0")
        assert remote.get("none") is paged.get("none") is None
        for name, k, expected in (("a0", 5, ["a1", "a2"]), ("a0", 1, ["a1"]), ("a2", 5, []), ("none", 5, [])):
            assert [hit.id for hit in paged.following(name, k)] == expected
            assert remote.following(name, k) == paged.following(name, k)


def test_our_client_passes_over_proxies_on_loopback(url, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert client.HttpSearcher(url).search(["noble gas"], 1)[0][0].id == "argon"


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"document": {"id": 7, "contents": '"T"\nx'}, "score": 2}, ("7", "T", "x", 2.0)),
        ({"document": {"id": "7", "title": "T", "text": "x"}}, ("7", "T", "x", 0.0)),
        ({"id": "7", "contents": "T\nx\ny"}, ("7", "T", "x\ny", 0.0)),
        ({"id": "7", "title": "T", "contents": '"T"\nx'}, ("7", "T", "x", 0.0)),
        ({"id": "7", "title": "T", "contents": "x\ny"}, ("7", "T", "x\ny", 0.0)),
        ({"document": {"contents": '"T"\nx'}}, ("sha256:", "T", "x", 0.0)),
        ({"document": '"T"\nx', "score": None}, ("sha256:", "T", "x", 0.0)),
        ('"T"\nx', ("sha256:", "T", "x", 0.0)),
    ],
)
def test_our_client_reads_every_document_form(item, expected):
    hit = client.to_hit(item)
    assert hit.id.startswith(expected[0])
    assert (hit.title, hit.text, hit.score) == expected[1:]


class Flaky(http.server.BaseHTTPRequestHandler):
    """A foreign server, without documents: two times 503, then an answer; some paths give no answer."""

    failures = 2

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        broken = {"/html": b"<html>", "/short": b'{"result": []}', "/odd": b'{"result": [[3]]}'}
        broken |= {"/bare": b'{"result": [{"a": 1}]}', "/deep": b"[" * 200_000}
        fails = self.path == "/retrieve" and type(self).failures > 0
        type(self).failures -= fails
        self.send_response(503 if fails else 418 if self.path == "/teapot" else 200)
        self.end_headers()
        self.wfile.write(broken.get(self.path, b'{"result": [[{"document": {"contents": "T\\nx"}}]]}'))

    def do_GET(self):
        self.send_error(404)

    def log_message(self, *_):
        pass


def test_our_client_tries_again_and_refuses_nonsense(monkeypatch):
    monkeypatch.setattr(exchange, "BACKOFF_S", 0.01)
    server = http.server.HTTPServer(("127.0.0.1", 0), Flaky)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    assert client.HttpSearcher(url).search(["q"], 3)[0][0].title == "T"
    messages = {"/html": "not JSON", "/deep": "not JSON", "/short": "1 lists", "/bare": "1 lists"}
    for path, message in (messages | {"/odd": "int", "/teapot": "418"}).items():
        with pytest.raises(UserError, match=message):
            client.HttpSearcher(url + path).search(["q"], 3)
    with pytest.raises(UserError, match="/document/x: not found"):
        client.HttpSearcher(url).get("x")
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match="does not answer"):
        client.HttpSearcher(url).search(["q"], 3)
    with pytest.raises(UserError, match="not a search URL"):
        client.HttpSearcher("localhost:8000")


def test_blank_queries_find_nothing_and_many_go_in_parts(url, searcher, monkeypatch):
    queries = ["noble gas", " ", "mountain atlas", "", "Ahab"]
    monkeypatch.setattr(client, "QUERIES", 2)
    for path in ("/retrieve", "/search"):
        assert client.HttpSearcher(url + path).search(queries, 2) == searcher.search(queries, 2)
        assert client.HttpSearcher(url + path).search([" "], 2) == [[]]


def test_a_document_with_half_a_surrogate_pair_is_text():
    hit = client.to_hit({"id": "\ud83d", "title": "a\ud83d", "text": "\ud83db"})
    assert (hit.id, hit.title, hit.text) == ("?", "a?", "?b")


def test_a_refusal_is_of_these_queries(url):
    for query, message in (("x" * 201, "more than 200 characters"), ("\ud83d", "HTTP 422")):
        with pytest.raises(exchange.Refused, match=message):
            client.HttpSearcher(url).search(["noble gas", query], 1)


def rollout_options(base_model, folder, protocol: str, **settings) -> list[str]:
    """Options of a rollout of one question, all but where it searches and writes."""
    question = {
        "question_id": "q", "benchmark": "b", "question": "Who?", "answers": ["x"], "supporting_ids": [],
        "hops": 1, "split": "test", "type": "t",
    }  # fmt: skip
    meta = {"corpus_sha256": "of another"}
    storage.write([question], schema.QUESTIONS, folder / "q.parquet", schema.QUESTIONS_KEY, meta)
    section = section_of(
        "rollout",
        engine="transformers",
        protocol=protocol,
        benchmarks=[],
        samples=1,
        turn_tokens=4,
        **settings,
    )
    files = ["--policy", str(base_model), "--questions", f"{folder}/q.parquet"]
    return [*files, "--config", json.dumps(section)]


def test_a_rollout_through_a_server_that_tells_no_identity(base_model, tmp_path, capsys):
    server = http.server.HTTPServer(("127.0.0.1", 0), Flaky)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/foreign"
    out = tmp_path / "rollouts.parquet"
    opens = rollout_options(base_model, tmp_path, "igpo", tools=["web_search", "open"])
    told = refusal(capsys, rollout.main, *opens, "--search", address, "--out", out)
    assert "only `retrieval serve` has pages to open" in told
    rollout.main([*rollout_options(base_model, tmp_path, "rag"), "--search", address, "--out", str(out)])
    server.shutdown()
    server.server_close()
    assert pq.read_metadata(out).metadata[b"retriever"] == b"unknown"
    assert [row["hit_ids"][:1] != [] for row in storage.read(out, schema.ROLLOUTS).to_pylist()] == [
        True,
        False,
    ]


def test_what_cannot_be_searched_is_told_before_a_model_is_loaded(
    built, url, base_model, tmp_path, capsys, monkeypatch
):
    def started(*_):
        raise UserError("the engine was started")

    monkeypatch.setattr(rollout, "open_engine", started)
    monkeypatch.setattr(exchange, "TRIES", 0)
    with socket.create_server(("127.0.0.1", 0)) as free:
        gone = f"http://127.0.0.1:{free.getsockname()[1]}"
    for protocol, options, message in (
        ("igpo", ["--search", gone], f"{gone}/retrieve: the search server does not answer"),
        ("closed_book", ["--search", gone], "the engine was started"),
        ("igpo", ["--search", url], "made from corpus of another"),
        ("igpo", ["--index", built[1]], "made from corpus of another"),
    ):
        words = rollout_options(base_model, tmp_path, protocol)
        assert message in refusal(capsys, rollout.main, *words, *options, "--out", tmp_path / "r.parquet")


def test_exactly_one_of_index_and_url(built):
    with pytest.raises(UserError, match="either"):
        client.open_search([], None, 3)
    with pytest.raises(UserError, match="either"):
        client.open_search([built[1]], "http://127.0.0.1:1", 3)
    assert len(client.open_search([built[1]], None, 3)) == len(ROWS)
