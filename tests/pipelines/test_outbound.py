"""One message from the outbox to a mail server: every fate it can meet, with real servers on the other side."""

from __future__ import annotations

import email
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from assistant.clock import utcnow
from assistant.db.contacts import Suppression
from assistant.db.messages import Attachment, Message
from assistant.db.profiles import Profile
from assistant.db.session import Database
from assistant.failpoints import arm
from assistant.services import contacts, outbox, sweeper
from assistant.settings import Settings
from assistant.states import Delivery, ProfileState
from assistant.values import Address, MessageClass
from channels.twins.smtp_receiver import Act, SmtpReceiver
from pipelines import outbound
from pipelines.outbound import Deliverer, Portal, open_channels
from tests.faults.proxy import FaultProxy, Toxic
from tests.faults.reconciler import reconcile
from tests.support.outboxes import add_thread, queue, status_of
from tests.support.servers import answers, find_binary, free_port, wait_until

MakeDeliverer = Callable[..., Deliverer]


class Files:
    """Attachments in memory."""

    def get(self, key: str) -> bytes:
        return b"content of " + key.encode()


@pytest.fixture
def portal() -> Iterator[Portal]:
    opened = Portal()
    yield opened
    opened.close()


@pytest.fixture
def deliverer(
    sqlite_database: Database, portal: Portal, make_settings: Callable[..., Settings]
) -> Iterator[MakeDeliverer]:
    made: list[Deliverer] = []

    def make(url: str = "", **values: Any) -> Deliverer:
        settings = make_settings(relay_timeout=2, **({"relay_url": url} if url else {}), **values)
        found = Deliverer(sqlite_database, open_channels(settings), portal, Files(), settings=settings)
        made.append(found)
        return found

    yield make
    for one in made:
        one.close()


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmtpReceiver]:
    monkeypatch.setattr("channels.support.smtp._FINAL_SECONDS", 1.0)
    with SmtpReceiver(port=free_port()) as receiver:
        yield receiver


@pytest.fixture
def message_id(sqlite_database: Database) -> str:
    return queue(sqlite_database, add_thread(sqlite_database, address="ann@example.com", external_id="<q@example.com>"))


def test_a_queued_message_arrives_once_however_often_the_task_runs(
    sqlite_database: Database, deliverer: MakeDeliverer, sink: SmtpReceiver, message_id: str
) -> None:
    working = deliverer(sink.url)
    threads = [threading.Thread(target=working.deliver, args=(message_id,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (mail,) = sink.mails
    parsed = email.message_from_bytes(mail.content)
    assert (mail.sender, mail.recipients) == ("support@example.org", ("ann@example.com",))
    assert parsed["In-Reply-To"] == "<q@example.com>"
    assert parsed["Message-ID"] == f"<{message_id}@example.org>"
    assert status_of(sqlite_database, message_id) is Delivery.SENT
    assert reconcile(sqlite_database, arrived=sink.counts()).problems == []


def _copied_to(database: Database, message_id: str, *addresses: str) -> None:
    with database.transaction() as session:
        message = session.get_one(Message, message_id)
        message.cc_addresses = [{"address": one, "name": ""} for one in addresses]


def _make_due(database: Database, message_id: str) -> None:
    with database.transaction() as session:
        session.get_one(Message, message_id).release_at = None


def test_who_was_asked_to_wait_gets_it_later_and_nobody_gets_it_twice(
    sqlite_database: Database, deliverer: MakeDeliverer, sink: SmtpReceiver, message_id: str
) -> None:
    _copied_to(sqlite_database, message_id, "slow@example.com", "gone@example.com")
    sink.recipients["slow@example.com"] = ["450 4.2.0 later"]
    sink.recipients["gone@example.com"] = "550 5.1.1 no such user"
    working = deliverer(sink.url)
    working.deliver(message_id)
    assert status_of(sqlite_database, message_id) is Delivery.QUEUED
    working.deliver(message_id)
    assert len(sink.mails) == 1, "not before its time"
    _make_due(sqlite_database, message_id)
    working.deliver(message_id)
    assert [mail.recipients for mail in sink.mails] == [("ann@example.com",), ("slow@example.com",)]
    assert sink.mails[0].content == sink.mails[1].content, "one mail: the same headers for everybody"
    with sqlite_database.reading() as session:
        message = session.get_one(Message, message_id)
        assert (message.status, message.error_code) == (Delivery.SENT, "partly-delivered")
        assert "gone@example.com: 550" in message.error_detail
        assert "slow" not in message.error_detail
        assert session.scalars(select(Suppression.address)).all() == ["gone@example.com"]


@pytest.mark.parametrize("answer", ["450 4.2.0 later", "550 5.2.2 full"])
def test_a_recipient_who_never_gets_it_leaves_a_message_that_says_so(
    sqlite_database: Database, deliverer: MakeDeliverer, sink: SmtpReceiver, message_id: str, answer: str
) -> None:
    _copied_to(sqlite_database, message_id, "slow@example.com")
    sink.recipients["slow@example.com"] = ["450 4.2.0 later", answer, answer]
    working = deliverer(sink.url, max_attempts=3)
    for _ in range(4):
        working.deliver(message_id)
        _make_due(sqlite_database, message_id)
    assert [mail.recipients for mail in sink.mails] == [("ann@example.com",)]
    with sqlite_database.reading() as session:
        message = session.get_one(Message, message_id)
        assert (message.status, message.error_code) == (Delivery.SENT, "partly-delivered")
        assert message.error_detail.startswith("slow@example.com: ")
        assert answer[:3] in message.error_detail


def test_somebody_who_says_stop_while_waiting_gets_nothing_more(
    sqlite_database: Database, deliverer: MakeDeliverer, sink: SmtpReceiver, message_id: str
) -> None:
    _copied_to(sqlite_database, message_id, "slow@example.com")
    sink.recipients["slow@example.com"] = ["450 4.2.0 later"]
    working = deliverer(sink.url)
    working.deliver(message_id)
    with sqlite_database.transaction() as session:
        contacts.suppress(session, Address("email", "slow@example.com"), cause="opt-out")
    _make_due(sqlite_database, message_id)
    working.deliver(message_id)
    assert len(sink.mails) == 1
    with sqlite_database.reading() as session:
        message = session.get_one(Message, message_id)
        assert (message.status, message.error_code) == (Delivery.SENT, "partly-delivered")


@pytest.mark.parametrize(
    ("message_class", "sender", "mark"),
    [
        (MessageClass.PERSONAL, "support@example.org", None),
        (MessageClass.AUTO_REPLY, "", "auto-replied"),
        (MessageClass.AUTO_GENERATED, "support@example.org", "auto-generated"),
    ],
)
def test_automatic_mail_is_marked_on_the_wire(
    sqlite_database: Database, deliverer: MakeDeliverer, sink: SmtpReceiver, message_class: MessageClass, sender: str,
    mark: str | None,
) -> None:  # fmt: skip
    deliverer(sink.url).deliver(queue(sqlite_database, add_thread(sqlite_database), message_class=message_class))
    assert sink.mails[0].sender == sender
    assert email.message_from_bytes(sink.mails[0].content)["Auto-Submitted"] == mark


def test_attachments_come_from_the_blob_store(
    sqlite_database: Database, deliverer: MakeDeliverer, sink: SmtpReceiver, message_id: str
) -> None:
    with sqlite_database.transaction() as session:
        session.add(
            Attachment(
                message_id=message_id, filename="bill.pdf", content_type="application/pdf", size=3, blob_key="k1"
            )
        )
    deliverer(sink.url).deliver(message_id)
    text, file = (part for part in email.message_from_bytes(sink.mails[0].content).walk() if not part.is_multipart())
    assert text.get_content_type() == "text/plain"
    assert file.get_payload(decode=True) == b"content of k1"


def test_without_a_relay_the_reply_waits_in_the_outbox_folder(
    sqlite_database: Database, deliverer: MakeDeliverer, message_id: str, tmp_path: Path
) -> None:
    working = deliverer()
    working.deliver(message_id)
    assert [file.name for file in (tmp_path / "var" / "outbox" / "new").iterdir()] == [f"{message_id}@example.org"]
    assert status_of(sqlite_database, message_id) is Delivery.SENT
    assert working.repeatable == {"email"}


@pytest.mark.parametrize(
    ("script", "status"),
    [
        (lambda sink: sink.recipients.update({"ann@example.com": "450 4.7.1 later"}), Delivery.QUEUED),
        (lambda sink: sink.recipients.update({"ann@example.com": "550 5.1.1 no such user"}), Delivery.FAILED),
        (lambda sink: sink.recipients.update({"ann@example.com": "552 5.2.2 full"}), Delivery.REJECTED),
        (lambda sink: sink.senders.append("421 4.3.2 closing"), Delivery.QUEUED),
        (lambda sink: sink.answers.append("451 4.3.0 later"), Delivery.QUEUED),
        (lambda sink: sink.answers.append("554 5.6.0 spam"), Delivery.REJECTED),
        (lambda sink: sink.answers.append(Act.CLOSE_AFTER_STORE), Delivery.UNKNOWN),
        (lambda sink: sink.answers.append(Act.CLOSE_BEFORE_STORE), Delivery.UNKNOWN),
        (lambda sink: sink.answers.append(Act.SAY_NOTHING), Delivery.UNKNOWN),
        (lambda sink: sink.senders.append("530 5.7.0 sign in"), Delivery.QUEUED),
    ],
)
def test_every_answer_leads_to_its_state(
    sqlite_database: Database,
    deliverer: MakeDeliverer,
    sink: SmtpReceiver,
    message_id: str,
    script: Callable[[SmtpReceiver], None],
    status: Delivery,
) -> None:
    script(sink)
    working = deliverer(sink.url)
    for _ in range(3):
        working.deliver(message_id)
    assert status_of(sqlite_database, message_id) is status
    assert sum(sink.dots.values()) <= 1
    found = reconcile(sqlite_database, arrived=sink.counts(), backlog=False)
    assert found.problems == []
    with sqlite_database.reading() as session:
        message = session.get_one(Message, message_id)
        assert message.error_code
        assert len(session.scalars(select(Suppression)).all()) == (status is Delivery.FAILED)


def test_a_greylisted_message_arrives_on_a_later_try(
    sqlite_database: Database, deliverer: MakeDeliverer, sink: SmtpReceiver, message_id: str
) -> None:
    sink.greylist = True
    working = deliverer(sink.url)
    working.deliver(message_id)
    with sqlite_database.transaction() as session:
        session.get_one(Message, message_id).release_at = utcnow() - timedelta(seconds=1)
    working.deliver(message_id)
    assert sink.counts() == {f"<{message_id}@example.org>": 1}
    assert status_of(sqlite_database, message_id) is Delivery.SENT


def test_refused_credentials_block_the_profile(
    sqlite_database: Database, deliverer: MakeDeliverer, sink: SmtpReceiver, message_id: str
) -> None:
    deliverer(f"smtp://bo:s3cret@127.0.0.1:{sink.port}").deliver(message_id)
    with sqlite_database.reading() as session:
        profile = session.scalars(select(Profile)).one()
        assert profile.state == ProfileState.BLOCKED
        assert "s3cret" not in profile.state_reason
    assert status_of(sqlite_database, message_id) is Delivery.QUEUED


@pytest.mark.parametrize(
    ("failpoint", "status"),
    [("send.before_carrier", Delivery.QUEUED), ("send.after_carrier", Delivery.UNKNOWN)],
)
def test_a_fault_of_our_own_is_known_unsent_before_the_carrier_and_unknown_after_it(
    sqlite_database: Database,
    deliverer: MakeDeliverer,
    sink: SmtpReceiver,
    message_id: str,
    failpoint: str,
    status: Delivery,
) -> None:
    arm(f"{failpoint}=raise")
    deliverer(sink.url).deliver(message_id)
    assert status_of(sqlite_database, message_id) is status


def test_the_two_ways_a_line_can_break_round_the_final_dot_are_told_apart(
    sqlite_database: Database, deliverer: MakeDeliverer, sink: SmtpReceiver
) -> None:
    thread_id = add_thread(sqlite_database)
    with FaultProxy(sink.port) as proxy:
        for after in range(0, 900, 30):
            proxy.toxics = [Toxic("cut", after=after)]
            deliverer(f"smtp://127.0.0.1:{proxy.port}").deliver(queue(sqlite_database, thread_id))
    found = reconcile(sqlite_database, arrived=sink.counts(), backlog=False)
    assert found.problems == []
    assert found.waiting > 0


@pytest.mark.timeout(300)
def test_a_worker_that_sleeps_past_its_lease_does_not_send_when_it_wakes_up(
    sqlite_database: Database, deliverer: MakeDeliverer, sink: SmtpReceiver, message_id: str
) -> None:
    """SIGSTOP past the lease, then SIGCONT: the person has sent it again meanwhile, and it still arrives once."""
    second = deliverer(sink.url, lease_seconds=5)
    child = os.fork()
    if not child:
        try:
            sqlite_database.engine.dispose(close=False)
            # It stops itself: a signal from outside would have to come within the moment between claim and carrier.
            stop = {"send.before_carrier": lambda: os.kill(os.getpid(), signal.SIGSTOP)}
            outbound.failpoint = lambda name: stop.get(name, lambda: None)()
            portal = Portal()
            settings = second._settings
            Deliverer(sqlite_database, open_channels(settings), portal, Files(), settings=settings).deliver(message_id)
        finally:
            os._exit(0)
    assert os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1])
    assert status_of(sqlite_database, message_id) is Delivery.SENDING
    time.sleep(3.0)  # more than half of the lease, after which a claim no longer begins to send
    with sqlite_database.transaction() as session:
        assert sweeper.sweep(session, now=utcnow() + timedelta(seconds=10)).unknown == 1
        outbox.resolve_unknown(session, message_id, outcome="resend", agent_id=None)
    second.deliver(message_id)
    os.kill(child, signal.SIGCONT)
    os.waitpid(child, 0)
    assert sink.counts() == {f"<{message_id}@example.org>": 1}
    assert status_of(sqlite_database, message_id) is Delivery.SENT


# -- Postfix


@pytest.fixture
def smtp_sink_of_postfix(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """Debian's smtp-sink: Postfix's own idea of a receiving server, writing every mail into a file."""
    program = find_binary("smtp-sink", "postfix")
    port = free_port()
    folder = Path("/tmp") / f"sink-{os.getpid()}-{port}"  # it must be reachable for the user nobody
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    with subprocess.Popen(
        [program, *user, "-d", "%M.", f"127.0.0.1:{port}", "100"], cwd=folder, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_until(lambda: answers(port), what="smtp-sink's answer")
            yield port, folder
        finally:
            process.terminate()
    shutil.rmtree(folder, ignore_errors=True)


def test_postfix_takes_our_mail_as_it_is(
    sqlite_database: Database, deliverer: MakeDeliverer, smtp_sink_of_postfix: tuple[int, Path]
) -> None:
    port, folder = smtp_sink_of_postfix
    working = deliverer(f"smtp://127.0.0.1:{port}")
    ids = [queue(sqlite_database, add_thread(sqlite_database), text=f"Grüße {number}\n.\n") for number in range(20)]
    for message_id in ids:
        working.deliver(message_id)
    sent = {f"<{message_id}@example.org>" for message_id in ids}

    def written() -> bool:
        return {email.message_from_bytes(file.read_bytes())["Message-ID"] for file in folder.iterdir()} == sent

    wait_until(written, what="a file for each mail")
    assert all(status_of(sqlite_database, message_id) is Delivery.SENT for message_id in ids)
