"""The server under many clients: batches, a full queue, clients that leave."""

import concurrent.futures
import socket
import threading
import time

import requests
from small_server import QUERIES, post, running

from retrieval import serve
from retrieval.server import client
from retrieval.server.wire import Limits


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
    calls = [([*QUERIES[n % 4 :], f"element {n}", ""], n % 5 + 1) for n in range(60)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        hits = list(pool.map(lambda one: client.HttpSearcher(url).search(*one), calls))
    assert hits == [searcher.search(*one) for one in calls]


def test_a_full_queue_says_when_to_come_back(searcher):
    with running(serve.create_app(searcher, 3, Limits(waiting=3))) as url:
        answer = post(url, "/retrieve", {"queries": ["a"] * 4})
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert post(url, "/retrieve", {"queries": ["a"] * 3}).status_code == 200
