"""The only HTTP client that may fetch a URL somebody else chose (images in mail, webhook targets).

It goes to public addresses on allowed ports over http and https, nowhere else. The name is resolved once, every address is
checked, and the connection is made to the checked address itself, so a name that answers differently a moment later changes
nothing; the connected peer is checked once more. Redirects are followed by hand, at most three, each checked like the first.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address
from typing import Any
from urllib.parse import urljoin, urlsplit

import anyio
import httpcore
import httpx

from assistant.clock import monotonic
from assistant.errors import TemporaryChannelError, TooLarge, UnsafeTarget
from assistant.failpoints import failpoint

__all__ = ["Fetched", "SafeClient", "Target", "check_url", "is_public"]

Ip = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Iterable[str]]

SCHEMES = {"http": 80, "https": 443}
PORTS = frozenset({80, 443, 8080, 8443})
MAX_HOPS = 3
SECONDS = 10.0
MAX_BYTES = 10_000_000
MAX_URL = 2_000
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_INSIDE = frozenset(
    {"localhost", "local", "internal", "intranet", "lan", "home", "corp", "private", "localdomain", "onion"}
)
"""Last labels that only mean something inside a network."""
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(block)
    for block in (
        "0.0.0.0/8",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "240.0.0.0/4",
        "::/96",  # IPv4-compatible, unspecified, loopback
        "64:ff9b:1::/48",  # local-use NAT64
        "100::/64",
        "2001::/23",  # Teredo and other protocol assignments
        "2001:db8::/32",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be contacted: its parts, checked and in one spelling."""

    url: str
    scheme: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came back. `url` is the one that answered, after redirects."""

    url: str
    status: int
    headers: Mapping[str, str]
    content: bytes


def is_public(address: str) -> bool:
    """Whether an address is one that anybody on the Internet could reach, also inside IPv6 wrappings of IPv4."""
    try:
        ip: Ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address):
        if ip.scope_id is not None:
            return False
        if (inner := _wrapped(ip)) is not None:
            return is_public(str(inner))
    if not ip.is_global or ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback:
        return False
    return not any(ip in block for block in _NOT_PUBLIC if block.version == ip.version)


def _wrapped(ip: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that a mapped, NAT64 or 6to4 address leads to."""
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip in ipaddress.ip_network("64:ff9b::/96"):
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.sixtofour


def check_url(url: str, *, own_hosts: frozenset[str] = frozenset(), ports: frozenset[int] = PORTS) -> Target:
    """Read a URL strictly. Raises `UnsafeTarget` for everything but plain http and https to a public-looking name.

    Numbers in every old spelling of an address (`0x7f.1`, `2130706433`, `017700000001`) are refused: only four decimal
    numbers without leading zeros are an address.
    """
    if len(url) > MAX_URL or not url.isascii() or any(c <= " " or c == "\x7f" or c in '\\"<>^`{|}' for c in url):
        raise UnsafeTarget("that is not a plain URL")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UnsafeTarget("that is not a URL") from None
    scheme = parts.scheme
    if scheme not in SCHEMES or not url[len(scheme) :].startswith("://"):
        raise UnsafeTarget("only http and https are fetched")
    if parts.username is not None or parts.password is not None or "@" in parts.netloc or "%" in parts.netloc:
        raise UnsafeTarget("a URL with a user name is not fetched")
    if parts.netloc.endswith(":"):
        raise UnsafeTarget("that is not a URL")
    port = port if port is not None else SCHEMES[scheme]
    if port not in ports:
        raise UnsafeTarget(f"port {port} is not fetched from")
    host = _host((parts.hostname or "").lower(), bracketed="[" in parts.netloc)
    if host in own_hosts:
        raise UnsafeTarget("this server does not fetch from itself")
    shown = f"[{host}]" if ":" in host else host
    where = shown if port == SCHEMES[scheme] else f"{shown}:{port}"
    query = f"?{parts.query}" if parts.query else ""
    return Target(f"{scheme}://{where}{parts.path or '/'}{query}", scheme, host, port)


def _host(host: str, *, bracketed: bool) -> str:
    if bracketed:
        if not is_public(host):
            raise UnsafeTarget("that address is not on the Internet")
        return host
    host = host.removesuffix(".")
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise UnsafeTarget("that is not a host name")
    last = labels[-1]
    if last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last):
        try:
            address = str(IPv4Address(host))
        except ValueError:
            raise UnsafeTarget("that is not a plain address") from None
        if not is_public(address):
            raise UnsafeTarget("that address is not on the Internet")
        return address
    if len(labels) < 2 or last in _INSIDE or host.endswith((".in-addr.arpa", ".ip6.arpa")):
        raise UnsafeTarget("that name only means something inside a network")
    return host


def _system(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class SafeClient:
    """Fetch by GET. `resolve(host, port)` gives addresses and may block; `may_connect` and `ports` exist for tests only."""

    def __init__(
        self,
        *,
        own_hosts: Iterable[str] = (),
        ports: Iterable[int] = PORTS,
        resolve: Resolve = _system,
        may_connect: Callable[[str], bool] = is_public,
        seconds: float = SECONDS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._own = frozenset(host.lower() for host in own_hosts)
        self._ports = frozenset(ports)
        self._resolve = resolve
        self._may_connect = may_connect
        self._seconds = seconds
        self._max_bytes = max_bytes

    @cached_property
    def _certificates(self) -> ssl.SSLContext:
        # Reading the authorities takes as long as a quick fetch: once is enough.
        return httpx.create_ssl_context(trust_env=False)

    async def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Fetched:
        """The answer of a URL, redirects followed.

        Raises `UnsafeTarget` for a target that may not be contacted (first or redirected), `TooLarge`,
        `TemporaryChannelError` when it does not answer in time.
        """
        until = monotonic() + self._seconds
        try:
            with anyio.fail_after(self._seconds):
                return await self._follow(url, dict(headers or {}))
        except (TimeoutError, httpx.TimeoutException):
            raise TemporaryChannelError(f"no answer within {self._seconds:.0f} s") from None
        except httpx.HTTPError as error:
            raise TemporaryChannelError(
                f"the server did not answer properly ({type(error).__name__} after {self._seconds - until + monotonic():.1f} s)"
            ) from None

    async def _follow(self, url: str, headers: dict[str, str]) -> Fetched:
        for _ in range(MAX_HOPS + 1):
            target = check_url(url, own_hosts=self._own, ports=self._ports)
            answer = await self._once(target, headers)
            location = answer.headers.get("location")
            if answer.status not in _REDIRECTS or location is None:
                return answer
            url = urljoin(target.url, location)
        raise UnsafeTarget(f"more than {MAX_HOPS} redirects")

    async def _once(self, target: Target, headers: dict[str, str]) -> Fetched:
        addresses = await self._addresses(target)
        failpoint("fetch.before_request")
        transport = httpx.AsyncHTTPTransport(retries=0, trust_env=False)
        # The name stays in the URL for the certificate and the Host header; only the connection goes to the address.
        pool = httpcore.AsyncConnectionPool(
            ssl_context=self._certificates,
            network_backend=_Pinned(addresses, self._may_connect),
            max_connections=1,
        )
        transport._pool = pool  # noqa: SLF001  (httpx has no public way to hand a network backend in)
        async with (
            httpx.AsyncClient(
                transport=transport, trust_env=False, follow_redirects=False, timeout=self._seconds
            ) as client,
            client.stream("GET", target.url, headers={"accept-encoding": "identity"} | headers) as response,
        ):
            if response.headers.get("content-encoding", "identity") != "identity":
                raise UnsafeTarget("a compressed answer was not asked for")
            content = await self._read(response)
            failpoint("fetch.after_answer")
            return Fetched(target.url, response.status_code, dict(response.headers), content)

    async def _read(self, response: httpx.Response) -> bytes:
        length = response.headers.get("content-length", "0")
        if length.isdigit() and int(length[:15]) > self._max_bytes:
            raise TooLarge(f"more than {self._max_bytes} bytes")
        parts: list[bytes] = []
        size = 0
        async for part in response.aiter_raw():
            size += len(part)
            if size > self._max_bytes:
                raise TooLarge(f"more than {self._max_bytes} bytes")
            parts.append(part)
        return b"".join(parts)

    async def _addresses(self, target: Target) -> list[str]:
        """Where a name leads. One address that may not be contacted refuses the whole name: it is being played with."""
        try:
            found = await anyio.to_thread.run_sync(
                lambda: list(dict.fromkeys(self._resolve(target.host, target.port))), abandon_on_cancel=True
            )
        except (OSError, UnicodeError):
            raise TemporaryChannelError("that name has no address") from None
        if not found:
            raise TemporaryChannelError("that name has no address")
        if not all(self._may_connect(address) for address in found):
            raise UnsafeTarget("that name leads to an address that is not on the Internet")
        return found


class _Pinned(httpcore.AsyncNetworkBackend):
    """Connects to the checked addresses, whatever name is asked for, and looks at who answered."""

    def __init__(self, addresses: list[str], may_connect: Callable[[str], bool]) -> None:
        self._addresses = addresses
        self._may_connect = may_connect
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        last: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in self._addresses[:3]:
            try:
                stream = await self._backend.connect_tcp(address, port, timeout)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
                continue
            peer = stream.get_extra_info("server_addr")
            if peer is None or peer[0].partition("%")[0] != address or not self._may_connect(peer[0]):
                await stream.aclose()
                raise UnsafeTarget("the connection led somewhere else")
            return stream
        raise last or httpcore.ConnectError("no address")

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise UnsafeTarget("a socket file is not fetched from")

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)
