"""Prometheus queries as samples: against a real Prometheus, and against servers that answer wrongly or not at all."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from math import isinf, isnan

import pytest

from forecastd.producers.prometheus import QueryError, Sample, Source, Unreachable, shortened


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(debian: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prometheus that scrapes itself each second."""
    folder = tmp_path_factory.mktemp("prometheus")
    port = free_port()
    address = f"127.0.0.1:{port}"
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: self, static_configs: [{{targets: ['{address}']}}]}}]\n"
    )
    command = [debian("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder}/data"]
    with subprocess.Popen([*command, f"--web.listen-address={address}"], stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while not scraped(f"http://{address}"):
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.05)
            yield f"http://{address}"
        finally:
            process.terminate()


def scraped(url: str) -> bool:
    try:
        return any(sample.value == 1 for sample in Source(url, "up").poll(time.time()))
    except Unreachable:
        return False


@contextmanager
def answering(body: bytes, status: int = 200) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """A server that says the same to everybody; gives its address, and what it was asked with which authorization."""
    asked: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization")))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_vector_becomes_a_sample_a_series_named_by_its_labels(server: str) -> None:
    now = time.time()
    [sample] = Source(server, "up").poll(now)
    instance = server.removeprefix("http://")
    assert sample == Sample(f'up{{instance="{instance}",job="self"}}', 1.0, round(now, 3))


def test_a_format_over_the_labels_names_the_series(server: str) -> None:
    [sample] = Source(server + "/", "up", naming="{job}:{__name__}{none}").poll(time.time())
    assert sample.series == "self:up"


def test_a_scalar_and_a_series_without_labels_are_named_by_the_query(server: str) -> None:
    assert [s[:2] for s in Source(server, "1 + 1").poll(time.time())] == [("1 + 1", 2.0)]
    assert [s[:2] for s in Source(server, "sum(up)").poll(time.time())] == [("sum(up)", 1.0)]


def test_what_is_not_a_number_is_passed_on_for_the_client_to_refuse(server: str) -> None:
    [nothing] = Source(server, "0 / 0").poll(time.time())
    [much] = Source(server, "-1 / 0").poll(time.time())
    assert isnan(nothing.value) and isinf(much.value)


def test_history_comes_oldest_first_and_by_the_step(server: str) -> None:
    now = time.time()
    samples = Source(server, "up or up * 2").history(now - 20, now, 0.5)
    assert samples == sorted(samples, key=lambda sample: sample.time)
    assert {sample.value for sample in samples} == {1.0}
    steps = {round(b.time - a.time, 3) for a, b in pairwise(samples)}
    assert steps <= {0.5}


def test_too_long_a_history_is_cut_to_what_prometheus_gives(server: str) -> None:
    now = time.time()
    assert Source(server, "up").history(now - 1e6, now, 1.0)


def test_a_wrong_query_is_refused_in_prometheus_own_words(server: str) -> None:
    with pytest.raises(QueryError, match=r"parse error: .* \(HTTP 400\)"):
        Source(server, "rate(up[)").poll(time.time())
    with pytest.raises(QueryError, match="the query gives a string; numbers are needed"):
        Source(server, '"hello"').poll(time.time())


def test_a_range_in_an_instant_query_gives_its_samples(server: str) -> None:
    assert {sample.value for sample in Source(server, "up[5s]").poll(time.time())} <= {1.0}


@pytest.mark.parametrize(
    ("body", "status", "error", "message"),
    [
        (b"<html>", 200, Unreachable, "not as Prometheus does"),
        (b'{"status":"success"}', 200, Unreachable, "not as Prometheus does"),
        (b'{"status":"error","error":"x"}', 200, Unreachable, "not as Prometheus does"),
        (b'{"status":"success","data":[]}', 200, Unreachable, "not as Prometheus does"),
        (b'{"status":"success","data":{"resultType":"vector","result":7}}', 200, QueryError, "numbers are needed"),
        (b'{"status":"success","data":{"resultType":"vector","result":[{}]}}', 200, QueryError, "numbers are needed"),
        (b'{"error":"line\\none"}', 503, Unreachable, r"line one \(HTTP 503\)"),
        (b"", 401, QueryError, r"Unauthorized \(HTTP 401\)"),
        (b"[]", 502, Unreachable, "HTTP 502"),
    ],
)
def test_other_answers_are_told_in_one_line(body: bytes, status: int, error: type[Exception], message: str) -> None:
    with answering(body, status) as (url, _), pytest.raises(error, match=message) as caught:
        Source(url, "up").poll(0.0)
    assert "\n" not in str(caught.value)


def test_histograms_in_a_vector_are_passed_over() -> None:
    body = b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[1,{}]}]}}'
    with answering(body) as (url, _):
        assert Source(url, "up").poll(0.0) == []


def test_a_server_that_is_not_there_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="does not answer: Connection refused"):
        Source(f"http://127.0.0.1:{free_port()}", "up").poll(0.0)


def test_the_query_is_quoted_and_the_token_sent() -> None:
    words = "secret"
    with answering(b'{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}') as (url, asked):
        assert Source(url, 'a{b="c d"}&x=1', token=words).poll(12.5) == [Sample('a{b="c d"}&x=1', 2.0, 1.0)]
    path, authorization = asked[0]
    assert path == "/api/v1/query?query=a%7Bb%3D%22c+d%22%7D%26x%3D1&time=12.5"
    assert authorization == "Bearer secret"


@pytest.mark.parametrize("url", ["", "localhost:9090", "file:///etc/passwd", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="no address of a Prometheus"):
        Source(url, "up")


@pytest.mark.parametrize("naming", ["{", "{0}", "{}", "{a.b}", "{a[0]}", "{a!r}", "{a:>9}"])
def test_a_naming_that_is_none_is_refused(naming: str) -> None:
    with pytest.raises(ValueError, match="no format of labels"):
        Source("http://h:1", "up", naming)


def test_a_long_name_is_cut_and_stays_its_own() -> None:
    long, other = "ü" * 300, "ü" * 299 + "x"
    assert len(shortened(long).encode()) <= 200
    assert shortened(long) != shortened(other)
    assert shortened("up") == "up"
    assert Source("http://h:1", "up").name({"a": "x\ny"}) == '{a="x y"}'
    assert Source("http://h:1", "up", "{none}").name({}) == "?"
