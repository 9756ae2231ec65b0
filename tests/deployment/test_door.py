"""The door: nothing without the key, nothing but its routes with it, answers and streams passed on whole."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from vocabgraft.deployment.client import Client
from vocabgraft.deployment.door import BODY_LIMIT, CHAT, COMPLETE, HEALTH, MODELS, ROUTES, Door
from vocabgraft.errors import MachineError, ModelError

KEY = "the-key"


class Parrot:
    """A back that says what it was asked; `body["do"]` makes it misbehave."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.stopped, self.closed = threading.Event(), False

    def answer(self, route: str, body: dict[str, Any]) -> Any:
        self.asked.append((route, body))
        if body.get("do") == "fail":
            raise MachineError("the engine is gone")
        if body.get("stream"):
            return self._events(body)
        return 200, {"route": route, "body": body}

    def close(self) -> None:
        self.closed = True

    def _events(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        try:
            for n in range(body["n"]):
                yield {"n": n, "text": "혈압"}
                time.sleep(body.get("pause", 0))
            if body.get("do") == "break":
                raise MachineError("broke off")
        finally:
            self.stopped.set()


@pytest.fixture
def parrot() -> Parrot:
    return Parrot()


@pytest.fixture
def door(parrot: Parrot) -> Iterator[Door]:
    with Door(parrot, key=KEY) as opened:
        yield opened


@pytest.fixture
def client(door: Door) -> Client:
    return Client(door.url, KEY, "parrot", timeout=20)


def raw(door: Door, text: str) -> bytes:
    """What comes back for bytes as they are."""
    with socket.create_connection(("127.0.0.1", int(door.url.rsplit(":", 1)[1])), timeout=20) as connection:
        connection.sendall(text.encode("latin-1"))
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_strangers_get_401_on_every_route_by_every_method(client: Client, parrot: Parrot) -> None:
    routes = ["/", "/index.html", "/v1/health", "/metrics", "/docs", "/v1/models/", "//v1/models", "/v1/models?a=b"]
    found = client.refuses_without_key(routes)
    assert set(found.values()) == {401}
    assert {*ROUTES, *routes, "any other route"} == set(found)
    assert parrot.asked == []


@pytest.mark.parametrize(
    "header",
    ["", KEY, f"Basic {KEY}", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Bearer  {KEY}", "Bearer", "Bearer \xff"],
)
def test_only_the_whole_key_opens(door: Door, header: str, parrot: Parrot) -> None:
    sent = f"Authorization: {header}\r\n" if header else ""
    assert raw(door, f"GET {MODELS} HTTP/1.1\r\nHost: a\r\n{sent}\r\n").startswith(b"HTTP/1.1 401")
    assert parrot.asked == []


@pytest.mark.parametrize("method", ["FROBNICATE", "TRACE", "CONNECT", "PATCH"])
def test_odd_methods_are_no_way_in(door: Door, method: str) -> None:
    assert raw(door, f"{method} {MODELS} HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"HTTP/1.1 401")


def test_a_stranger_learns_neither_software_nor_versions(door: Door) -> None:
    said = raw(door, f"GET {MODELS} HTTP/1.1\r\nHost: a\r\nOrigin: http://example.org\r\n\r\n").lower()
    assert b"python" not in said
    assert b"access-control" not in said, "no web page may read it"


def test_who_has_the_key_gets_the_routes_and_no_others(client: Client, parrot: Parrot) -> None:
    assert client.healthy()
    assert [client.status("GET", r, KEY) for r in (MODELS, f"{MODELS}?x=1")] == [200, 200]
    assert client.status("POST", COMPLETE, KEY, {"prompt": "a"}) == 200
    for method, route in [("POST", HEALTH), ("GET", COMPLETE), ("OPTIONS", MODELS), ("GET", "/metrics"), ("PUT", CHAT)]:
        assert client.status(method, route, KEY) == 404, (method, route)
    assert [route for route, _ in parrot.asked] == [HEALTH, MODELS, MODELS, COMPLETE]


def test_a_body_is_passed_on_as_it_is(client: Client, parrot: Parrot) -> None:
    body = {"prompt": "고혈압 😀", "deep": {"a": [1, 2.5, None]}}
    assert client.status("POST", COMPLETE, KEY, body) == 200
    assert parrot.asked == [(COMPLETE, body)]


@pytest.mark.parametrize(
    ("head", "body", "status"),
    [
        ("Content-Length: 3", "abc", 400),
        ("Content-Length: 2", "[]", 400),
        ("Content-Length: 9000", "[" * 9000, 400),
        ("Content-Length: x", "", 400),
        ("Content-Length: -1", "", 400),
        ("Transfer-Encoding: chunked", "2\r\n{}\r\n0\r\n\r\n", 400),
        (f"Content-Length: {BODY_LIMIT + 1}", "", 413),
    ],
)
def test_a_body_that_is_no_object_or_too_long_is_refused(
    door: Door, parrot: Parrot, head: str, body: str, status: int
) -> None:
    text = f"POST {COMPLETE} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n{head}\r\n\r\n{body}"
    assert raw(door, text).startswith(b"HTTP/1.1 %d" % status)
    assert parrot.asked == []


def test_a_stream_arrives_event_by_event(client: Client) -> None:
    started, times = time.monotonic(), []
    for event in client.stream(COMPLETE, {"n": 3, "pause": 0.3}):
        assert event["text"] == "혈압"
        times.append(time.monotonic() - started)
    assert len(times) == 3
    assert times[0] < times[-1] - 0.4, "the first did not wait for the last"


def test_the_work_stops_when_the_listener_goes_away(client: Client, parrot: Parrot) -> None:
    events = client.stream(COMPLETE, {"n": 10_000, "pause": 0.01})
    next(events)
    events.close()
    assert parrot.stopped.wait(10)


def test_an_engine_that_fails_is_a_message_and_not_the_end_of_the_door(client: Client) -> None:
    assert client.status("POST", COMPLETE, KEY, {"do": "fail"}) == 502
    with pytest.raises(ModelError, match="the engine is gone"):
        list(client.stream(COMPLETE, {"do": "fail"}))
    events = list(client.stream(COMPLETE, {"n": 1, "do": "break"}))
    assert events[-1]["error"]["message"] == "broke off"
    assert client.healthy()


def test_one_connection_carries_many_requests(door: Door) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", int(door.url.rsplit(":", 1)[1]), timeout=20)
    for key, status in [(KEY, 200), ("wrong", 401), (KEY, 200)]:
        connection.request("POST", COMPLETE, json.dumps({"prompt": "a"}), {"Authorization": f"Bearer {key}"})
        response = connection.getresponse()
        response.read()
        assert response.status == status
    connection.close()


def test_the_door_is_on_this_machine_only_and_gone_after_the_block(parrot: Parrot) -> None:
    with Door(parrot, key=KEY) as door:
        host, port = door.url.removeprefix("http://").split(":")
        assert host == "127.0.0.1"
        with pytest.raises(MachineError, match=port), Door(parrot, key=KEY, port=int(port)):
            pass
    with socket.socket() as probe:
        assert probe.connect_ex((host, int(port))) != 0
    with pytest.raises(MachineError, match="empty"):
        Door(parrot, key="")
