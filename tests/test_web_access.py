"""Whom the page answers beyond this machine."""

from __future__ import annotations

import re

import httpx
import pytest
from websockets import Origin
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from climatestream.errors import UsageError
from climatestream.web.access import HEADERS, is_loopback
from climatestream.web.server import Server
from tests.test_web import Down


def parts(server: Server) -> tuple[str, str]:
    """The address without the token, and the token."""
    match = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/\?token=([\w-]{32,})", server.url)
    assert match
    return match[1], match[2]


@pytest.fixture
def open_to_others(monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server that takes its address for one beyond this machine: tests listen on no other."""
    monkeypatch.setattr("climatestream.web.server.is_loopback", lambda _: False)
    return Server(Down(), port=0)


def test_on_this_machine_alone_no_token_is_needed() -> None:
    for host in ("127.0.0.1", "localhost"):
        with Server(Down(), port=0, host=host) as server:
            assert "token" not in server.url
            assert httpx.get(server.url).status_code == 200
    assert [is_loopback(host) for host in ("127.0.0.2", "::1", "10.0.0.1", "0.0.0.0")] == [  # noqa: S104
        *(True, True, False, False)
    ]


def test_beyond_this_machine_nothing_is_answered_without_the_token(open_to_others: Server) -> None:
    with open_to_others as server:
        address, token = parts(server)
        for path in ("/", "/main.js", "/state", "/frame", "/countries.json", "/plotly.js"):
            answer = httpx.get(address + path)
            assert answer.status_code == 401
            assert token not in answer.text
        assert httpx.get(f"{address}/?token={token[:-1]}").status_code == 401
        with (
            pytest.raises(InvalidStatus) as refusal,
            connect(f"{address.replace('http', 'ws')}/live", origin=Origin(address)),
        ):
            pytest.fail("connected")
        assert refusal.value.response.status_code == 403


def test_the_printed_address_opens_the_page_and_a_cookie_keeps_the_token(
    open_to_others: Server,
) -> None:
    with open_to_others as server, httpx.Client(follow_redirects=True) as browser:
        address, token = parts(server)
        page = browser.get(f"{server.url}&dataset=simulation")
        assert page.status_code == 200
        assert str(page.url) == f"{address}/?dataset=simulation"
        cookie = page.history[0].headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert browser.get(f"{address}/main.js").status_code == 200
        with connect(
            f"{address.replace('http', 'ws')}/live",
            origin=Origin(address),
            additional_headers={"Cookie": f"climatestream={token}"},
        ) as live:
            live.send("{}")
            assert b"the store does not answer" not in live.recv(timeout=30)[:4]


def test_every_start_has_its_own_token() -> None:
    first, second = (
        Server(Down(), port=0, host="0.0.0.0")  # noqa: S104
        for _ in range(2)
    )
    assert first.url.rpartition("=")[2] != second.url.rpartition("=")[2]


def test_a_name_that_was_made_to_point_here_gets_no_answer_even_with_the_token(
    open_to_others: Server,
) -> None:
    with open_to_others as server:
        address, token = parts(server)
        answer = httpx.get(f"{address}/?token={token}", headers={"host": "evil.example"})
        assert answer.status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
    ],
)
def test_another_sites_page_may_not_ask(headers: dict[str, str]) -> None:
    with Server(Down(), port=0) as server:
        assert httpx.get(f"{server.url}/state", headers=headers).status_code == 403


def test_a_link_from_another_site_opens_the_page() -> None:
    follows = {
        "sec-fetch-site": "cross-site",
        "sec-fetch-mode": "navigate",
        "sec-fetch-dest": "document",
    }
    with Server(Down(), port=0) as server:
        assert httpx.get(server.url, headers=follows).status_code == 200


def test_the_headers_leave_a_checker_nothing_to_find() -> None:
    """What Mozilla's Observatory and OWASP's secure headers ask of a site without TLS."""
    policy = dict(
        part.strip().split(" ", 1) for part in HEADERS["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    for directive in ("base-uri", "form-action", "frame-ancestors", "object-src"):
        assert policy[directive] == "'none'"
    assert not any("unsafe" in source or "*" in source for source in policy.values())
    assert HEADERS["X-Content-Type-Options"] == "nosniff"
    assert HEADERS["Referrer-Policy"] == "no-referrer"
    assert HEADERS["X-Frame-Options"] == "DENY"


def test_a_host_that_this_machine_does_not_have_is_a_usage_error() -> None:
    with (
        pytest.raises(UsageError, match="no address of this machine"),
        Server(Down(), port=0, host="192.0.2.1"),
    ):
        pytest.fail("started")
