"""How much one peer of the SMTP listener may ask for at once and in a minute. Our own machines are not counted."""

from __future__ import annotations

import ipaddress
from collections import Counter

from assistant.backends.coordination import Limiter, Rule, network_of
from assistant.errors import RateLimited
from assistant.settings import Settings
from assistant.telemetry import METRICS

__all__ = ["HERE", "Peers"]

HERE = ("127.0.0.0/8", "::1/128")
"""`notifyr import`, `notifyr demo` and a relay on this machine come from here, all as one peer."""
_MINUTE = 60


class Peers:
    """Connections are counted in this process, mails in Redis for all processes. A peer is an IPv4 address or a /64 of IPv6."""

    def __init__(self, settings: Settings, limiter: Limiter | None) -> None:
        self._trusted = tuple(ipaddress.ip_network(one) for one in (*HERE, *settings.smtp_trusted_networks))
        self._most = settings.smtp_connections_per_peer
        # Not closed: without the counter mail is still taken in, and the caps of the listener as a whole hold.
        self._rule = Rule("mail-in", settings.smtp_mails_per_minute, _MINUTE, closed=False)
        self._limiter = limiter
        self._open: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Count one more connection; False when its peer has as many as it may. `leave` takes either back."""
        peer = network_of(address)
        self._open[peer] += 1
        if self._open[peer] <= self._most or self._is_ours(address):
            return True
        METRICS.smtp_put_off.labels(reason="connections").inc()
        return False

    def leave(self, address: str) -> None:
        peer = network_of(address)
        self._open[peer] -= 1
        if self._open[peer] <= 0:
            del self._open[peer]

    def may_send(self, address: str) -> bool:
        """Count one mail; False when its peer has sent as many in this minute as it may. Asks Redis: not for the loop."""
        if self._limiter is None or self._is_ours(address):
            return True
        try:
            self._limiter.hit(self._rule, network_of(address))
        except RateLimited:
            METRICS.smtp_put_off.labels(reason="mails").inc()
            return False
        return True

    def _is_ours(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        ip = getattr(ip, "ipv4_mapped", None) or ip
        return any(ip in network for network in self._trusted)
