"""The web process, over real sockets: what it shows, what it refuses, and that neither crowds nor strangers harm it."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import re
import secrets
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np
import pytest
import zmq

from forecastd.daemon import gate, scoreboard, stream, web
from forecastd.daemon.gate import Gate, Guarded
from forecastd.daemon.metrics import Surroundings
from forecastd.daemon.routes import HEADERS, Routes
from forecastd.daemon.scoreboard import Scoreboard
from forecastd.daemon.settings import Settings
from forecastd.daemon.stream import Hub
from forecastd.daemon.view import View

ODD = 'plant/7 "ä" <b>% ?#&.'


def board(names: list[str], at: float | None = None) -> Scoreboard:
    """A scoreboard of series whose values are their places."""
    n, now = len(names), time.time() if at is None else at
    columns = {
        name: np.ones(n)
        for name in ["step", "season", "samples", "gaps", "ready", "score", "flag", "anomalies", "model"]
    }
    columns |= {"value": np.arange(n, dtype=float), "time": np.full(n, now), "seen": np.full(n, now)}
    columns |= {"forecast": np.ones((n, 1)), "weight": np.ones((n, 1, 1))}
    columns |= {name: np.ones((n, 1, 1)) for name in ("lower", "upper", "coverage", "width", "winkler")}
    columns |= {name: np.ones((n, 1, 2)) for name in ("mae", "rmse", "bias", "skill")}
    counters = {"samples": 10.0, "forecasts": 10.0, "gaps": 0.0, "series": float(n), "series_hidden": 0.0}
    return Scoreboard(now, names, 1, [0.9], ["naive"], counters, {}, [0.001], [1, 0], 0.0005, [], [], columns)


def until(found: Callable[[], Any], seconds: float = 10.0) -> Any:
    """What `found` returns once it is true."""
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return result


class Stand:
    """The web process between a supervisor and an engine that do as the test says."""

    def __init__(self, *news: object, web: str = "127.0.0.1:0", **settings: Any) -> None:
        self.context = zmq.Context()
        self.feed, self.board = self.context.socket(zmq.XPUB), self.context.socket(zmq.XPUB)
        ports = [each.bind_to_random_port("tcp://127.0.0.1") for each in (self.feed, self.board)]
        command = [sys.executable, "-m", "forecastd.daemon.web"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        feed, shown = (f"tcp://127.0.0.1:{port}" for port in ports)
        self.tell({"settings": Settings(web=web, **settings), "feed": feed, "board": shown}, *news)
        self.lines: list[dict[str, Any]] = []
        self.port = 0

    def __enter__(self) -> Stand:
        bound = until(lambda: self.heard("bound"))
        self.port = int(bound.rpartition(":")[2])
        until(lambda: self.heard("ready"))
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self.context.destroy(linger=0)

    def tell(self, *lines: object) -> None:
        assert self.process.stdin
        self.process.stdin.write(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
        self.process.stdin.flush()

    def heard(self, key: str) -> Any:
        """The newest report with this key, None when there is none yet."""
        assert self.process.stdout
        while select.select([self.process.stdout], [], [], 0)[0] and (line := self.process.stdout.readline()):
            self.lines.append(json.loads(line))
        return next((line[key] for line in reversed(self.lines) if key in line), None)

    def show(self, scoreboard_: Scoreboard) -> None:
        """Report as the engine does, again and again until it is seen."""
        until(lambda: self._shown(scoreboard_))

    def _shown(self, scoreboard_: Scoreboard) -> bool:
        self.board.send(scoreboard.encode(scoreboard_))
        return bool(self.json("/api/v1/series").get("time") == scoreboard_.time)

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def json(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get(path)[2])
        return found

    def publish(self, series: str, **fields: Any) -> None:
        self.feed.send_multipart([series.encode(), msgspec.json.encode({"series": series, **fields})])

    def asked(self) -> list[bytes]:
        """The subscriptions and their ends that came since."""
        found = []
        while self.feed.poll(0):
            found.append(self.feed.recv())
        return found


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    with Stand() as running:
        yield running


class Events:
    """A client of the stream."""

    def __init__(self, stand: Stand, query: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", stand.port, timeout=10)
        self.connection.request("GET", f"/api/v1/stream?{query}")
        self.answer = self.connection.getresponse()

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def next(self) -> tuple[str, Any]:
        """Name and data of the next event; the name is empty for a forecast."""
        name = ""
        while line := self.answer.readline():
            key, _, text = line.decode().rstrip("\n").partition(": ")
            if key == "event":
                name = text
            if key == "data":
                return name, json.loads(text)
        raise EOFError


def test_it_reports_where_it_is_bound_that_it_is_ready_and_that_it_lives(stand: Stand) -> None:
    """The address is the one really bound; the beats come from its loop, about one a second."""
    assert stand.heard("bound").startswith("web http://127.0.0.1:")
    assert stand.port > 0
    first = until(lambda: stand.heard("beat"))
    assert until(lambda: stand.heard("beat") > first and stand.heard("beat")) - first < 3


def test_health_follows_the_engines_reports() -> None:
    """Not well before the first; well after it; not well again 5 s after the last, and then what the engine said is
    shown no longer."""
    with Stand() as stand:
        assert stand.get("/healthz")[0] == stand.get("/readyz")[0] == 503
        assert b"forecastd_build_info" in stand.get("/metrics")[2]
        stand.show(board(["a"]))
        assert stand.get("/healthz")[0] == stand.get("/readyz")[0] == 200
        assert b'forecastd_value{series="a"} 0.0' in stand.get("/metrics")[2]
        until(lambda: stand.get("/healthz")[0] == 503)
        page = stand.get("/metrics")[2]
        assert b"forecastd_value" not in page
        assert b"forecastd_scoreboard_age_seconds" in page


def test_a_process_that_is_down_makes_it_not_ready(stand: Stand) -> None:
    """And shows in the metrics, as the supervisor tells it."""
    stand.show(board(["a"]))
    stand.tell({"processes": {"engine": {"up": 0, "restarts": 4}, "web": {"up": 1, "restarts": 0}}})
    until(lambda: b'forecastd_restarts_total{process="engine"} 4.0' in stand.get("/metrics")[2])
    status, _, body = stand.get("/readyz")
    assert (status, "engine" in json.loads(body)["reason"]) == (503, True)
    stand.tell({"processes": {"engine": {"up": 1, "restarts": 4}}})
    until(lambda: stand.get("/readyz")[0] == 200)


@pytest.mark.parametrize(
    ("counter", "reason"), [("journal_full", "disk of the state folder is full"), ("journal_held", "too slow")]
)
def test_a_journal_that_cannot_keep_up_makes_it_not_ready_but_not_unwell(
    stand: Stand, counter: str, reason: str
) -> None:
    """Samples are forecast, so nothing is to be restarted; they are not acknowledged, so more should not be sent."""
    held = board(["a"])
    held.counters[counter] = 1.0
    stand.show(held)
    status, _, body = stand.get("/readyz")
    assert (status, reason in json.loads(body)["reason"]) == (503, True)
    assert stand.get("/healthz")[0] == 200
    stand.show(board(["a"]))
    assert stand.get("/readyz")[0] == 200


@pytest.mark.parametrize("name", ["plain", ODD, "white \t space", "日本語", "a//b/", "new\nline", "%41"])
def test_a_series_of_any_name_is_found(stand: Stand, name: str) -> None:
    """Percent-encoded, the slash with it or not."""
    stand.show(board(["other", name]))
    for safe in ("", "/"):
        told = stand.json(f"/api/v1/series/{quote(name, safe=safe)}")
        assert (told["series"], told["value"]) == (name, 1.0)
        assert told["recent"]["value"][-1] == 1.0
    assert [each["series"] for each in stand.json("/api/v1/series?match=" + quote(name))["series"]] == [name]


def test_the_models_are_listed(stand: Stand) -> None:
    """As the engine reports them."""
    reported = board(["a"])
    reported.models.append({"name": "general", "version": 2})
    stand.show(reported)
    assert stand.json("/api/v1/models")["models"] == [{"name": "general", "version": 2}]


def test_the_stream_carries_the_forecasts_of_the_chosen_series_as_published(stand: Stand) -> None:
    """Several of them, of any name; not those whose names merely begin alike; and a second client begins with what
    the first has seen."""
    with Events(stand, f"series=boiler&series={quote(ODD)}") as events:
        until(lambda: {b"\x01boiler", b"\x01" + ODD.encode()} <= set(stand.asked()) | {b"\x01" + ODD.encode()})
        stand.publish("boiler-2", seq=1)
        stand.publish("boiler", seq=2, mean=[1.5, None])
        stand.publish(ODD, seq=3)
        seen = [events.next() for _ in range(2)]
        assert seen == [("", {"series": "boiler", "seq": 2, "mean": [1.5, None]}), ("", {"series": ODD, "seq": 3})]
        with Events(stand, "series=boiler") as second:
            assert second.next() == seen[0]


def test_a_page_is_greeted_with_what_is_known(stand: Stand) -> None:
    """The daemon, the past of the series and its figures, at once and not with the next report."""
    stand.show(board(["a"]))
    with Events(stand, "board=1&series=a") as events:
        told = dict(events.next() for _ in range(3))
    assert told["overview"]["series"] == 1
    assert told["recent"]["value"][-1] == 0.0
    assert told["series"]["series"] == "a"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nothing", 404),
        ("/api/v1/series/unknown", 404),
        ("/page/../web.py", 404),
        ("/page/%2e%2e%2fweb.py", 404),
        ("/page/secrets.txt", 404),
        ("/api/v1/series?limit=many", 400),
        ("/api/v1/stream", 400),
        ("/api/v1/stream?series=", 400),
        ("/api/v1/stream?series=" + 201 * "x", 400),
        ("/api/v1/stream?" + "&".join(f"series={i}" for i in range(17)), 503),
    ],
)
def test_what_is_wrong_is_refused_in_a_line_of_json(stand: Stand, path: str, status: int) -> None:
    """No page of an exception, and as strict to browsers as the rest."""
    answer, headers, body = stand.get(path)
    assert answer == status
    assert list(json.loads(body)) == ["error"]
    assert headers.items() >= HEADERS.items()


def test_only_reading_is_allowed(stand: Stand) -> None:
    """There is nothing here to change."""
    assert [stand.get("/metrics", method)[0] for method in ("POST", "PUT", "DELETE")] == [405] * 3
    assert stand.get("/metrics", "HEAD")[0] == 200
    assert stand.get("/api/v1/stream?series=a", "HEAD")[0] == 200


@pytest.mark.parametrize("path", ["/", "/page/page.js", "/page/style.css", "/page/plotly.js", "/metrics", "/healthz"])
def test_every_answer_is_strict(stand: Stand, path: str) -> None:
    """No script, style or frame from elsewhere, none inline, and no guessing of types."""
    _, headers, _ = stand.get(path)
    assert headers.items() >= HEADERS.items()
    assert "unsafe" not in headers["content-security-policy"]


def test_the_page_loads_nothing_from_elsewhere(stand: Stand) -> None:
    """Neither page nor script nor style names another host."""
    for path in ("/", "/page/page.js", "/page/style.css"):
        assert b"://" not in stand.get(path)[2].replace(b"http://www.w3.org/2000/svg", b""), path


def test_the_parts_of_the_page_are_cached_by_their_content(stand: Stand) -> None:
    """Sent compressed to who can read that, and not at all to who has them."""
    status, headers, plain = stand.get("/page/plotly.js")
    assert (status, plain[:200].count(b"plotly.js")) == (200, 1)
    _, packed_headers, packed = stand.get("/page/plotly.js", **{"Accept-Encoding": "gzip"})
    assert packed_headers["content-encoding"] == "gzip"
    assert len(packed) < len(plain) / 2
    assert stand.get("/page/plotly.js", **{"If-None-Match": headers["etag"]})[0] == 304


def test_random_bytes_and_oversize_heads_are_answered_and_forgotten(stand: Stand) -> None:
    """The connection is told off and closed; the next one is served."""
    for sent in (os.urandom(4096), b"GET / HTTP/1.1\r\nx: " + 100_000 * b"y", b"\x16\x03\x01\x00\xa5"):
        with socket.create_connection(("127.0.0.1", stand.port), 10) as connection:
            connection.sendall(sent + b"\r\n\r\n")
            assert b"Traceback" not in connection.recv(65_536)
        assert stand.get("/page/style.css")[0] == 200


def test_500_idle_connections_harm_nobody(stand: Stand) -> None:
    """Beyond the bound those idle for longest go; a request is answered all the while."""
    with ExitStack() as held:
        for _ in range(500):
            held.enter_context(socket.create_connection(("127.0.0.1", stand.port), 10))
        start = time.monotonic()
        for _ in range(5):
            assert stand.get("/page/style.css")[0] == 200
        assert time.monotonic() - start < 5
        page = stand.get("/metrics")[2].decode()
    closed = next(line for line in page.splitlines() if 'connections_closed_total{reason="crowded"}' in line)
    assert float(closed.split()[-1]) >= 500 - gate.CONNECTIONS_MAX


def test_sigterm_ends_it_at_once_though_streams_are_open() -> None:
    """The clients are sent what is queued and let go; the exit status is 0."""
    with Stand() as stand, Events(stand, "series=a") as events:
        stand.process.send_signal(signal.SIGTERM)
        assert stand.process.wait(3) == 0
        assert events.answer.read() == b"retry: 2000\n\n"  # to its proper end: not cut off
        assert stand.process.stderr
        assert stand.process.stderr.read() == b""


def test_news_that_come_with_the_first_line_are_heard() -> None:
    """The supervisor may say more before we listen; a pipe joins it to what we have read already."""
    with Stand({"processes": {"engine": {"up": 1, "restarts": 7}}}) as stand:
        assert b'forecastd_restarts_total{process="engine"} 7.0' in stand.get("/metrics")[2]


def test_it_ends_with_its_supervisor() -> None:
    """The end of stdin is the end."""
    with Stand() as stand:
        assert stand.process.stdin
        stand.process.stdin.close()
        assert stand.process.wait(3) == 0
        stand.process.stdin = None


def test_a_taken_port_is_a_line_that_says_what_to_do() -> None:
    """Reported to the supervisor, with the exit status of what could not start."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        stand = Stand(web=address)
        try:
            assert stand.process.wait(10) == 3
            assert address in until(lambda: stand.heard("failed"))
            assert (stand.heard("status"), stand.process.stderr and stand.process.stderr.read()) == (3, b"")
        finally:
            stand.__exit__()


def test_it_imports_nothing_heavy() -> None:
    """It starts with the engine and is to be ready as soon: no plotly, rich, matplotlib, and no TensorFlow ever."""
    code = "import sys, forecastd.daemon.web; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"plotly", "rich", "matplotlib", "tensorflow", "keras", "sqlite3"}.isdisjoint(names)


class Behind:
    """What `Routes` shows, without a process around it."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.view = View(1_000, 3_600.0)
        self.hub = Hub(lambda name: None, lambda name: None)
        self.fresh = True

    def surroundings(self) -> Surroundings:
        return Surroundings()


async def call(routes: Routes, path: str) -> tuple[int, bytes]:
    """A GET through the whole application."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return await asyncio.Event().wait() or {}  # type: ignore[return-value]

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"localhost:9595")],
        "asgi": {"spec_version": "2.3"},
    }
    try:
        await routes.app(scope, receive, send)
    except ZeroDivisionError:
        pass  # the server logs it; what counts is what was sent
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def test_a_storm_of_scrapes_costs_one_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty at once and fifty later: rendered once, the same for all; the next report is rendered anew."""

    async def run() -> int:
        behind = Behind()
        routes = Routes(behind)
        rendered = []
        render = routes.exposition.render
        monkeypatch.setattr(routes.exposition, "render", lambda b: (rendered.append(b), render(b))[1])
        for at in (1.0, 2.0):
            behind.view.update(board(["a"], at))
            for _ in range(2):
                pages = await asyncio.gather(*(call(routes, "/metrics") for _ in range(50)))
                assert len(set(pages)) == 1
        return len(rendered)

    assert asyncio.run(run()) == 2


def test_our_own_faults_show_nothing_of_the_inside() -> None:
    """A line that points to the log."""

    async def run() -> tuple[int, bytes]:
        behind = Behind()
        behind.view.series = lambda match="", limit=0: 1 / 0  # type: ignore[assignment, method-assign]
        return await call(Routes(behind), "/api/v1/series")

    status, body = asyncio.run(run())
    assert (status, list(json.loads(body))) == (500, ["error"])
    assert b"ZeroDivision" not in body


def test_the_documentation_has_every_route_and_every_bound() -> None:
    """docs/http.md: no route too many, none missing, and the numbers that hold."""
    page = (Path(__file__).resolve().parent.parent / "docs" / "http.md").read_text()
    served = {route.path for route in Routes(Behind()).routes}
    assert set(re.findall(r"^\| `(/[^`]*)` \|", page, re.M)) == {re.sub(r":\w+}", "}", path) for path in served}
    stated = dict(re.findall(r"^\| ([a-z][^|]*) \| ([\d,]+)[^|]* \| [^|]+ \|$", page, re.M))
    assert {what: int(number.replace(",", "")) for what, number in stated.items()} == {
        "connections": gate.CONNECTIONS_MAX,
        "time for a request to be complete": gate.HEAD_S,
        "time in which a reader takes nothing": gate.STALL_S,
        "time for an answer, streams excepted": gate.HEAD_S + gate.ANSWER_S,
        "head of a request": web.HEAD_BYTES_MAX / 1024,
        "clients of the stream": stream.CLIENTS_MAX,
        "series a client": stream.SERIES_PER_CLIENT_MAX,
        "series streamed in all": stream.FOLLOWED_MAX,
        "events queued a client": stream.QUEUE_MAX,
    }


async def serve(script: Callable[[Gate, int], Any]) -> None:
    """A gate before an application that answers 8 MB at `/much`, never ends at `/stream`, and otherwise at once."""
    import uvicorn

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        for _ in range(128 if scope["path"] == "/much" else 1):
            await send({"type": "http.response.body", "body": 65_536 * b"x", "more_body": True})
        if scope["path"] == "/stream":
            await receive()
            await receive()
        await send({"type": "http.response.body", "body": b""})

    guard = Gate("/stream")
    config = uvicorn.Config(app, http=guard.protocol, lifespan="off", log_config=None, ws="none")  # type: ignore[arg-type]
    config.load()
    state = uvicorn.server.ServerState()
    made: Callable[[], Guarded] = lambda: guard.protocol(config=config, server_state=state, app_state={})  # noqa: E731
    server = await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0)
    try:
        await script(guard, server.sockets[0].getsockname()[1])
    finally:
        for connection in list(guard.open):
            connection.transport.abort()
        server.close()
        for task in list(state.tasks):
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)


async def settled(found: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 5
    while not found():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("sent", "after_s", "reason"),
    [
        (b"", gate.HEAD_S + 1, "idle"),
        (b"GET / HTTP/1.1\r\nhos", gate.HEAD_S + 1, "idle"),
        (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", gate.HEAD_S + 1, "idle"),
        (b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET", gate.HEAD_S + 1, "idle"),
        (b"", gate.HEAD_S - 1, ""),
        (b"GET /stream HTTP/1.1\r\nhost: a\r\n\r\n", 1e6, ""),
        (b"GET /much HTTP/1.1\r\nhost: a\r\n\r\n", gate.STALL_S + 1, "stalled"),
        (b"GET /much HTTP/1.1\r\nhost: a\r\n\r\n", gate.STALL_S - 1, ""),
    ],
)
def test_what_is_overdue_is_closed(sent: bytes, after_s: float, reason: str) -> None:
    """Nothing said, half a head, nothing more said, an answer not read; a stream may last."""

    async def script(guard: Gate, port: int) -> None:
        writer = (await asyncio.open_connection("127.0.0.1", port, limit=1024))[1]
        writer.write(sent)
        await settled(lambda: guard.open)
        (connection,) = guard.open
        if sent.endswith((b"\r\n\r\n", b"\r\nGET")):
            await settled(lambda: connection.cycle is not None)
        if b"much" in sent:
            await settled(lambda: connection.flow.write_paused)
        elif b"stream" not in sent and connection.cycle is not None:
            await settled(lambda: not connection.busy)
        now = connection.loop.time()
        guard.sweep(now)
        guard.sweep(now + after_s)
        assert {why: n for why, n in guard.closed.items() if n} == ({reason: 1} if reason else {})
        assert bool(guard.open) == (not reason)
        writer.close()

    asyncio.run(serve(script))


def test_the_crowd_gives_way_to_the_newest_but_not_who_is_served() -> None:
    """The bound holds; the stream that is older than all of them stays."""

    async def script(guard: Gate, port: int) -> None:
        writers = [(await asyncio.open_connection("127.0.0.1", port))[1]]
        writers[0].write(b"GET /stream HTTP/1.1\r\nhost: a\r\n\r\n")
        await settled(lambda: guard.open and next(iter(guard.open)).busy)
        (stream,) = guard.open
        for _ in range(gate.CONNECTIONS_MAX + 20):
            writers.append((await asyncio.open_connection("127.0.0.1", port))[1])
        await settled(lambda: guard.closed["crowded"] == 21)
        assert stream in guard.open
        assert len(guard.open) == gate.CONNECTIONS_MAX
        for writer in writers:
            writer.close()

    asyncio.run(serve(script))


# ---- who may read


TOKEN = secrets.token_hex(16)


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("token") / "web.token"
    file.touch(0o600)
    file.write_text(f"{TOKEN}\n")
    return file


@pytest.fixture(scope="module")
def closed(token: Path) -> Iterator[Stand]:
    """A page that asks for its token."""
    with Stand(web_token=str(token), web_hosts=("forecasts.example.org", "*.lab.example")) as running:
        yield running


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("", 401),
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {TOKEN}", 200),
        (f"Bearer {TOKEN}0", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        ("Bearer", 401),
        (TOKEN, 401),
        (basic(f"anybody:{TOKEN}"), 200),
        (basic(f":{TOKEN}"), 200),
        (basic(TOKEN), 401),
        (basic(f"{TOKEN}:"), 401),
        ("Basic !!!", 401),
        (f"Digest {TOKEN}", 401),
        ("Bearer \xe9", 401),
    ],
)
def test_a_page_with_a_token_asks_for_it(closed: Stand, said: str, status: int) -> None:
    """As a bearer, or as a browser's password; the answer says so and nothing else."""
    headers = {"authorization": said} if said else {}
    for path in ("/metrics", "/api/v1/series", "/", "/nowhere"):
        found, answered, body = closed.get(path, **headers)
        assert found == (404 if (path, status) == ("/nowhere", 200) else status)
        if status == 401:
            assert json.loads(body) == {"error": "the daemon asks for its token"}
            assert 'Basic realm="forecastd"' in answered["www-authenticate"]
            assert set(HEADERS) <= set(answered)


def test_the_health_checks_ask_for_no_token(closed: Stand) -> None:
    """Whoever looks after the daemon need not have it."""
    assert {closed.get(path)[0] for path in ("/healthz", "/readyz")} <= {200, 503}


@pytest.mark.parametrize(
    ("host", "let_in"),
    [
        ("localhost", True),
        ("LOCALHOST:9595", True),
        ("127.0.0.1:1", True),
        ("[::1]:9595", True),
        ("[::1]", True),
        ("forecasts.example.org", True),
        ("a.lab.example:80", True),
        ("lab.example", False),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:9595", False),
        ("evil.example:127.0.0.1", False),
        ("", False),
        ("[::1].evil.example", False),
    ],
)
def test_a_name_that_is_not_the_daemons_is_refused(closed: Stand, host: str, let_in: bool) -> None:
    """A page of another site may have its own name lead here; the browser then says that name."""
    before = metric(closed, 'forecastd_http_requests_refused_total{reason="host"}')
    status, _, body = closed.get("/healthz", host=host)
    assert (status in (200, 503)) is let_in
    if not let_in:
        assert status == 400 and "web_hosts" in json.loads(body)["error"]
        assert metric(closed, 'forecastd_http_requests_refused_total{reason="host"}') == before + 1


def metric(stand: Stand, name: str) -> float:
    page = stand.get("/metrics", authorization=f"Bearer {TOKEN}")[2].decode()
    match = re.search(rf"^{re.escape(name)} (\S+)$", page, re.M)
    return float(match[1]) if match else 0.0


def test_the_page_on_loopback_is_asked_for_by_its_own_names_alone(stand: Stand) -> None:
    """Without any setting."""
    assert stand.get("/metrics", host="evil.example")[0] == 400
    assert stand.get("/metrics")[0] == 200


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory, debian: Callable[[str], str]) -> tuple[Path, Path]:
    """A certificate for this machine, and its private key."""
    folder = tmp_path_factory.mktemp("tls")
    made, closed = folder / "web.pem", folder / "web.pem.key"
    command = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run(
        [debian("openssl"), *command, *names, "-keyout", closed, "-out", made], check=True, capture_output=True
    )
    closed.chmod(0o600)
    return made, closed


def test_a_page_with_a_certificate_is_served_by_https(certificate: tuple[Path, Path]) -> None:
    """And by nothing else; idle connections that never shake hands hold up nobody."""
    made, closed = certificate
    with Stand(web_certificate=str(made), web_key=str(closed)) as stand:
        assert until(lambda: stand.heard("bound")).startswith("web https://127.0.0.1:")
        idle = [socket.create_connection(("127.0.0.1", stand.port)) for _ in range(50)]
        context = ssl.create_default_context(cafile=str(made))
        connection = http.client.HTTPSConnection("127.0.0.1", stand.port, timeout=10, context=context)
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        assert (answer.status, b"forecastd_build_info" in answer.read()) == (200, True)
        connection.close()
        with pytest.raises((http.client.HTTPException, OSError)):
            stand.get("/metrics")
        for each in idle:
            each.settimeout(gate.HEAD_S + 10)
            assert each.recv(1) == b"", "it was shown out"
            each.close()


@pytest.mark.parametrize("wrong", ["readable token", "short token", "no token", "readable key", "no certificate"])
def test_a_secret_that_is_none_is_told_in_a_line(wrong: str, tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    """Status 2, before anything listens."""
    file, (made, closed) = tmp_path / "file", certificate
    file.touch(0o600)
    file.write_text("short" if wrong == "short token" else TOKEN)
    if "readable" in wrong:
        file.chmod(0o640)
    settings = {
        "no token": {"web_token": str(tmp_path / "nowhere")},
        "readable key": {"web_certificate": str(made), "web_key": str(file)},
        "no certificate": {"web_certificate": str(file), "web_key": str(closed)},
    }.get(wrong, {"web_token": str(file)})
    stand = Stand(**settings)
    try:
        assert stand.process.wait(20) == 2
        failed = stand.heard("failed")
        assert str(file) in failed or "nowhere" in failed
        assert "\n" not in failed
        assert ("chmod 600" in failed) is ("readable" in wrong)
    finally:
        stand.__exit__()
