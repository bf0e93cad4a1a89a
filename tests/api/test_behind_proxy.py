"""The API behind Caddy, with the Caddyfile that is shipped: TLS, headers on errors, the live socket, whose word is believed."""

from __future__ import annotations

import ipaddress
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from api.security import _client_behind
from assistant.settings import ROOT, Settings
from tests.api.conftest import PASSWORD, World
from tests.support.servers import find_binary, free_port, running

CADDYFILE = ROOT / "deploy" / "caddy" / "Caddyfile"


@dataclass
class Proxy:
    url: str
    plain_url: str
    trust: ssl.SSLContext

    def client(self, **headers: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=headers, verify=self.trust, trust_env=False, timeout=30)


@pytest.fixture
def ports() -> tuple[int, int]:
    return free_port(), free_port()


@pytest.fixture
def full_settings(
    make_settings: Callable[..., Settings], sqlite_url: str, valkey_url: str, ports: tuple[int, int]
) -> Settings:
    """An installation that is told about its proxy, as docs/operations says."""
    return make_settings(
        redis_url=valkey_url,
        database_url=sqlite_url,
        encoder="off",
        generator="off",
        public_url=f"https://localhost:{ports[0]}",
        trusted_proxies=("127.0.0.1",),
    )


@contextmanager
def caddy(folder: Path, ports: tuple[int, int], upstream: str) -> Iterator[Proxy]:
    """Debian's Caddy on ports of its own, with a certificate authority of its own, which nothing else trusts."""
    https, http = ports
    (folder / "Caddyfile").write_text(
        f"{{\n\tadmin off\n\thttp_port {http}\n\thttps_port {https}\n\tskip_install_trust\n}}\nimport {CADDYFILE}\n"
    )
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder / "data"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "NOTIFYR_SITE": "localhost",
        "NOTIFYR_UPSTREAM": upstream,
    }
    command = [find_binary("caddy", "caddy"), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    root = folder / "data/caddy/pki/authorities/local/root.crt"

    def ready() -> bool:
        """The port is open before the first certificate is made."""
        if not root.exists():
            return False
        with suppress(OSError), socket.create_connection(("127.0.0.1", https), timeout=2) as raw:
            ssl.create_default_context(cafile=root).wrap_socket(raw, server_hostname="localhost").close()
            return True
        return False

    with running(command, log=folder / "caddy.log", ready=ready, seconds=60, env=env):
        yield Proxy(f"https://localhost:{https}", f"http://localhost:{http}", ssl.create_default_context(cafile=root))


@pytest.fixture
def proxy(world: World, ports: tuple[int, int], tmp_path: Path) -> Iterator[Proxy]:
    with caddy(tmp_path, ports, urlsplit(world.url).netloc) as made:
        yield made


def test_a_browser_works_through_it_from_sign_in_to_the_live_socket(world: World, proxy: Proxy) -> None:
    with proxy.client(origin=proxy.url) as client:
        signed = client.post("/api/v1/auth/sign-in", json={"email": "admin@example.org", "password": PASSWORD})
        assert signed.status_code == 200, signed.text
        cookie = signed.headers["set-cookie"]
        assert cookie.startswith("__Host-notifyr=") and "Secure" in cookie and "HttpOnly" in cookie
        page = client.get("/inbox")
        assert page.status_code == 200 and "Ana" in page.text
        headers = {"Cookie": cookie.partition(";")[0]}
    live = proxy.url.replace("https:", "wss:") + "/live?after=0-1"
    with connect(live, ssl=proxy.trust, origin=proxy.url, additional_headers=headers, open_timeout=20) as pages:
        assert json.loads(pages.recv(timeout=20))["kind"]  # what a page that asks from an old id is told at once
    with pytest.raises(InvalidStatus) as refused:
        connect(live, ssl=proxy.trust, origin="https://evil.example", additional_headers=headers, open_timeout=20)
    assert refused.value.response.status_code == 403


def test_every_error_keeps_its_headers_on_the_way(world: World, proxy: Proxy) -> None:
    with proxy.client() as client:
        found = {
            401: client.get("/api/v1/threads"),
            404: client.get("/api/v1/no-such-thing"),
            403: client.post("/api/v1/auth/sign-in", json={}, headers={"origin": "https://evil.example"}),
            413: client.post("/api/v1/auth/sign-in", content=b" " * 1_000_001, headers={"content-type": "application/json"}),
            415: client.post("/api/v1/auth/sign-in", content=b"{}", headers={"content-type": "text/plain"}),
        }  # fmt: skip
    for status, answer in found.items():
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["strict-transport-security"].startswith("max-age=31536000")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_plain_http_leads_to_https(proxy: Proxy) -> None:
    answer = httpx.get(f"{proxy.plain_url}/inbox", trust_env=False)
    assert answer.status_code == 308
    assert answer.headers["location"].startswith("https://localhost")


def test_while_the_api_is_away_the_answer_is_a_sentence_with_headers(tmp_path: Path, ports: tuple[int, int]) -> None:
    with caddy(tmp_path, ports, f"127.0.0.1:{free_port()}") as proxy, proxy.client() as client:
        answer = client.get("/inbox")
    assert answer.status_code == 502
    assert answer.text == "Notifyr is not reachable right now (502). Try again in a moment."
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_metrics_need_a_key_through_the_proxy_although_it_stands_on_this_machine(world: World, proxy: Proxy) -> None:
    with proxy.client() as client:
        assert client.get("/metrics").status_code == 401
    assert httpx.get(f"{world.url}/metrics", trust_env=False, headers={"host": "localhost"}).status_code == 200


def test_an_invented_address_does_not_buy_more_guesses(world: World, proxy: Proxy) -> None:
    body = {"email": "admin@example.org", "password": "wrong"}
    with proxy.client() as client:
        through = [
            client.post("/api/v1/auth/sign-in", json=body, headers={"x-forwarded-for": f"203.0.113.{n}"}).status_code
            for n in range(12)
        ]
    assert through == [401] * 10 + [429] * 2
    # What the proxy itself says is believed: two people behind it are two.
    direct = httpx.post(
        f"{world.url}/api/v1/auth/sign-in",
        json=body,
        headers={"x-forwarded-for": "198.51.100.7", "host": "localhost"},
        trust_env=False,
    )
    assert direct.status_code == 401


@pytest.mark.parametrize(
    ("peer", "said", "client"),
    [
        ("198.51.100.7", "203.0.113.9", "198.51.100.7"),  # a stranger's word
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("127.0.0.1", "6.6.6.6, 203.0.113.9", "203.0.113.9"),  # what the client itself sent stands in front
        ("127.0.0.1", "6.6.6.6, 203.0.113.9, 10.1.2.3", "203.0.113.9"),  # two proxies of ours
        ("127.0.0.1", "10.1.2.3", "10.1.2.3"),
        ("127.0.0.1", "203.0.113.9, unknown", "127.0.0.1"),
        ("127.0.0.1", "6.6.6.6, <script>, 10.1.2.3", "10.1.2.3"),
        ("127.0.0.1", "[2001:db8::1]", "2001:db8::1"),
        ("::ffff:127.0.0.1", "203.0.113.9", "203.0.113.9"),
    ],
)
def test_the_client_is_the_last_address_that_is_not_a_proxy_of_ours(peer: str, said: str, client: str) -> None:
    proxies = tuple(ipaddress.ip_network(one) for one in ("127.0.0.1/32", "10.0.0.0/8"))
    headers = [(b"x-forwarded-for", said.encode())] if said else []
    found = _client_behind(proxies, {"type": "http", "client": (peer, 40_000), "headers": headers})
    assert found is not None and found[0] == client
