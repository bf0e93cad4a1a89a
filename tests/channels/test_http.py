"""The one outgoing client: 200 and more forms of a URL that must not be contacted, and a server that plays tricks."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import anyio
import pytest

from assistant.errors import NotifyrError, TemporaryChannelError, TooLarge, UnsafeTarget
from assistant.settings import Settings
from channels.support.http import SafeClient, check_url, is_public
from pipelines.container import Container

INSIDE_4 = (
    "127.0.0.1 127.1.2.3 127.255.255.255 0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 "
    "192.168.255.255 169.254.0.1 169.254.169.254 169.254.170.2 100.64.0.1 100.100.100.200 100.127.255.255 192.0.0.1 192.0.0.170 "
    "192.0.2.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 "
    "192.88.99.1"
).split()
INSIDE_6 = (
    ":: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:7f00:1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0:127.0.0.1 "
    "64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 100::1 2001::1 2001:0:7f00:1::1 2001:db8::1 2002:7f00:1::1 2002:a9fe:a9fe::1 "
    "2002:c0a8:1::1 3fff::1 5f00::1 fc00::1 fd00::1 fd00:ec2::254 fe80::1 febf::1 fec0::1 ff02::1 ff0e::1 "
    "0:0:0:0:0:0:0:1 0000:0000:0000:0000:0000:0000:0000:0001"
).split()


def _spellings(address: str) -> list[str]:
    """One IPv4 address as inet_aton would also read it."""
    a, b, c, d = (int(part) for part in address.split("."))
    whole = (a << 24) | (b << 16) | (c << 8) | d
    return [
        str(whole),
        hex(whole),
        oct(whole).replace("0o", "0"),
        f"{a}.{(b << 16) | (c << 8) | d}",
        f"{a}.{b}.{(c << 8) | d}",
        f"0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
        f"{a:03d}.{b:03d}.{c:03d}.{d:03d}",
        f"0x{a:02x}.{b}.{c}.{d}",
        f"{a}.{b}.{c}.{d}.",
        f"{a + 256}.{b}.{c}.{d}",
    ]


HOSTS = [
    *INSIDE_4,
    *[f"[{address}]" for address in INSIDE_6],
    *[
        spelling
        for address in ("127.0.0.1", "169.254.169.254", "10.0.0.1", "192.168.1.1")
        for spelling in _spellings(address)
    ],
    *"localhost LOCALHOST localhost. localhost.localdomain ip6-localhost db metadata metadata.google.internal instance-data".split(),
    *"kubernetes.default.svc.cluster.local printer.local nas.lan router.home x.corp x.intranet x.private x.onion".split(),
    *"1.0.0.127.in-addr.arpa 1.ip6.arpa own.example.org OWN.example.org own.example.org.".split(),
    *"127。0。0。1 ①②⑦.⓪.⓪.① １２７.0.0.1 loc\u00adalhost exa\u200bmple.org ⓛocalhost".split(),
    *"a..b.example .example -a.example a-.example a_b..org *.example.org example.org:80:80 [::1 ::1 [::1%25lo] [v1.fe80::a]".split(),
    "x" * 64 + ".example.org",
    ".".join(["x" * 60] * 5),
]
URLS = [
    *[f"http://{host}/" for host in HOSTS],
    *[
        f"{scheme}://example.org/"
        for scheme in "file ftp gopher dict ldap ldaps tftp ssh data javascript jar netdoc ws smb mailto".split()
    ],
    *[
        f"http://example.org:{port}/"
        for port in (0, 1, 22, 23, 25, 110, 143, 445, 2375, 3306, 5432, 6379, 8300, 9200, 11211, 27017, 65536, -1)
    ],
    *[f"http://{user}@example.org/" for user in ("user", "user:pass", "", ":", "127.0.0.1", "example.com%00")],
    "",
    " ",
    "http://",
    "http:///",
    "http:/example.org/",
    "http:example.org",
    "//example.org/",
    "example.org",
    "http://?x",
    "http://#x",
    "https:\\\\example.org\\",
    "http://example.org\\@127.0.0.1/",
    "http://127.0.0.1\\@example.org/",
    "http://example.org#@127.0.0.1:80@/\\",
    "http://example.org/\r\nHost: localhost",
    "http://example.org/\nX",
    "http://example.org/\tX",
    "http://exam\tple.org/",
    "http://example.org/\x00",
    "http://exa mple.org/",
    " http://example.org/",
    "http://example.org/ ",
    "http://example%2eorg/",
    "http://127%2e0%2e0%2e1/",
    "http://%31%32%37.0.0.1/",
    "http://example.org:/",
    "http://example.org:80x/",
    "http://example.org: 80/",
    "http://example.org:٨٠/",
    "http://[::ffff:8.8.8.8%eth0]/",
    "http://bücher.example/",
    "http://example.org/" + "x" * 2_000,
    "http://example.org/<script>",
    "http://example.org/`id`",
    "http://example.org/{x}",
    "url:http://example.org/",
    "HTTP",
    "http://0/",
    "http://127.1/",
    "http://0x7f.1/",
    "http://①.example/",
]


@pytest.mark.checklist(64)
def test_there_are_at_least_200_forms() -> None:
    assert len(set(URLS)) >= 200


@pytest.mark.parametrize("url", sorted(set(URLS)))
@pytest.mark.checklist(64)
def test_a_target_that_may_not_be_contacted_is_refused_before_any_look_up(url: str) -> None:
    def never(host: str, port: int) -> list[str]:
        raise AssertionError(f"looked {host} up")

    client = SafeClient(own_hosts=["own.example.org"], resolve=never)
    with pytest.raises(UnsafeTarget):
        anyio.run(client.get, url)


@pytest.mark.parametrize("address", [*INSIDE_4, *INSIDE_6])
@pytest.mark.checklist(64)
def test_a_name_that_leads_inside_is_refused(address: str) -> None:
    for answer in ([address], ["93.184.216.34", address], ["2606:2800:220:1::1", address]):
        client = SafeClient(resolve=lambda _h, _p, answer=answer: answer)  # type: ignore[misc]
        with pytest.raises(UnsafeTarget):
            anyio.run(client.get, "https://cname.example.org/")


@pytest.mark.parametrize(
    "address",
    ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "2a00:1450:4001::5e", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://Example.ORG", "http://example.org/"),
        ("https://example.org:443/a?b=c#d", "https://example.org/a?b=c"),
        ("http://example.org:8080/a%20b", "http://example.org:8080/a%20b"),
        ("http://example.org./", "http://example.org/"),
        ("http://xn--bcher-kva.example/", "http://xn--bcher-kva.example/"),
        ("https://8.8.8.8/x", "https://8.8.8.8/x"),
        ("https://[2606:4700::1111]/", "https://[2606:4700::1111]/"),
    ],
)
def test_an_ordinary_url_is_taken_in_one_spelling(url: str, kept: str) -> None:
    assert check_url(url).url == kept


# -- a server that plays tricks


class Tricks(BaseHTTPRequestHandler):
    hosts: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.hosts.append(self.headers["Host"])
        name, _, rest = self.path.lstrip("/").partition("?")
        if name == "hop":
            return self._answer(302, b"", {"Location": rest})
        if name == "chain":
            return self._answer(302, b"", {"Location": f"/chain?{int(rest) - 1}"} if int(rest) else {"Location": "/ok"})
        if name == "big":
            return self._answer(200, b"x" * 20_000)
        if name == "endless":
            self.send_response(200)
            self.end_headers()
            for _ in range(1_000):
                self.wfile.write(b"x" * 1_000)
            return None
        if name == "slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.1)
            return None
        if name == "gzip":
            return self._answer(200, b"x", {"Content-Encoding": "gzip"})
        return self._answer(200, b"hello")

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for field, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(field, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the client hangs up, as it should
            super().handle()


@pytest.fixture
def port() -> Iterator[int]:
    Tricks.hosts.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Tricks) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def client(
    port: int, *, may_connect: Callable[[str], bool] = lambda address: address == "127.0.0.1", **values: object
) -> SafeClient:
    """A client for which this one port of this machine is the Internet."""
    return SafeClient(
        ports=[port],
        resolve=lambda _h, _p: ["127.0.0.1"],
        may_connect=may_connect,
        **({"max_bytes": 10_000, "seconds": 20.0} | values),  # type: ignore[arg-type]
    )


def get(made: SafeClient, port: int, path: str) -> object:
    return anyio.run(made.get, f"http://images.example.org:{port}/{path}")


def test_an_answer_comes_back_and_the_name_reaches_the_server(port: int) -> None:
    found = anyio.run(client(port).get, f"http://images.example.org:{port}/ok")
    assert (found.status, found.content) == (200, b"hello")
    assert Tricks.hosts == [f"images.example.org:{port}"]


@pytest.mark.checklist(64)
def test_the_name_is_looked_up_once_and_the_connection_goes_to_that_address(port: int) -> None:
    """A second answer, however fast it changes, is never asked for."""
    answers = iter([["127.0.0.1"], ["169.254.169.254"]])
    made = SafeClient(ports=[port], resolve=lambda _h, _p: next(answers), may_connect=lambda a: a == "127.0.0.1")
    assert anyio.run(made.get, f"http://rebind.example.org:{port}/ok").status == 200


@pytest.mark.checklist(64)
def test_the_connected_peer_is_checked_once_more(port: int) -> None:
    asked: list[str] = []

    def only_at_first(address: str) -> bool:
        asked.append(address)
        return len(asked) == 1

    with pytest.raises(UnsafeTarget):
        get(client(port, may_connect=only_at_first), port, "ok")
    assert asked == ["127.0.0.1", "127.0.0.1"] and Tricks.hosts == []


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1/",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "//localhost/",
        "http://2130706433/",
        "gopher://x/",
    ],
)
def test_a_redirect_to_what_may_not_be_contacted_is_refused(port: int, target: str) -> None:
    with pytest.raises(UnsafeTarget):
        get(client(port), port, f"hop?{target}")


@pytest.mark.checklist(64)
def test_three_redirects_are_followed_and_a_fourth_is_not(port: int) -> None:
    assert get(client(port), port, "chain?2").status == 200  # type: ignore[attr-defined]
    with pytest.raises(UnsafeTarget):
        get(client(port), port, "chain?3")


@pytest.mark.parametrize("path", ["big", "endless"])
@pytest.mark.checklist(64)
def test_more_bytes_than_allowed_are_not_read(port: int, path: str) -> None:
    with pytest.raises(TooLarge):
        get(client(port), port, path)


@pytest.mark.checklist(64)
def test_a_fetch_has_ten_seconds_and_ten_megabytes_unless_it_is_given_less(settings: Settings) -> None:
    """What the other tests shorten: of the client, and of the one that the program uses."""
    for made in (SafeClient(), Container(settings).fetcher):
        assert made._seconds <= 10 and made._max_bytes <= 10_000_000 and made._ports == {80, 443, 8080, 8443}


@pytest.mark.checklist(64)
def test_a_server_that_drips_is_left_in_time(port: int) -> None:
    started = time.monotonic()
    with pytest.raises(TemporaryChannelError):
        get(client(port, seconds=1.0), port, "slow")
    assert time.monotonic() - started < 10


def test_a_resolver_that_hangs_is_left_in_time() -> None:
    release = threading.Event()
    made = SafeClient(resolve=lambda _h, _p: list(map(str, [release.wait(5)]))[:0], seconds=0.3)
    started = time.monotonic()
    with pytest.raises(TemporaryChannelError):
        anyio.run(made.get, "http://slow.example.org/")
    release.set()
    assert time.monotonic() - started < 4.5


def test_a_compressed_answer_is_refused(port: int) -> None:
    with pytest.raises(UnsafeTarget):
        get(client(port), port, "gzip")


def test_a_name_without_an_address_is_a_temporary_failure() -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror("no such name")

    for resolve in (unknown, lambda _h, _p: []):
        with pytest.raises(TemporaryChannelError):
            anyio.run(SafeClient(resolve=resolve).get, "http://nowhere.example.org/")


@pytest.mark.checklist(64)
def test_a_proxy_in_the_environment_is_not_used(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert get(client(port), port, "ok").status == 200  # type: ignore[attr-defined]


def test_nothing_that_listens_is_a_failure_of_ours(port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = taken.getsockname()[1]
        with pytest.raises(NotifyrError):
            get(client(closed), closed, "ok")
