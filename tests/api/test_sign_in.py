"""Signing in: cookies, rotation, revocation, links, limits, and answers that tell nothing."""

from __future__ import annotations

import statistics
import time

import pytest

from assistant.services import access
from tests.api.conftest import BOTH, PASSWORD, World
from tests.support.promises import kept_within

ENGINES = BOTH

REAL_PASSWORDS = True


@pytest.mark.checklist(15)
def test_the_cookie_is_bound_to_this_host_and_hidden_from_scripts(world: World) -> None:
    answer = world.client().post("/api/v1/auth/sign-in", json={"email": "Admin@Example.org ", "password": PASSWORD})
    cookie = answer.headers["set-cookie"].lower()
    assert answer.status_code == 200
    assert "httponly" in cookie and "samesite=lax" in cookie and "path=/" in cookie and "domain" not in cookie


@pytest.mark.checklist(15)
def test_over_https_the_cookie_is_secure_and_has_the_host_prefix(world: World) -> None:
    from starlette.responses import Response

    from api.security import set_cookie

    response = Response()
    set_cookie(response, world.container.settings.model_copy(update={"public_url": "https://inbox.example.org"}), "t")
    cookie = response.headers["set-cookie"]
    assert cookie.startswith("__Host-notifyr=") and "Secure" in cookie and "Domain" not in cookie


@pytest.mark.checklist(8)
def test_an_unknown_address_a_wrong_password_and_a_disabled_account_get_the_same_answer(world: World) -> None:
    with world.container.database.transaction() as session:
        access.disable_agent(session, world.ids["agent"], actor="test")
    bodies = []
    for email, password in (
        ("admin@example.org", "wrong"),
        ("nobody@example.org", PASSWORD),
        ("agent@example.org", PASSWORD),
    ):
        answer = world.client().post("/api/v1/auth/sign-in", json={"email": email, "password": password})
        assert answer.status_code == 401 and "set-cookie" not in answer.headers
        bodies.append({name: value for name, value in answer.json().items() if name != "request_id"})
    assert bodies[0] == bodies[1] == bodies[2]


@pytest.mark.checklist(8)
def test_an_unknown_address_takes_as_long_as_a_known_one(world: World) -> None:
    """Welch's t over 500 interleaved checks each: |t| < 4.5, the bound that dudect uses for "no difference seen"."""
    with world.container.database.reading() as session:
        known = access.credentials_of(session, "admin@example.org")
        unknown = access.credentials_of(session, "nobody@example.org")
    access.password_matches(unknown, "warm")
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(500):
        for which in (known, unknown):
            started = time.thread_time()
            assert not access.password_matches(which, "wrong")
            times[which is known].append(time.thread_time() - started)
    one, two = (sorted(values)[20:-50] for values in times.values())
    spread = (statistics.variance(one) / len(one) + statistics.variance(two) / len(two)) ** 0.5
    assert abs(statistics.mean(one) - statistics.mean(two)) / spread < 4.5
    assert 0.8 < statistics.median(one) / statistics.median(two) < 1.25


@pytest.mark.checklist(8)
@pytest.mark.parametrize("way", ["/api/v1/auth/sign-in", "/sign-in"])
def test_every_refused_sign_in_computes_one_hash_of_equal_cost(
    world: World, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Equal time through the whole request: whoever is not there, has no password or is shut out costs one argon2id, too."""
    with world.container.database.transaction() as session:
        access.create_agent(session, "invited@example.org", name="Invited", role="agent")
        access.disable_agent(session, world.ids["agent"], actor="test")
    computed: list[str] = []
    real = access._hasher

    class Counting:
        def verify(self, known: str, password: str) -> bool:
            computed.append(known.rpartition("$")[0].rpartition("$")[0])
            return real.verify(known, password)

        hash = staticmethod(real.hash)

    access._nobody()  # made once, at the first unknown address
    monkeypatch.setattr(access, "_hasher", Counting())
    for email in ("admin", "agent", "invited", "nobody"):
        form = {"email": f"{email}@example.org", "password": "wrong"}
        sent = {"json": form} if way.startswith("/api") else {"data": form}
        assert world.client().post(way, **sent).status_code == 401
    assert computed == ["$argon2id$v=19$m=19456,t=2,p=1"] * 4


@pytest.mark.checklist(49)
@pytest.mark.parametrize(
    "elsewhere", ["//evil.example/x", "https://evil.example/x", "/\\evil.example/x", "javascript:x"]
)
def test_signing_in_on_the_page_leads_to_this_server_only(world: World, elsewhere: str) -> None:
    form = {"email": "admin@example.org", "password": PASSWORD, "next": elsewhere}
    answers = [world.client().post("/sign-in", data=form), world.browser().get("/sign-in", params={"next": elsewhere})]
    assert [(one.status_code, one.headers["location"]) for one in answers] == [(303, "/inbox")] * 2
    inside = world.client().post("/sign-in", data=form | {"next": "/inbox?view=spam"})
    assert inside.headers["location"] == "/inbox?view=spam"


@pytest.mark.checklist(15)
def test_signing_in_again_gives_a_new_session_and_ends_the_old_one(world: World) -> None:
    client = world.browser()
    old = client.cookies["notifyr"]
    client.post("/api/v1/auth/sign-in", json={"email": "admin@example.org", "password": PASSWORD})
    assert client.cookies["notifyr"] != old
    assert world.client(cookie=f"notifyr={old}").get("/api/v1/auth/me").status_code == 401


@pytest.mark.checklist(15)
def test_a_chosen_session_id_is_never_taken_over(world: World) -> None:
    client = world.client()
    client.cookies.set("notifyr", "chosen-by-somebody-else")
    answer = client.post("/api/v1/auth/sign-in", json={"email": "admin@example.org", "password": PASSWORD})
    assert "chosen-by-somebody-else" not in answer.headers["set-cookie"]


@pytest.mark.checklist(16)
def test_signing_out_ends_the_session(world: World) -> None:
    client = world.browser()
    token = client.cookies["notifyr"]
    assert client.post("/api/v1/auth/sign-out").status_code == 204
    assert world.client(cookie=f"notifyr={token}").get("/api/v1/auth/me").status_code == 401


@pytest.mark.checklist(10, 16)
def test_a_password_change_signs_every_browser_out_within_a_second(world: World) -> None:
    passwords = [PASSWORD]

    def attempt() -> float:
        current, new = passwords[-1], f"another long password {len(passwords)}"
        here, there = world.browser(password=current), world.browser(password=current)
        with world.container.database.transaction() as session:
            link = access.create_link(session, world.ids["admin"], purpose="reset")
        changed = here.post("/api/v1/auth/password", json={"current": current, "new": new})
        started = time.monotonic()
        assert changed.status_code == 204
        assert there.get("/api/v1/threads").status_code == 401
        assert here.get("/api/v1/threads").status_code == 401
        took = time.monotonic() - started
        assert world.client().post("/api/v1/auth/link", json={"token": link}).status_code == 401
        world.browser(password=new)
        passwords.append(new)
        world.clear_limits()
        return took

    kept_within(1.0, attempt)


def test_a_password_change_needs_the_current_password(world: World) -> None:
    answer = world.browser().post("/api/v1/auth/password", json={"current": "wrong", "new": "another long password"})
    assert answer.status_code == 401


@pytest.mark.checklist(16)
def test_disabling_an_agent_ends_their_browsers_and_keys_at_once(world: World) -> None:
    browser, program = world.browser("agent@example.org"), world.program("threads:read", agent="agent")
    assert browser.get("/api/v1/threads").status_code == program.get("/api/v1/threads").status_code == 200
    assert world.browser().post(f"/api/v1/agents/{world.ids['agent']}/disable").status_code == 200
    assert browser.get("/api/v1/threads").status_code == program.get("/api/v1/threads").status_code == 401


def test_an_expired_session_is_no_session(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

    from assistant.clock import utcnow

    client = world.browser()
    later = utcnow() + timedelta(hours=world.container.settings.session_hours, seconds=1)
    monkeypatch.setattr(access, "utcnow", lambda: later)
    assert client.get("/api/v1/auth/me").status_code == 401


@pytest.mark.checklist(10)
def test_a_link_signs_in_once(world: World) -> None:
    made = world.browser().post("/api/v1/agents", json={"email": "new@example.org", "name": "New"})
    assert made.status_code == 201
    token = made.json()["token"]
    assert len(token) >= 43 and made.json()["url"].endswith(f"/link#{token}")
    body = {"token": token, "password": "a long enough password"}
    client = world.client()
    assert client.post("/api/v1/auth/link", json=body).status_code == 200
    assert client.get("/api/v1/auth/me").json()["agent"]["email"] == "new@example.org"
    assert world.client().post("/api/v1/auth/link", json=body).status_code == 401
    world.browser("new@example.org", "a long enough password")


@pytest.mark.checklist(10)
def test_of_two_uses_of_a_link_at_once_one_wins(world: World) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with world.container.database.transaction() as session:
        token = access.create_link(session, world.ids["agent"], purpose="reset")
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda _: world.client().post("/api/v1/auth/link", json={"token": token}).status_code, range(8))
        )
    assert sorted(answers) == [200] + [401] * 7


@pytest.mark.checklist(10)
@pytest.mark.parametrize("purpose", sorted(access.LINK_HOURS))
def test_a_newer_link_ends_the_older_one_and_links_expire(
    world: World, monkeypatch: pytest.MonkeyPatch, purpose: str
) -> None:
    from datetime import timedelta

    from assistant.clock import utcnow

    with world.container.database.transaction() as session:
        old = access.create_link(session, world.ids["agent"], purpose=purpose)
        new = access.create_link(session, world.ids["agent"], purpose=purpose)
    assert world.client().post("/api/v1/auth/link", json={"token": old}).status_code == 401
    assert access.LINK_HOURS[purpose] <= 7 * 24
    late = utcnow() + timedelta(hours=access.LINK_HOURS[purpose], seconds=1)
    monkeypatch.setattr(access, "utcnow", lambda: late)
    assert world.client().post("/api/v1/auth/link", json={"token": new}).status_code == 401


@pytest.mark.checklist(9)
def test_guessing_is_limited_per_account_and_says_when_to_come_back(world: World) -> None:
    client = world.client()
    body = {"email": "admin@example.org", "password": "wrong"}
    answers = [client.post("/api/v1/auth/sign-in", json=body) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 900
    assert answers[-1].json()["code"] == "rate-limited"


@pytest.mark.checklist(9)
def test_guessing_many_accounts_from_one_network_is_limited(world: World) -> None:
    client = world.client()
    codes = [
        client.post("/api/v1/auth/sign-in", json={"email": f"u{n}@example.org", "password": "wrong"}).status_code
        for n in range(61)
    ]
    assert codes == [401] * 60 + [429]


@pytest.mark.checklist(9)
def test_strangers_cannot_lock_out_somebody_who_signed_in_from_here_before(world: World) -> None:
    from assistant.backends.coordination import RULES
    from assistant.errors import RateLimited

    world.browser()
    rule = RULES["sign-in-account"]
    for _ in range(rule.amount - 1):  # the sign-in above counted once
        world.container.limiter.hit(rule, "admin@example.org")
    with pytest.raises(RateLimited) as refused:
        world.container.limiter.hit(rule, "admin@example.org")
    assert refused.value.delay is not None and refused.value.delay <= 900
    world.browser()


def test_without_redis_signing_in_waits_and_reading_goes_on(world: World) -> None:
    from assistant.backends.coordination import Limiter

    browser = world.browser()
    world.container.__dict__["limiter"] = Limiter("redis://127.0.0.1:9")
    refused = world.client().post("/api/v1/auth/sign-in", json={"email": "admin@example.org", "password": PASSWORD})
    assert (refused.status_code, refused.json()["code"]) == (503, "storage")
    assert int(refused.headers["retry-after"]) >= 1
    assert browser.get("/api/v1/threads").status_code == 200
    assert browser.get("/readyz").json()["status"] == "degraded"


def test_every_sign_in_key_and_link_leaves_an_audit_row(world: World) -> None:
    from sqlalchemy import select

    from assistant.db.access import AuditEntry

    client = world.browser()
    world.client().post("/api/v1/auth/sign-in", json={"email": "admin@example.org", "password": "wrong"})
    key = client.post("/api/v1/keys", json={"name": "x", "scopes": ["threads:read"]}).json()["key"]["id"]
    client.delete(f"/api/v1/keys/{key}")
    with world.container.database.reading() as session:
        actions = set(session.scalars(select(AuditEntry.action)))
    assert {"sign-in", "sign-in.failed", "session.opened", "key.created", "key.revoked", "password.changed"} <= actions
