"""Every label of a text from one pass of the encoder: spam by the encoder itself, the rest by the heads of this folder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from assistant.errors import ModelUnavailable
from assistant.values import Label
from models.base import Vectors
from models.batching import Batches
from models.bert import Encoder
from models.clues import reasons
from models.heads.evidence import Evidence
from models.heads.intents import Intents, Lessons, Nearest
from models.heads.language import Languages
from models.heads.linear import one_thread
from models.heads.mixed import Mixed
from models.heads.taught import HeadLessons, HeadMemory, Recalled
from models.heads.weights import Weights
from models.heads.wording import columns, may_ask_out, optout_lexicon, sentences
from models.memory import SpamMemory
from models.reading import readable
from models.spam import Clues, Verdict

__all__ = ["HEADS", "Labeller"]

_TOLD = 0.5
"""How much a correction counts where an agent is told of it."""

HEADS = ("spam", "intent", "reply_intent", "urgency", "sentiment", "language", "optout")
_WORDED = frozenset({"reply_intent", "urgency", "sentiment", "optout"})
"""Heads that read the wording beside the vector."""


@dataclass(frozen=True)
class _Words:
    """What the worded heads read of texts, one entry a text."""

    columns: list[npt.NDArray[np.int64]]
    single: list[bool]
    """Whether a text is one sentence: then its opt-out is looked for in the whole of it."""
    asking: list[list[str]]
    """Of several sentences those that may ask not to be written to."""

    @classmethod
    def of(cls, texts: Sequence[str]) -> _Words:
        parts = [sentences(text) for text in texts]
        return cls(
            [columns(text, optout_lexicon()) for text in texts],
            [len(ones) <= 1 for ones in parts],
            [[one for one in ones if may_ask_out(one)] if len(ones) > 1 else [] for ones in parts],
        )


def _nothing(version: str) -> Lessons | None:
    return None if version else Lessons("shipped")


def _no_corrections(version: str) -> HeadLessons | None:
    return None


class Labeller:
    """Classifier and embedder in one, as the encoder it stands on. `taught` gives what people taught (`Intents`), `observe` is
    told how many texts each pass of the encoder takes (`Batches`).
    """

    def __init__(
        self,
        encoder: Encoder,
        taught: Callable[[str], Lessons | None] | None = None,
        taught_spam: Callable[[str], Lessons | None] | None = None,
        taught_heads: Callable[[str], HeadLessons | None] | None = None,
        *,
        observe: Callable[[int], None] | None = None,
    ) -> None:
        self.encoder = encoder
        self.weights = Weights(encoder.folder, exact=encoder.exact)
        self.intents = Intents(encoder, self.weights.shipped, taught or _nothing)
        self.languages = Languages()
        self.memory = SpamMemory(taught_spam or _nothing)
        self.taught = HeadMemory(encoder, taught_heads or _no_corrections)
        self._batches = Batches(encoder.embed, observe=observe)

    @property
    def name(self) -> str:
        try:
            return self.encoder.name
        except ModelUnavailable:  # its manifest is lost: what labels are left are the judge's of mails
            return str(self.encoder.judge.facts["name"])

    @property
    def dimensions(self) -> int:
        return self.encoder.dimensions

    @property
    def ready(self) -> bool:
        return self.encoder.ready

    def load(self, heads: Collection[str] = HEADS) -> None:
        """Read everything that some heads need now instead of on first use, side by side. What cannot be read is in `faults`."""
        one_thread()
        needed: dict[str, Callable[[], object]] = {
            "language": self.languages.load,
            "spam": self.encoder.judge.fault,
            "intent": self._train,
        }
        with ThreadPoolExecutor(len(needed) + 2) as pool:
            coming: list[Future[object]] = [pool.submit(self.encoder.network_fault)]
            coming += [pool.submit(self.encoder.messages_fault)] if "spam" in heads else []
            coming += [pool.submit(work) for head, work in needed.items() if head in heads]
            for one in coming:
                one.result()
        if not _WORDED.isdisjoint(heads):
            self.mixed()

    def _train(self) -> None:
        """Train the head of intents now, where there is what it needs."""
        if not self.faults(("intent",)):
            self.intents.trained()

    def faults(self, heads: Collection[str] = HEADS) -> dict[str, ModelUnavailable]:
        """Head -> why it says nothing, or (spam) not all that it should, with the way to mend it. Empty where all are whole."""
        network = self.encoder.network_fault()
        own = self.weights.faults() if not {"intent", *_WORDED}.isdisjoint(heads) else {}
        found = {head: network or own.get(head) for head in HEADS if head in heads and head not in {"spam", "language"}}
        if "spam" in heads:
            found["spam"] = self._spam_lacks(network)
        return {head: fault for head, fault in found.items() if fault is not None}

    def _spam_lacks(self, network: ModelUnavailable | None) -> ModelUnavailable | None:
        lacks = {
            "no mail is judged": self.encoder.judge.fault(),
            "no text message is judged": self.encoder.messages_fault(),
            "what words leave open is judged by its words alone": network,
        }
        told = [f"{what}: {fault.message}" for what, fault in lacks.items() if fault is not None]
        return ModelUnavailable("; ".join(told)) if told else None

    def embed(self, texts: Sequence[str]) -> Vectors:
        """As the encoder's, together with what other threads ask for at the same moment."""
        return self._batches(texts)

    def classify(
        self, texts: Sequence[str], clues: Sequence[Clues] = (), *, heads: Collection[str] = HEADS
    ) -> list[list[Label]]:
        """Labels of every head for each text, best first within a head. A text too short to tell has no language.

        Texts are read as `models.reading` says, whoever hands them in.

        `clues` are what mails show besides their words (`models.clues`), one set a text. A head that cannot be read (`faults`)
        gives no labels, and the others go on: without the network spam is told by words alone. Raises `ModelUnavailable` where
        only the language is left and more was asked. `heads` asks for these alone: the others cost nothing then.
        """
        if not texts:
            return []
        if not self.ready:
            self.load(heads)
        network = self.encoder.network_fault()
        if network is not None and self.encoder.judge.fault() is not None and set(heads) != {"language"}:
            raise ModelUnavailable(network.message) from network
        own = self.weights.faults()
        texts, given = [readable(text) for text in texts], list(clues) or [()] * len(texts)
        judged = self._judged(texts, given) if "spam" in heads else []
        tongues: Sequence[Label | None] = [None] * len(texts)
        words: _Words | None = None
        vectors: Vectors | None = None
        with ThreadPoolExecutor(1) as beside:  # the encoder works outside the interpreter, which reads words meanwhile
            coming = beside.submit(self.embed, texts) if network is None else None
            if "language" in heads:
                tongues = self.languages.label(texts)
            if not _WORDED.isdisjoint(heads) and coming is not None:
                words = _Words.of(texts)
            said = self.encoder.spam_words([texts[row] for row in judged], [given[row] for row in judged])
            if coming is not None:
                vectors = coming.result()
        found: list[list[Label]] = [[] for _ in texts]
        shown = [texts[row] for row in judged]
        seen = vectors[judged] if vectors is not None else None
        verdicts = self.encoder.spam(shown, [given[row] for row in judged], vectors=seen, words=said)
        for row, labels in zip(judged, self._spam(verdicts, shown), strict=True):
            found[row] += labels
        if vectors is not None and "intent" in heads and "intent" not in own:
            found = [[*mine, *more] for mine, more in zip(found, self.intents.label(vectors), strict=True)]
        nothing: list[list[Label]] = [[] for _ in texts]
        further = self._further(vectors, words) if words is not None and vectors is not None else nothing
        recalled = self.taught.recall(texts, vectors) if vectors is not None else [{} for _ in texts]
        return [
            [
                *found[row],
                *_corrected(
                    [*further[row], *[tongue for tongue in (tongues[row],) if tongue is not None]], recalled[row]
                ),
            ]
            for row in range(len(texts))
        ]

    def _judged(self, texts: Sequence[str], clues: Sequence[Clues]) -> list[int]:
        """The rows that get a verdict on spam."""
        return [row for row in range(len(texts)) if self.encoder.spam_fault(texts[row], clues[row]) is None]

    def spam_fault(self, text: str, clues: Clues = ()) -> str:
        """Why there is no verdict on a text, with the way to mend it; nothing where there is one, be it by words alone."""
        fault = self.encoder.spam_fault(readable(text), clues)
        return fault.message if fault is not None else ""

    def spam_only(self, texts: Sequence[str], clues: Sequence[Clues] = ()) -> list[list[Label]]:
        """The spam labels alone: the encoder runs only where words leave a text open. None where there is no verdict (`spam_fault`)."""
        texts, given = [readable(text) for text in texts], list(clues) or [()] * len(texts)
        judged = self._judged(texts, given)
        shown = [texts[row] for row in judged]
        found: list[list[Label]] = [[] for _ in texts]
        verdicts = self.encoder.spam(shown, [given[row] for row in judged])
        for row, labels in zip(judged, self._spam(verdicts, shown), strict=True):
            found[row] = labels
        return found

    def spam_because(self, text: str, clues: Clues = ()) -> dict[str, Any]:
        """Why a text is held for spam or not: the stage that decided, words with their weights, reasons, a correction."""
        (like,) = self.memory.like([text := readable(text)])
        stage = self.encoder.spam_stage(text, clues)
        return {
            "stage": "memory" if like is not None and like.decides else stage,
            "words": [[word, round(weight, 2)] for word, weight in self.encoder.evidence(text, clues, limit=8)],
            "reasons": reasons(tuple(clues)),
            "like": f"{like.text[:120]} ({like.similarity:.2f})" if like is not None else "",
            "called": "" if like is None else "spam" if like.spam else "ham",
        }

    def _spam(self, verdicts: Sequence[Verdict], texts: Sequence[str]) -> list[list[Label]]:
        found = []
        for verdict, like in zip(verdicts, self.memory.like(texts), strict=True):
            p = verdict.score if like is None else like.applied(verdict.score)
            found.append(sorted((Label("spam:spam", p), Label("spam:ham", 1 - p)), key=lambda label: -label.score))
        return found

    def _further(self, vectors: Vectors, words: _Words) -> list[list[Label]]:
        """Kind of reply, urgency and sentiment of whole texts; opt-out of the sentence that asks for it most."""
        found: list[list[Label]] = [[] for _ in words.columns]
        asking = None
        for head in self.mixed():
            if head.name == "optout":
                asking = head
                continue
            for row, table in enumerate(head.probabilities(words.columns, vectors)):
                best = np.argsort(-table, kind="stable")[:3]
                found[row] += [Label(f"{head.name}:{head.labels[i]}", float(table[i])) for i in best]
        for row, score in enumerate(self._optouts(asking, vectors, words) if asking is not None else ()):
            pair = (Label("optout:yes", score), Label("optout:no", 1 - score))
            found[row] += sorted(pair, key=lambda label: -label.score)
        return found

    def _optouts(self, head: Mixed, vectors: Vectors, words: _Words) -> list[float]:
        yes = head.labels.index("yes")
        alone = head.probabilities(words.columns, vectors)[:, yes]
        scores = [float(p) if single else 0.0 for p, single in zip(alone, words.single, strict=True)]
        asked = [(row, part) for row, parts in enumerate(words.asking) for part in parts]
        for (row, _), score in zip(asked, self._asks_out(head, [part for _, part in asked]), strict=True):
            scores[row] = max(scores[row], score)
        return scores

    def _asks_out(self, head: Mixed, parts: Sequence[str]) -> list[float]:
        """How probably each sentence asks not to be written to."""
        if not parts:
            return []
        table = head.probabilities([columns(part, optout_lexicon()) for part in parts], self.embed(parts))
        return [float(p) for p in table[:, head.labels.index("yes")]]

    def mixed(self) -> tuple[Mixed, ...]:
        return self.weights.mixed()

    def nearest(self, text: str, intent: str) -> Nearest | None:
        """The example of an intent that is most like a text: the reason that an agent is shown."""
        return self.intents.nearest(self.embed([text]), intent)

    def because(
        self, texts: Sequence[str], labels: Sequence[Label], claims: Mapping[str, str], *, spam: bool
    ) -> tuple[list[str], dict[str, list[tuple[str, float]]]]:
        """Why the labels that are claimed (`claims`, head -> label), for an agent.

        Sentences: the most alike example of the intent, the words that weighed most for spam, what an agent said. And, head ->
        words with weights, what weighed most for kind of reply, urgency, sentiment and opt-out. `texts` are the windows of one
        text: an opt-out is looked for in all of them, the rest stands in the first.
        """
        said = []
        text, intent = texts[0], claims.get("intent", "")
        vectors = self.embed([text]) if self.encoder.network_fault() is None else None
        alike = self.intents.nearest(vectors, intent) if intent and vectors is not None else None
        if alike is not None:
            said.append(f"like “{alike.text[:120]}” ({alike.similarity:.2f})")
        weighed = self.evidence(text) if spam and not self.spam_fault(text) else []
        if words := [word for word, weight in weighed if weight > 0 and not word.startswith("#")]:
            said.append("words: " + ", ".join(words))
        (recalled,) = self.taught.recall([text], vectors) if vectors is not None else ({},)
        told = {head: one for head, one in recalled.items() if one.weight >= _TOLD}
        said += [f"{head} {one.label} as an agent said of “{one.text[:120]}”" for head, one in told.items()]
        # What an agent said decided there, and no word of the text.
        own = {head: label for head, label in claims.items() if head not in told}
        return said, self._weighed(texts, labels, own) if vectors is not None else {}

    def _weighed(
        self, texts: Sequence[str], labels: Sequence[Label], claims: Mapping[str, str]
    ) -> dict[str, list[tuple[str, float]]]:
        found = {}
        first: Evidence | None = None
        for head in self.mixed():
            label = claims.get(head.name)
            if label not in head.labels:
                continue
            if head.name == "optout":
                read = Evidence.of(self._asking(head, texts))
            else:
                read = first = first or Evidence.of(texts[0])
            rest = {one.value: one.score for one in labels if one.head == head.name}
            found[head.name] = read.words(head, label, rest)
        return {head: words for head, words in found.items() if words}

    def _asking(self, head: Mixed, texts: Sequence[str]) -> str:
        """The sentence by which an opt-out was told: of a text that is one sentence the whole."""
        words = _Words.of(texts)
        parts = [
            part
            for text, single, asking in zip(texts, words.single, words.asking, strict=True)
            for part in ([text] if single else asking)
        ]
        if len(parts) <= 1:
            return parts[0] if parts else texts[0]
        return parts[int(np.argmax(self._asks_out(head, parts)))]

    def evidence(self, text: str, *, limit: int = 5) -> list[tuple[str, float]]:
        return self.encoder.evidence(text, limit=limit)


def _corrected(found: list[Label], recalled: dict[str, Recalled]) -> list[Label]:
    """Labels with what agents said of texts like this one; a head that was silent speaks when it was taught to."""
    heads = list(dict.fromkeys((*[label.head for label in found], *recalled)))
    made: list[Label] = []
    for head in heads:
        own = [label for label in found if label.head == head]
        made += recalled[head].applied(head, own) if head in recalled else own
    return made
