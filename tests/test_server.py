"""The server as its clients use it, our client against every answer form, limits, refusals."""

import concurrent.futures
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pyarrow.parquet as pq
import pytest
import requests
import uvicorn
from small_index import ROWS, indexes, paged_index, refusal, section_of

from igpo import rollout, schema
from retrieval import client, search, serve, tables
from retrieval.stage import UserError
from retrieval.wire import Limits

QUERIES = ["When did Herman Melville die?", "capital of Burkina Faso", "noble gas", "waltz composer"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return indexes(tmp_path_factory)


@pytest.fixture(scope="module")
def searcher(built):
    return search.open_searcher([built[1]])


@pytest.fixture(scope="module")
def paged(tmp_path_factory):
    return search.open_searcher([paged_index(tmp_path_factory)])


@contextmanager
def running(app):
    """The app on a free loopback port, in a thread; yields its URL."""
    with serve.listen("127.0.0.1", 0) as bound:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def url(searcher):
    limits = Limits(queries=40, chars=200, k=10, body_bytes=20_000, waiting=64, batch=8)
    with running(serve.create_app(searcher, 3, limits)) as address:
        yield address


def post(url: str, path: str, body: object) -> requests.Response:
    return requests.post(url + path, json=body, timeout=20)


def test_search_r1_client(url):
    """search_r1/llm_agent/generation.py: `_batch_search` and `_passages2string`."""
    answer = requests.post(f"{url}/retrieve", json={"queries": QUERIES, "topk": 3, "return_scores": True})
    result = answer.json()["result"]
    shown = ""
    for number, item in enumerate(result[0]):
        content = item["document"]["contents"]
        title, text = content.split("\n")[0], "\n".join(content.split("\n")[1:])
        shown += f"Doc {number + 1}(Title: {title}) {text}\n"
    assert shown.startswith(
        'Doc 1(Title: "Herman Melville") American writer (1819–1891). Herman Melville wrote'
    )
    assert len(result) == 4
    assert requests.post(
        f"{url}/retrieve", json={"queries": [], "topk": 3, "return_scores": True}
    ).json() == {"result": []}


def test_verl_client(url):
    """verl/tools/utils/search_r1_like_utils.py: `call_search_api` and `_passages2string`."""
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    payload = {"queries": QUERIES[:2], "topk": 2, "return_scores": True}
    answer = requests.post(f"{url}/retrieve", headers=headers, json=payload, timeout=30)
    assert answer.status_code not in (500, 502, 503, 504)
    answer.raise_for_status()
    texts = []
    for retrieval in answer.json().get("result", []):
        text = ""
        for idx, item in enumerate(retrieval):
            content = item["document"]["contents"]
            text += f"Doc {idx + 1} (Title: {content.split(chr(10))[0]})\n{content.split(chr(10), 1)[1]}\n\n"
        texts.append(text.strip())
    assert '(Title: "Ouagadougou")\nCapital of Burkina Faso.' in "\n---\n".join(texts)


def test_return_scores_both_ways_and_documents(url, searcher):
    with_scores = post(url, "/retrieve", {"queries": QUERIES[:1], "topk": 2, "return_scores": True}).json()
    assert [sorted(item) for item in with_scores["result"][0]] == [["document", "score"]] * 2
    expected = searcher.search(QUERIES[:1], 2)[0]
    assert [item["score"] for item in with_scores["result"][0]] == [hit.score for hit in expected]
    for body in ({"queries": QUERIES[:1], "topk": 2}, {"query_list": QUERIES[:1], "k": 2}):
        bare = post(url, "/retrieve", body).json()["result"][0]
        assert bare == [item["document"] for item in with_scores["result"][0]]
    assert bare[0] == {
        "id": "melville",
        "title": ROWS[0][1],
        "text": ROWS[0][2],
        "contents": f'"{ROWS[0][1]}"\n{ROWS[0][2]}',
    }
    for count in (1, 2, 3):  # Search-R1's own server fails here unless there are two queries
        assert len(post(url, "/retrieve", {"queries": QUERIES[:count]}).json()["result"]) == count


@pytest.mark.parametrize("topk", [None, 0, "missing"])
def test_topk_null_zero_or_missing_means_the_servers(url, topk):
    body = {"queries": ["mountain atlas"], "return_scores": True}
    found = post(url, "/retrieve", body if topk == "missing" else {**body, "topk": topk}).json()["result"][0]
    assert [item["document"]["id"] for item in found] == ["twin-a", "twin-b", "twin-c"]


def test_search_agent_review_client(url):
    body = {"query_list": ["mountain atlas", " ", "noble gas"], "k": [1, 5, 2]}
    found = post(url, "/search", body).json()["result"]
    assert [[item["document"]["id"] for item in items] for items in found] == [["twin-a"], ["argon", "neon"]]
    assert {"id", "title", "contents"} <= set(found[0][0]["document"]) and "score" in found[0][0]
    assert len(post(url, "/search", {"queries": ["mountain atlas"], "topk": 2}).json()["result"][0]) == 2
    assert len(post(url, "/search", {"queries": ["mountain atlas"]}).json()["result"][0]) == 3


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/search", {"query_list": []}, 400, "query_list is empty"),
        ("/search", {"query_list": [" "]}, 400, "query_list is empty"),
        ("/search", {"query_list": ["a"], "k": [1, 2]}, 400, "k length mismatch with query_list"),
        ("/search", {"query_list": ["a"], "k": 0}, 400, "k must be positive"),
        ("/retrieve", {}, 422, "queries"),
        ("/retrieve", {"queries": "one"}, 422, "queries"),
        ("/retrieve", {"queries": [1]}, 422, "queries"),
        ("/retrieve", {"queries": ["a"], "topk": -1}, 422, "topk"),
        ("/retrieve", {"queries": ["a"], "topk": "x"}, 422, "topk"),
        ("/retrieve", {"queries": ["a"], "topk": 11}, 422, "at most 10"),
        ("/retrieve", {"queries": ["a"] * 41}, 413, "at most 40"),
        ("/retrieve", {"queries": ["a" * 201]}, 413, "more than 200"),
        ("/retrieve", {"queries": ["a"], "pad": "x" * 30_000}, 413, "more than 20000"),
        ("/nothing", {}, 404, "Not Found"),
    ],
)
def test_bad_requests_are_4xx(url, path, body, status, said):
    answer = post(url, path, body)
    assert answer.status_code == status
    assert said in json.dumps(answer.json()["detail"])


def test_a_body_that_is_not_json_is_422_in_fastapis_form(url):
    for body in (b"{", b"\xff\xfe", b"", b"[1]"):
        answer = requests.post(f"{url}/retrieve", data=body, timeout=20)
        assert answer.status_code == 422
        assert {"loc", "msg", "type"} <= set(answer.json()["detail"][0])


def test_health_document_metrics_and_identity(url, searcher):
    health = requests.get(f"{url}/health", timeout=20)
    assert health.json() == {
        "status": "ok",
        "identity": searcher.identity,
        "corpus_sha256": searcher.corpus_sha256,
        "rows": len(ROWS),
    }
    assert requests.get(f"{url}/document/strauß%2F1", timeout=20).json()["title"] == "Johann Strauß"
    missing = requests.get(f"{url}/document/none", timeout=20)
    assert missing.status_code == 404
    assert missing.headers["X-Index-Identity"] == searcher.identity == health.headers["X-Index-Identity"]
    counted = requests.get(f"{url}/metrics", timeout=20).text
    assert 'retrieval_requests_total{route="/document/{name:path}",status="404"}' in counted
    assert "retrieval_waiting_queries 0.0" in counted


def test_a_client_that_leaves_within_its_request_is_no_error(url, caplog):
    host, port = url.removeprefix("http://").split(":")
    head = (
        b"POST /retrieve HTTP/1.1\r\nHost: l\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as link:
        link.sendall(head + b'{"queries"')
    time.sleep(0.3)
    assert post(url, "/retrieve", {"queries": QUERIES[:1]}).status_code == 200
    assert "Exception" not in caplog.text


class Held:
    """A searcher that waits in its first call until it is let go, and notes what it is asked."""

    identity = "held"

    def __init__(self):
        self.asked, self.free = [], threading.Event()

    def search(self, queries, k):
        self.asked.append(queries)
        self.free.wait(20)
        return [[] for _ in queries]


def wait_for_metric(url: str, line: str) -> None:
    for _ in range(200):
        if line in requests.get(f"{url}/metrics", timeout=20).text:
            return
        time.sleep(0.05)
    raise AssertionError(f"no {line}")


def test_what_a_client_asked_that_left_is_not_searched():
    held, ends = Held(), []
    with (
        running(serve.create_app(held, 3, Limits(batch=2))) as url,
        concurrent.futures.ThreadPoolExecutor(3) as pool,
    ):
        try:
            ends.append(pool.submit(post, url, "/retrieve", {"queries": ["first"]}))
            wait_for_metric(url, "retrieval_waiting_queries 1.0")
            host, port = url.removeprefix("http://").split(":")
            head = b"POST /retrieve HTTP/1.1\r\nHost: l\r\nContent-Length: 21\r\n\r\n"
            with socket.create_connection((host, int(port))) as link:
                link.sendall(head + b'{"queries": ["gone"]}')
                wait_for_metric(url, "retrieval_waiting_queries 2.0")
            wait_for_metric(url, 'retrieval_requests_total{route="/retrieve",status="499"} 1.0')
            ends += [pool.submit(post, url, "/retrieve", {"queries": [name]}) for name in ("a", "b")]
            wait_for_metric(url, "retrieval_waiting_queries 4.0")
        finally:
            held.free.set()
        assert [end.result().json() for end in ends] == [{"result": [[]]}] * 3
        wait_for_metric(url, "retrieval_waiting_queries 0.0")
    assert [sorted(queries) for queries in held.asked] == [["first"], ["a", "b"]]


def test_many_clients_get_what_one_gets(url, searcher):
    asked = [([*QUERIES[n % 4 :], f"element {n}", ""], n % 5 + 1) for n in range(60)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda one: client.HttpSearcher(url).search(*one), asked))
    assert found == [searcher.search(*one) for one in asked]


def test_a_full_queue_says_when_to_come_back(searcher):
    with running(serve.create_app(searcher, 3, Limits(waiting=3))) as url:
        answer = post(url, "/retrieve", {"queries": ["a"] * 4})
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert post(url, "/retrieve", {"queries": ["a"] * 3}).status_code == 200


def test_our_client_gives_the_same_hits_as_the_index(url, searcher):
    remote = client.HttpSearcher(url)
    assert remote.search([*QUERIES, ""], 5) == searcher.search([*QUERIES, ""], 5)
    assert remote.identity == searcher.identity
    assert remote.corpus_sha256 == searcher.corpus_sha256
    assert remote.search([], 5) == []
    assert client.HttpSearcher(url + "/search").search(QUERIES, 2) == searcher.search(QUERIES, 2)


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
    """A foreign server: two times 503, then an answer; anything under /broken is no answer."""

    failures = 2

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        broken = {"/html": b"<html>", "/short": b'{"result": []}', "/odd": b'{"result": [[3]]}'}
        fails = self.path == "/retrieve" and type(self).failures > 0
        type(self).failures -= fails
        self.send_response(503 if fails else 418 if self.path == "/teapot" else 200)
        self.end_headers()
        self.wfile.write(broken.get(self.path, b'{"result": [[{"document": {"contents": "T\\nx"}}]]}'))

    def log_message(self, *_):
        pass


def test_our_client_tries_again_and_refuses_nonsense(monkeypatch):
    monkeypatch.setattr(client, "DELAYS_S", (0.01, 0.01, 0.01))
    server = http.server.HTTPServer(("127.0.0.1", 0), Flaky)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    assert client.HttpSearcher(url).search(["q"], 3)[0][0].title == "T"
    for path, said in (("/html", "not JSON"), ("/short", "1 lists"), ("/odd", "int"), ("/teapot", "418")):
        with pytest.raises(UserError, match=said):
            client.HttpSearcher(url + path).search(["q"], 3)
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match="does not answer"):
        client.HttpSearcher(url).search(["q"], 3)
    with pytest.raises(UserError, match="not a search URL"):
        client.HttpSearcher("localhost:8000")


def test_a_refusal_is_of_these_queries(url):
    for query, said in (("x" * 201, "more than 200 characters"), ("\ud83d", "HTTP 422")):
        with pytest.raises(client.Refused, match=said):
            client.HttpSearcher(url).search(["noble gas", query], 1)


def rollout_options(base_model, folder, protocol: str) -> list[str]:
    """Options of a rollout of one question, all but where it searches and writes."""
    question = {
        "question_id": "q", "benchmark": "b", "question": "Who?", "answers": ["x"], "supporting_ids": [],
        "hops": 1, "split": "test", "type": "t",
    }  # fmt: skip
    meta = {"corpus_sha256": "of another"}
    tables.write([question], schema.QUESTIONS, folder / "q.parquet", schema.QUESTIONS_KEY, meta)
    section = section_of(
        "rollout", engine="transformers", protocol=protocol, benchmarks=[], samples=1, turn_tokens=4
    )
    files = ["--policy", str(base_model), "--questions", f"{folder}/q.parquet"]
    return [*files, "--config", json.dumps(section)]


def test_a_rollout_through_a_server_that_tells_no_identity(base_model, tmp_path):
    server = http.server.HTTPServer(("127.0.0.1", 0), Flaky)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/foreign"
    out = tmp_path / "rollouts.parquet"
    rollout.main([*rollout_options(base_model, tmp_path, "rag"), "--search", address, "--out", str(out)])
    server.shutdown()
    server.server_close()
    assert pq.read_metadata(out).metadata[b"retriever"] == b"unknown"
    assert [row["hit_ids"][:1] != [] for row in tables.read(out, schema.ROLLOUTS).to_pylist()] == [
        True,
        False,
    ]


def test_what_cannot_be_searched_is_told_before_a_model_is_loaded(
    built, url, base_model, tmp_path, capsys, monkeypatch
):
    def started(*_):
        raise UserError("the engine was started")

    monkeypatch.setattr(rollout, "open_engine", started)
    monkeypatch.setattr(client, "DELAYS_S", ())
    with socket.create_server(("127.0.0.1", 0)) as free:
        gone = f"http://127.0.0.1:{free.getsockname()[1]}"
    for protocol, options, said in (
        ("igpo", ["--search", gone], f"{gone}/retrieve: the search server does not answer"),
        ("closed_book", ["--search", gone], "the engine was started"),
        ("igpo", ["--search", url], "made from corpus of another"),
        ("igpo", ["--index", built[1]], "made from corpus of another"),
    ):
        words = rollout_options(base_model, tmp_path, protocol)
        assert said in refusal(capsys, rollout.main, *words, *options, "--out", tmp_path / "r.parquet")


def test_exactly_one_of_index_and_url(built):
    with pytest.raises(UserError, match="either"):
        client.open_search([], None, 3)
    with pytest.raises(UserError, match="either"):
        client.open_search([built[1]], "http://127.0.0.1:1", 3)
    assert len(client.open_search([built[1]], None, 3)) == len(ROWS)


def test_a_taken_port_is_one_line(built, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal(capsys, serve.main, "--index", built[1], "--port", port)
    assert f"127.0.0.1:{port}" in said


def test_the_command_serves_and_stops_on_a_signal(built):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "retrieval", "serve", "--index", str(built[1]), "--port", str(port)]
    environment = {name: value for name, value in os.environ.items() if name != "JAVA_HOME"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        found = []
        for _ in range(300):
            try:
                found = post(f"http://127.0.0.1:{port}", "/retrieve", {"queries": QUERIES}).json()["result"]
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        assert len(found) == 4
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "retrieval.serve: stopped" in printed
