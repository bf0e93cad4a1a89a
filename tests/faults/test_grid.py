"""The grid: each fault on each process and store of a running installation, once (`TEST_GRID_ROUNDS` for more).

While a fault lasts, whatever is answered must be true: mail gets 250 only when it is kept, a program gets 503 and never 500.
When it is over, everything comes to rest by itself, and the reconciler finds nothing lost, nothing twice, nothing stuck.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import smtplib
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

import httpx
import psutil
import pytest

from assistant.clock import monotonic, utcnow
from assistant.errors import StorageError
from assistant.settings import ROOT
from pipelines.tidying import AGE, tidy
from tests.faults.house import LEASE, PROCESSES, House, Wire, sync_fails
from tests.faults.proxy import Toxic
from tests.faults.reconciler import Reconciliation
from tests.support.figures import Tell
from tests.support.people import question
from tests.support.servers import smtp_sink_server, wait_until
from tests.support.stores import RedisStore, in_memory, paused

ROUNDS = int(os.environ.get("TEST_GRID_ROUNDS", "1"))
SEED = int(os.environ.get("TEST_SEED", "20261124"))
STATUSES = {200, 201, 409, 412, 429, 503}
"""What the API may answer while something is broken."""
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with ExitStack() as stack:
        folder = stack.enter_context(in_memory("house"))
        sink = stack.enter_context(smtp_sink_server())
        redis = RedisStore(folder).start()
        stack.callback(redis.stop)
        relay, cache = stack.enter_context(Wire(sink.port)), stack.enter_context(Wire(redis.port))
        yield stack.enter_context(House(folder, sink, redis, relay, cache))


@contextlib.contextmanager
def reviewing(house: House) -> Iterator[None]:
    """An agent's program accepts what comes up, all the time."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            with contextlib.suppress(httpx.HTTPError):
                house.reviewer.once()
            time.sleep(0.2)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        stop.set()
        worker.join(30)


def check(house: House, tell: Tell, began: float, **values: bool) -> Reconciliation:
    """The end of every case."""
    found = house.settle(**values)  # type: ignore[arg-type]
    tell(f"{monotonic() - began:4.1f} s; {len(house.sender.refused)} refused; {found}")
    statuses, refused = set(house.reviewer.statuses), list(house.sender.refused)
    house.reviewer.statuses.clear()
    house.sender.refused.clear()
    assert found.problems == []
    assert statuses <= STATUSES
    assert all(_is_temporary(one) for one in refused), refused[-3:]
    return found


def _is_temporary(words: str) -> bool:
    """A refusal that a client tries again after: a 4xx answer, or no answer at all."""
    return words.startswith("(4") or not words.startswith("(5")


# -- every process: the same six faults


def kill(house: House, name: str) -> AbstractContextManager[None]:
    @contextlib.contextmanager
    def fault() -> Iterator[None]:
        house.kill(name)
        yield
        house.start(name)

    return fault()


def pause(house: House, name: str) -> AbstractContextManager[None]:
    return paused(*house.tree(name))


def ahead(house: House, name: str) -> AbstractContextManager[None]:
    return house.clock(name, 3600)


def behind(house: House, name: str) -> AbstractContextManager[None]:
    return house.clock(name, -3600)


def full(house: House, name: str) -> AbstractContextManager[None]:
    return house.no_space(name)


def dying_disk(house: House, name: str) -> AbstractContextManager[None]:
    return sync_fails(*house.tree(name))


FAULTS: dict[str, Callable[[House, str], AbstractContextManager[None]]] = {
    "kill -9": kill,
    "SIGSTOP": pause,
    "clock +1 h": ahead,
    "clock -1 h": behind,
    "no space left": full,
    "EIO on fsync": dying_disk,
}


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_one_process(house: House, name: str, fault: str, tell: Tell) -> None:
    began = monotonic()
    for _ in range(ROUNDS):
        with reviewing(house):
            with FAULTS[fault](house, name):
                house.mail(2, seconds=2.0)
                time.sleep(random.Random(SEED).uniform(0.2, 0.8))
            house.mail(1, seconds=20.0)
        check(house, tell, began, sending_ended=fault == "kill -9")


def test_a_clock_that_jumps_never_makes_a_claim_of_the_living_unknown(house: House) -> None:
    before = house.settle()
    with house.clock("worker", -3600), reviewing(house):
        house.mail(3)
        found = house.settle()
    assert found.unknown == before.unknown


# -- the listener


def test_the_listener_refuses_mail_while_the_disk_is_full(house: House, tell: Tell) -> None:
    began = monotonic()
    with house.no_space():
        assert house.mail(2) == 0
        assert house.sender.refused[-1].startswith("(45"), house.sender.refused[-1]
        assert httpx.get(f"{house.url}/livez", timeout=5).status_code == 200
    assert house.mail(1, seconds=10) == 1
    check(house, tell, began)


def test_the_listener_refuses_mail_while_the_disk_cannot_sync(house: House) -> None:
    with sync_fails(*house.tree("mailboxes")):
        assert house.mail(1) == 0
        assert house.sender.refused[-1].startswith("(451"), house.sender.refused[-1]
    assert house.mail(1, seconds=10) == 1
    house.settle()


@pytest.mark.parametrize("after", ["MAIL FROM:<c@customer.example>", "RCPT TO:<support@example.org>", "DATA", "Hello"])
def test_a_listener_killed_in_the_middle_of_a_mail_kept_nothing_of_it(house: House, after: str) -> None:
    stored = house.reconcile().received
    lines = ["EHLO c", "MAIL FROM:<c@customer.example>", "RCPT TO:<support@example.org>", "DATA", "Hello"]
    with socket.create_connection(("127.0.0.1", house.settings.smtp_port), timeout=5) as line:
        for one in lines[: lines.index(after) + 1]:
            line.sendall(f"{one}\r\n".encode())
            if one != "Hello":
                line.recv(2000)
        house.kill("mailboxes")
    house.start("mailboxes")
    assert house.mail(1, seconds=10) == 1
    assert house.settle().received == stored + 1


def test_slow_senders_and_too_many_connections_leave_the_listener_usable(house: House) -> None:
    opened: list[socket.socket] = []
    refused = 0
    try:
        for _ in range(520):
            line = socket.create_connection(("127.0.0.1", house.settings.smtp_port), timeout=5)
            opened.append(line)
            line.sendall(b"E")  # the rest never comes
        for line in opened[-30:]:
            line.settimeout(5)
            refused += line.recv(100).startswith(b"421")
        assert refused >= 10, "the connections over the limit are told so"
    finally:
        for line in opened:
            line.close()
    wait_until(lambda: house.mail(1) == 1, seconds=10, what="a mail after the crowd left")
    house.settle()


# -- the api


def test_the_api_answers_503_for_what_a_full_disk_cannot_keep_and_takes_the_same_request_later(house: House) -> None:
    suggestion = house.proposed()
    with house.no_space():
        assert house.reviewer.accept(suggestion) == 503
        assert house.reviewer.client.get("/api/v1/threads").status_code == 200, "reading stays open"
    wait_until(lambda: house.reviewer.accept(suggestion) == 201, seconds=10, what="the same request, accepted")
    assert house.reviewer.accept(suggestion) == 201, "asked again, it gives the same answer"
    house.settle()


def test_a_client_that_hangs_up_at_any_byte_leaves_no_half_reply(house: House) -> None:
    suggestion = house.proposed()
    secret = house.reviewer.client.headers["authorization"]
    body = b'{"hold_seconds":0}'
    head = (
        f"POST /api/v1/suggestions/{suggestion['id']}/accept HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {secret}\r\n"
        f'If-Match: "{suggestion["version"]}"\r\nIdempotency-Key: {suggestion["id"]}\r\n'
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    for cut in (1, len(head) // 2, len(head), len(head) + 5, len(head) + len(body)):
        with socket.create_connection(("127.0.0.1", house.settings.port), timeout=5) as line:
            line.sendall((head + body)[:cut])
    house.settle()
    waiting = wait_until(lambda: house.reviewer.accept(suggestion) in {201, 409}, seconds=10, what="one answer")
    assert waiting
    house.settle()


def test_somebody_who_holds_the_database_makes_others_wait_not_fail(house: House) -> None:
    other = sqlite3.connect(house.data / "notifyr.db", isolation_level=None, check_same_thread=False)
    with contextlib.closing(other):
        other.execute("BEGIN IMMEDIATE")
        began, timer = monotonic(), threading.Timer(2, other.execute, ("ROLLBACK",))
        timer.start()
        house.patience = 15.0  # one try: a refusal would be a failure
        assert house.mail(1) == 1
        house.patience = 4.0
        timer.join()
    assert monotonic() - began >= 2
    house.settle()


# -- the relay, as the worker sees it

_BEFORE_LAST = 151
"""Bytes that the sink says on a new line before its answer to the first final dot: its greeting, to EHLO, MAIL, RCPT and DATA."""
RELAY: dict[str, tuple[Toxic, ...]] = {
    "slow peer": (Toxic("latency", seconds=0.3),),
    "slow line": (Toxic("bandwidth", rate=2000.0),),
    "reset at once": (Toxic("reset", towards="client"),),
    "cut in the envelope": (Toxic("cut", after=60),),
    "cut after the final dot": (Toxic("cut", towards="client", after=_BEFORE_LAST),),
    "answer lost after DATA": (Toxic("black-hole", towards="client", after=_BEFORE_LAST),),
    "black hole": (Toxic("black-hole"),),
    "last answer twice": (Toxic("duplicate-last-answer", towards="client", after=40),),
    "half closed": (Toxic("half-close", after=80),),
    "flipped bit": (Toxic("corrupt", towards="client", after=20),),
    "stall past the time-out": (Toxic("stall", towards="client", seconds=4, after=100),),
}
ANSWER_LOST = {"cut after the final dot", "answer lost after DATA"}


@pytest.mark.parametrize("fault", RELAY)
def test_a_fault_on_the_way_to_the_relay(house: House, fault: str, tell: Tell) -> None:
    began = monotonic()
    before, arrived = house.settle(), len(house.sink.mails)
    suggestion = house.proposed()
    house.relay.drop()  # a line that is open already has said more than a new one: the fault would come elsewhere
    with house.relay.toxic(*RELAY[fault]):
        assert house.reviewer.accept(suggestion) == 201
        if fault in ANSWER_LOST:
            wait_until(lambda: len(house.sink.mails) > arrived, seconds=20, what="the mail at the other side")
        time.sleep(3 if fault not in {"slow peer", "last answer twice"} else 1)
        assert house.mail(1, seconds=10) == 1, "mail comes in whatever the relay does"
        if fault == "answer lost after DATA":
            house.relay.drop()  # the worker would wait a minute for it
    found = check(house, tell, began)
    if fault in ANSWER_LOST:
        assert found.unknown_arrived > before.unknown_arrived, "the answer to the final dot is what was lost"


def test_a_relay_that_is_gone_costs_time_only(house: House) -> None:
    before = house.settle()
    suggestion = house.proposed()
    with house.relay.cut_off():
        house.reviewer.accept(suggestion)
        time.sleep(1.5)
        assert house.reconcile().waiting >= 1
    after = house.settle()
    assert after.unknown == before.unknown
    assert after.sent > before.sent


def test_a_relay_whose_name_is_not_found_costs_time_only(house: House) -> None:
    before = house.settle()
    suggestion = house.proposed()
    house.kill("worker")
    house.start("worker", NOTIFYR_RELAY_URL="smtp://relay.nowhere.invalid:25")
    house.reviewer.accept(suggestion)
    wait_until(lambda: "channel-temporary" in house.codes(), seconds=15, what="a failed attempt")
    house.kill("worker")
    house.start("worker")
    after = house.settle()
    assert after.unknown == before.unknown
    assert after.sent > before.sent


@contextlib.contextmanager
def late_answer(house: House, seconds: float) -> Iterator[None]:
    """The relay takes a mail at once and says so after a while."""
    house.sink.delay = seconds
    try:
        yield
    finally:
        house.sink.delay = 0.0


def test_a_connection_lost_between_the_final_dot_and_the_answer_leaves_it_unknown(house: House) -> None:
    before = house.settle()
    suggestion = house.proposed()
    arrived = len(house.sink.mails)
    with late_answer(house, 5):
        house.reviewer.accept(suggestion)
        wait_until(lambda: len(house.sink.mails) > arrived, seconds=10, what="the mail at the other side")
        house.relay.drop()
        after = house.settle()
    assert (after.unknown, after.sent) == (before.unknown + 1, before.sent)


def test_a_worker_killed_between_the_final_dot_and_the_answer_leaves_it_unknown(house: House) -> None:
    before = house.settle()
    suggestion = house.proposed()
    arrived = len(house.sink.mails)
    with late_answer(house, 20):
        house.reviewer.accept(suggestion)
        wait_until(lambda: len(house.sink.mails) > arrived, seconds=10, what="the mail at the other side")
        house.kill("worker")
    house.start("worker")
    after = house.settle(sending_ended=True)
    assert (after.unknown, after.sent) == (before.unknown + 1, before.sent)
    assert after.unknown_arrived == before.unknown_arrived + 1


def test_a_worker_stopped_past_its_lease_and_woken_again_sends_nothing_twice(house: House) -> None:
    before = house.settle()
    suggestion = house.proposed()
    arrived = len(house.sink.mails)
    with late_answer(house, 3):
        house.reviewer.accept(suggestion)
        wait_until(lambda: len(house.sink.mails) > arrived, seconds=10, what="the mail at the other side")
        with paused(*house.tree("worker")):
            house.later(LEASE + 2)
            lost = house.reconcile()
    assert lost.unknown == before.unknown + 1, lost
    # It knows better than the sweeper what became of it.
    wait_until(
        lambda: house.reconcile().sent == before.sent + 1, seconds=20, what="the word of the worker that woke up"
    )
    assert house.settle().unknown == before.unknown


def test_a_worker_that_may_open_no_more_files_loses_nothing(house: House) -> None:
    worker = psutil.Process(house.processes["worker"].pid)
    soft, hard = worker.rlimit(psutil.RLIMIT_NOFILE)
    suggestion = house.proposed()
    worker.rlimit(psutil.RLIMIT_NOFILE, (worker.num_fds(), hard))
    try:
        house.reviewer.accept(suggestion)
        house.mail(2)
        time.sleep(2)
    finally:
        worker.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
    house.settle()


# -- the scheduler


def test_two_beats_and_none_do_no_harm(house: House) -> None:
    first = house.processes["beat"]
    house.start("beat", wait=False)
    assert house.mail(2, seconds=10) == 2
    house.settle()
    first.kill()
    first.wait(10)
    house.kill("beat")
    assert house.mail(2, seconds=10) == 2
    house.settle()
    house.start("beat", wait=False)


# -- the models


def test_mail_flows_without_suggestions_while_the_models_hang(house: House) -> None:
    house.settle()
    with paused(*house.tree("models")):
        assert house.mail(2, seconds=10) == 2
        wait_until(lambda: house.waiting("triage") == 0, seconds=15, what="the triage of both")
        assert house.waiting("draft") >= 2
        assert httpx.get(f"{house.url}/livez", timeout=5).status_code == 200
    house.settle()


def test_a_truncated_model_file_costs_labels_never_mail(house: House, tmp_path_factory: pytest.TempPathFactory) -> None:
    weights = tmp_path_factory.mktemp("weights") / "encoder"
    shutil.copytree(ROOT / "deploy" / "weights" / "encoder", weights)
    model = max(weights.rglob("*"), key=lambda one: one.stat().st_size if one.is_file() else 0)
    model.write_bytes(model.read_bytes()[:-1000])
    house.settle()
    house.kill("worker")
    house.start("worker", NOTIFYR_ENCODER=f"onnx:{weights}")
    assert house.mail(2, seconds=10) == 2
    wait_until(lambda: house.waiting("triage") == 0, seconds=20, what="the triage of both")
    house.kill("worker")
    house.start("worker")
    house.without_reply += 2
    house.settle()


# -- Valkey or Redis


def redis_killed(house: House) -> Iterator[None]:
    house.redis.kill()
    try:
        yield
    finally:
        house.redis.start()


def redis_emptied(house: House) -> Iterator[None]:
    with house.redis.client() as client:
        client.flushall()
    yield


def redis_read_only(house: House) -> Iterator[None]:
    with house.redis.client() as client:
        client.replicaof("127.0.0.1", "1")
        try:
            yield
        finally:
            client.replicaof("no", "one")


def redis_full(house: House) -> Iterator[None]:
    with house.redis.client() as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1")
        try:
            yield
        finally:
            client.config_set("maxmemory", "0")


def redis_paused(house: House) -> Iterator[None]:
    with paused(psutil.Process(house.redis.pid)):
        yield


def redis_wrong_types(house: House) -> Iterator[None]:
    with house.redis.client() as client:
        names = list(client.scan_iter("*"))
        for name in [*names, b"notifyr:live", b"notifyr:models"]:
            client.delete(name)
            client.set(name, "not what you think")
        try:
            yield
        finally:
            client.flushall()


def redis_slow(house: House) -> Iterator[None]:
    with house.cache.toxic(Toxic("latency", seconds=0.25, towards="client")):
        yield


def redis_cut_off(house: House) -> Iterator[None]:
    with house.cache.cut_off():
        yield


REDIS: dict[str, tuple[Callable[[House], Iterator[None]], float, bool]] = {
    # fault, seconds, whether a send must be refused meanwhile
    "kill -9": (redis_killed, 2, True),
    "FLUSHALL": (redis_emptied, 1, False),
    "read-only": (redis_read_only, 2, True),
    "maxmemory": (redis_full, 2, True),
    "SIGSTOP 10 s": (redis_paused, 10, True),
    "wrong types": (redis_wrong_types, 2, False),
    "slow 250 ms": (redis_slow, 2, False),
    "partition": (redis_cut_off, 3, True),
}


@pytest.mark.parametrize("fault", REDIS)
def test_without_redis_mail_is_kept_reading_goes_on_and_sending_waits(house: House, fault: str, tell: Tell) -> None:
    began = monotonic()
    act, seconds, closed = REDIS[fault]
    suggestion = house.proposed()
    with contextlib.contextmanager(act)(house):
        end, house.patience = monotonic() + seconds, 15.0
        assert house.mail(1) == 1, "mail is kept whatever becomes of Redis"
        house.patience = 4.0
        assert house.reviewer.client.get("/api/v1/threads").status_code == 200, "reading stays open"
        status = house.reviewer.accept(suggestion)
        assert status == 503 if closed else status in {201, 503}
        time.sleep(max(0.0, end - monotonic()))
    wait_until(lambda: house.reviewer.accept(suggestion) == 201, seconds=20, what="the same request, accepted")
    check(house, tell, began)


# -- the index


@pytest.mark.parametrize("damage", ["deleted", "corrupted", "deleted while it runs"])
def test_the_index_is_made_again_from_the_database(house: House, damage: str) -> None:
    house.settle()
    folder = next(one for one in house.data.iterdir() if one.name.startswith("vector"))
    if damage != "deleted while it runs":
        house.kill("worker")
    if damage == "corrupted":
        for file in [one for one in folder.rglob("*") if one.is_file() and one.name != "lock"]:
            content = bytearray(file.read_bytes())
            content[len(content) // 3 : 2 * len(content) // 3] = os.urandom(len(content) // 3)
            file.write_bytes(content)
    else:
        shutil.rmtree(folder)
    if damage != "deleted while it runs":
        house.start("worker")
    suggestion = house.proposed()
    assert "2 working days" in str(suggestion["text"])
    house.settle()


# -- stored bytes


def test_a_flipped_bit_in_a_stored_mail_is_noticed_when_it_is_read(house: House) -> None:
    message = question(next(house.numbers))
    assert house.hand_over(message)
    house.settle()
    newest = max((house.data / "blobs" / "raw").rglob("*.eml"), key=lambda one: one.stat().st_mtime_ns)
    content = newest.read_bytes()
    newest.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(StorageError, match="damaged"):
        house.container.blobs.get(newest.relative_to(house.data / "blobs").as_posix())
    with contextlib.suppress(smtplib.SMTPException):
        house.send(message)  # the sender's copy heals it
    assert newest.read_bytes() == content
    house.settle()


def test_the_whole_grid_left_nothing_behind(house: House, tell: Tell) -> None:
    check(house, tell, monotonic())
    # What a refused mail left of itself is collected after a day, and nothing else is.
    orphans = house.reconcile().orphans
    assert tidy(house.container.database, house.container.blobs, now=utcnow()) == 0
    assert tidy(house.container.database, house.container.blobs, now=utcnow() + AGE) == orphans
    after = house.reconcile()
    assert (after.orphans, after.problems) == (0, [])
