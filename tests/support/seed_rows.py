"""Threads in every state that a page can show, written straight into the tables: for pictures and page tests."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from assistant.clock import new_id, utcnow
from assistant.db.contacts import Contact, Identity
from assistant.db.messages import Attachment, Message, MessageEvent, Suggestion, Thread
from assistant.db.profiles import Profile
from assistant.db.session import Database
from assistant.services import knowledge
from assistant.states import Author, Delivery, Direction, SuggestionState, ThreadState, TriageState

__all__ = ["ANSWERS", "seed"]

SUPPORT = "support@lumen.example"
ANSWERS = (
    (
        "When a refund arrives",
        (
            "We send a refund to the original means of payment within 2 working days after the return reaches us. "
            "Banks take up to 5 working days more to show it. Shipping costs of the first delivery are refunded."
        ),
    ),
    (
        "Where is my parcel",
        (
            "Parcels inside the country arrive within 3 to 5 working days. You can follow yours with the number from the "
            "shipping mail. If the tracking has not moved for 4 working days, we start a search with the carrier."
        ),
    ),
    ("Return an item", "You can return unused items within 30 days after delivery. Returns are free of charge."),
    ("Get an invoice", "Every invoice is in your account under Orders as a PDF, from the day we ship."),
)
HOSTILE = (
    '<h1 style="color:#123">Invoice 4471</h1><p>Dear team, please see <a href="https://evil.example/pay">www.bank.example</a>.'
    '</p><script>fetch("https://evil.example/run")</script><img src="https://evil.example/pixel.gif" alt="our logo">'
    '<table border="1" cellpadding="6"><tr><th>Item</th><th>Price</th></tr><tr><td>Desk lamp Aurora</td><td>42.10</td></tr></table>'
)


def _trace(*, intent: str, decision: str, outcome: str = "ok") -> list[dict[str, Any]]:
    steps = (
        ("screen", "ok", 0.4, "a person wrote this", None),
        ("classify", "ok", 21.3, f"intent {intent} 0.94, spam 0.01", 0.94),
        ("retrieve", "ok", 8.7, "1 passage above the floor", 0.71),
        ("decide", outcome, 0.1, decision, None),
    )
    return [
        {"stage": stage, "outcome": result, "milliseconds": ms, "reason": reason, "score": score, "detail": {}}
        for stage, result, ms, reason, score in steps
    ]


class Seeder:
    """Writes one installation's worth of threads; `ids` names each by what it shows."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.ids: dict[str, str] = {}
        self.clock = utcnow()
        profile = session.query(Profile).first()
        if profile is None:
            profile = Profile(id=new_id(), channel="email", name="Lumen support", address=SUPPORT)
            session.add(profile)
            session.flush()
        self.profile = profile

    def contact(self, name: str, address: str) -> Contact:
        contact = Contact(id=new_id(), display_name=name)
        self.session.add(contact)
        self.session.flush()
        self.session.add(Identity(contact_id=contact.id, channel="email", address=address, display_name=name))
        return contact

    def thread(
        self, key: str, name: str, address: str, subject: str, text: str, *, minutes: float = 5, **values: Any
    ) -> Thread:
        """A thread with one inbound message."""
        contact = self.contact(name, address)
        at = self.clock - timedelta(minutes=minutes)
        labels = values.pop("labels", None)
        extra = values.pop("message", {})
        intent = values.get("intent", "other")
        thread = Thread(
            id=new_id(),
            profile_id=self.profile.id,
            contact_id=contact.id,
            channel="email",
            **(
                {
                    "subject": subject,
                    "base_subject": subject.lower(),
                    "snippet": " ".join(text.split())[:200],
                    "message_count": 1,
                    "last_message_at": at,
                    "last_inbound_at": at,
                    "certainty": 0.9,
                    "spam_score": 0.01,
                    "intent_score": 0.94,
                }
                | values
            ),
        )
        self.session.add(thread)
        self.session.flush()
        self.ids[key] = thread.id
        if labels is None:
            labels = [{"name": f"intent:{intent}", "score": 0.94}, {"name": "spam:spam", "score": 0.01}]
        values = {"labels": labels, "trace": _trace(intent=intent, decision="suggest")} | extra
        self.ids[f"{key}-message"] = self.inbound(thread, name, address, text, at=at, **values).id
        return thread

    def inbound(self, thread: Thread, name: str, address: str, text: str, *, at: Any, **values: Any) -> Message:
        identity = new_id()
        message = Message(
            id=identity,
            thread_id=thread.id,
            profile_id=self.profile.id,
            direction=Direction.INBOUND,
            author=Author.CONTACT,
            status=Delivery.RECEIVED,
            external_id=f"<{identity}@mail.example>",
            subject=thread.subject,
            from_address=address,
            from_name=name,
            to_addresses=[{"address": self.profile.address, "name": self.profile.name}],
            occurred_at=at,
            **({"new_text": text, "triage": TriageState.DONE} | values),
        )
        message.text = text
        self.session.add(message)
        self.session.flush()
        return message

    def outbound(self, thread: Thread, address: str, text: str, *, at: Any, **values: Any) -> Message:
        identity = new_id()
        message = Message(
            id=identity,
            thread_id=thread.id,
            profile_id=self.profile.id,
            direction=Direction.OUTBOUND,
            external_id=f"<{identity}@lumen.example>",
            subject=f"Re: {thread.subject}",
            text=text,
            new_text=text,
            from_address=self.profile.address,
            from_name=self.profile.name,
            to_addresses=[{"address": address, "name": ""}],
            occurred_at=at,
            **({"author": Author.AGENT, "status": Delivery.SENT, "sent_at": at} | values),
        )
        self.session.add(message)
        self.session.flush()
        kind = "sent" if message.status == Delivery.SENT else str(message.status)
        event = MessageEvent(
            message_id=identity, event_id=f"{identity}:{kind}", kind=kind, occurred_at=at, actor="worker"
        )
        self.session.add(event)
        return message

    def suggest(self, key: str, text: str, **values: Any) -> Suggestion:
        """A suggestion for the inbound message of a seeded thread."""
        suggestion = Suggestion(
            id=new_id(),
            thread_id=self.ids[key],
            message_id=self.ids[f"{key}-message"],
            **(
                {
                    "state": SuggestionState.PROPOSED,
                    "text": text,
                    "word": "ready",
                    "confidence": 0.91,
                    "model": "smollm2-360m-instruct-q8",
                    "milliseconds": 1840.0,
                    "prompt_tokens": 212,
                    "completion_tokens": 64,
                    "reasons": [
                        "answers with “When a refund arrives”, similarity 0.71",
                        "every number and link is in the source",
                    ],
                    "citations": [
                        {
                            "source": title,
                            "text": body,
                            "document_id": "",
                            "version": 7 - number,
                            "score": 0.71 - number / 10,
                        }
                        for number, (title, body) in enumerate(ANSWERS[:2])
                    ],
                    "checks": [{"name": "numbers", "passed": True, "detail": ""}],
                }
                | values
            ),
        )
        self.session.add(suggestion)
        self.session.flush()
        self.ids[f"{key}-suggestion"] = suggestion.id
        return suggestion


def seed(database: Database, *, many: int = 0) -> dict[str, str]:
    """Fill an empty database; returns ids by what they show (`refund`, `refund-message`, `refund-suggestion` ...)."""
    with database.transaction() as session:
        for title, text in ANSWERS:
            knowledge.add(session, title=title, text=text)
        seeder = Seeder(session)
        _proposed(seeder)
        _other_faces(seeder)
        _elsewhere(seeder)
        for number in range(many):
            seeder.thread(
                f"many-{number}",
                f"Customer {number}",
                f"c{number}@example.net",
                f"Question {number}",
                f"This is question number {number}.",
                minutes=200 + number,
                unread=False,
            )
    return seeder.ids


def _proposed(seeder: Seeder) -> None:
    now = seeder.clock
    refund = seeder.thread(
        "refund",
        "Ana Silva",
        "ana.silva@example.net",
        "Refund for order 48213",
        "Hello,\n\nI sent the desk lamp back ten days ago (order 48213) and I still do not see the 42.10 on my account. "
        "Could you tell me when it arrives?\n\nThank you\nAna",
        minutes=4,
        intent="refund_status",
        needs_review=True,
        suggestion_mark="ready",
        message_count=3,
        urgency="high",
    )
    seeder.inbound(
        refund,
        "Ana Silva",
        "ana.silva@example.net",
        "Hi! How do I send a lamp back? It is the wrong colour.",
        at=now - timedelta(days=11),
        labels=[],
        trace=[],
    )
    seeder.outbound(
        refund,
        "ana.silva@example.net",
        "Hello Ana,\n\nYou can return unused items within 30 days after delivery. "
        "Returns are free of charge.\n\nKind regards,\nLumen support",
        at=now - timedelta(days=10, hours=20),
    )
    seeder.suggest(
        "refund",
        "Hello Ana,\n\nWe send a refund to the original means of payment within 2 working days after the return reaches us [1]. "
        "Banks take up to 5 working days more to show it [1], so it should be visible this week.\n\nKind regards,\nLumen support",
    )
    seeder.thread(
        "parcel",
        "Bo Lindqvist",
        "bo@example.org",
        "Tracking has not moved since Monday",
        "My parcel 7731-22 has been in the same depot for five days. Is it lost?",
        minutes=17,
        intent="order_status",
        needs_review=True,
        suggestion_mark="check",
        certainty=0.58,
    )
    seeder.suggest(
        "parcel",
        "Hello Bo,\n\nIf the tracking has not moved for 4 working days, we start a search with the carrier today [1].\n\n"
        "Kind regards,\nLumen support",
        word="check",
        confidence=0.64,
        checks=[{"name": "numbers", "passed": False, "detail": "today"}],
        citations=[{"source": ANSWERS[1][0], "text": ANSWERS[1][1], "document_id": "", "version": 2, "score": 0.66}],
    )
    seeder.thread(
        "drafting",
        "Chiara Rossi",
        "chiara@example.it",
        "Fattura per l'ordine 51002",
        "Buongiorno, dove trovo la fattura del mio ordine?",
        minutes=1,
        intent="invoice",
        suggestion_mark="drafting",
        needs_review=True,
    )
    seeder.suggest("drafting", "", state=SuggestionState.DRAFTING, word="check", confidence=0.0)


def _other_faces(seeder: Seeder) -> None:
    now = seeder.clock
    stale = seeder.thread(
        "stale",
        "Dmitri Petrov",
        "dmitri@example.com",
        "Change the delivery address",
        "Please send it to my office instead.",
        minutes=55,
        intent="change_address",
        suggestion_mark="stale",
        needs_review=True,
        message_count=2,
    )
    seeder.suggest(
        "stale", "Hello Dmitri,\n\nYou can change the address in your account [1].", state=SuggestionState.EXPIRED
    )
    seeder.inbound(
        stale,
        "Dmitri Petrov",
        "dmitri@example.com",
        "Sorry, I meant the summer house, not the office.",
        at=now - timedelta(minutes=30),
        trace=_trace(intent="change_address", decision="suggest"),
    )
    seeder.thread(
        "none",
        "Eve Okafor",
        "eve@example.net",
        "I would like to talk to a human",
        "Please call me back, I do not want to read another automatic answer.",
        minutes=80,
        intent="human",
        needs_review=True,
        message={"trace": _trace(intent="human", decision="asks for a human", outcome="handoff")},
        urgency="urgent",
    )
    seeder.thread(
        "failed",
        "Finn Berg",
        "finn@example.no",
        "Do you ship to Norway?",
        "Hi, do you ship to Norway and what does it cost?",
        minutes=100,
        intent="shipping",
        needs_review=True,
    )
    seeder.suggest("failed", "", state=SuggestionState.REJECTED, reject_reason="failed", reasons=["no passage found"])
    html = seeder.thread(
        "html",
        "Grace Hopper",
        "grace@navy.example",
        "Invoice 4471 with pictures",
        "Dear team, please see the attached invoice.",
        minutes=130,
        attachment_count=1,
        intent="invoice",
        unread=False,
        message={"html": HOSTILE},
    )
    seeder.session.add(
        Attachment(
            message_id=seeder.ids["html-message"],
            filename="invoice-4471.pdf",
            content_type="application/pdf",
            size=48_213,
            blob_key="att/none",
        )
    )
    html.assignee_id = None
    long = seeder.thread(
        "long",
        "Hanna Kim",
        "hanna@example.kr",
        "Two lamps, three questions",
        "And one last thing: is the switch on the cable?",
        minutes=160,
        message_count=9,
        unread=False,
        starred=True,
    )
    for number in range(8):
        at = now - timedelta(hours=60 - number * 6)
        if number % 2:
            seeder.outbound(long, "hanna@example.kr", f"Hello Hanna, the answer to question {number} is yes.", at=at)
        else:
            text = f"Question {number + 1}: does it fit?"
            seeder.inbound(long, "Hanna Kim", "hanna@example.kr", text, at=at, labels=[], trace=[])


def _elsewhere(seeder: Seeder) -> None:
    now = seeder.clock
    seeder.thread(
        "spam",
        "Prize Office",
        "winner@lottery.example",
        "You have WON 1,000,000 USD!!!",
        "Send your bank data to claim it today.",
        minutes=40,
        state=ThreadState.SPAM,
        spam_score=0.98,
        labels=[{"name": "spam:spam", "score": 0.98}],
    )
    seeder.thread(
        "maybe-spam",
        "SEO Agency",
        "hello@seo.example",
        "Quick question about your website",
        "We can bring you to page one of Google.",
        minutes=45,
        spam_score=0.71,
        needs_review=True,
        certainty=0.29,
    )
    seeder.thread(
        "snoozed",
        "Ivan Novak",
        "ivan@example.cz",
        "Spare part for lamp Nova",
        "When will the part be back in stock?",
        minutes=600,
        state=ThreadState.SNOOZED,
        snoozed_until=now + timedelta(days=1),
        unread=False,
    )
    seeder.thread(
        "done",
        "Jane Doe",
        "jane@example.net",
        "Thank you!",
        "It works now, thanks.",
        minutes=900,
        state=ThreadState.CLOSED,
        unread=False,
    )
    seeder.thread(
        "trash",
        "Kurt Weil",
        "kurt@example.de",
        "Test",
        "Just a test.",
        minutes=1200,
        state=ThreadState.TRASH,
        unread=False,
    )
    outcomes = (
        ("sent", "Lena Maier", Delivery.SENT, {}),
        ("held", "Mona Ali", Delivery.HELD, {"release_at": now + timedelta(hours=1), "sent_at": None}),
        ("unknown", "Nils Holm", Delivery.UNKNOWN, {"sent_at": None}),
        ("bounced", "Olga Popova", Delivery.BOUNCED, {"error_detail": "mailbox full"}),
        (
            "undeliverable",
            "Pia Lund",
            Delivery.FAILED,
            {"error_detail": "relay refused the connection", "sent_at": None},
        ),
    )
    for number, (key, name, status, extra) in enumerate(outcomes):
        address = f"{name.split()[0].lower()}@example.net"
        thread = seeder.thread(
            key,
            name,
            address,
            f"Question about order 51{number}02",
            "Can I add a second lamp to my order?",
            minutes=240 + 60 * number,
            has_outbound=True,
            last_direction=Direction.OUTBOUND,
            unread=False,
            message_count=2,
        )
        message = seeder.outbound(
            thread,
            address,
            "Hello, yes: reply with the name of the lamp and we add it.",
            at=now - timedelta(minutes=230 + 60 * number),
            status=status,
            **extra,
        )
        seeder.ids[f"{key}-outbound"] = message.id
