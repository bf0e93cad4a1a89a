"""The encoder: MiniLM on ONNX Runtime (int8), whose one forward pass is read by every head; and spam, which words settle first.

A folder holds `model.onnx`, `tokenizer.json`, `heads.npz` and `manifest.json`; the manifest carries the SHA-256 of each
file, the label order, calibration, licence and data notes. No pickle is ever read, and nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from assistant.errors import ModelUnavailable
from models.ahead import Ahead
from models.base import Vectors
from models.clues import of_mail, reasons
from models.parts import Part, arrays_in
from models.reading import ends, readable
from models.spam import FOLDER, Clues, Read, Short, SpamJudge, Verdict

__all__ = ["FILES", "FORMAT", "TOLERANCE", "Encoder", "SpamWords", "pack"]

TOLERANCE = 1e-5
"""Most that a probability of a text may differ between batches and numbers of threads."""
FORMAT = 3
_NETWORK = ("model.onnx", "tokenizer.json")
_HEADS = "heads.npz"
FILES = (*_NETWORK, _HEADS)
_FIX = "restore the folder from the release or rebuild it: notifyr train (needs the train extra)"
_SLOWER = ["SkipLayerNormFusion"]
"""The fused kernel of addition and normalisation takes several times as long on a CPU as the two it replaces."""
_TOGETHER = 256
"""Tokens of one pass over several texts; the more, the more unevenly the threads end."""
_MANY = 16
"""Texts from which words are read while the network works on what others leave open, and so many at a time."""
_HEAD_SHARE = 0.75
_CHARACTERS = (16_000, 4_000)
"""Characters of a long text that reach the tokenizer: its front and its end."""
_ENOUGH = (8, 4)
"""Characters for each token of the limit that are tried first: of a mail's front, and of its end."""
Floats = npt.NDArray[np.float32]
Ids = tuple[int, ...]


@dataclass(frozen=True)
class SpamWords:
    """What the words of texts say of spam, by row."""

    short: dict[int, float]
    """Of text messages the score of their words."""
    mails: list[int]
    """Rows of the others; `read` has theirs in this order."""
    read: Read


class Encoder:
    """Sentence vectors, and spam. Loaded on first use, once; safe to call from several threads.

    `tokens` says how many are read of a long text, in stretches of as many as one pass takes (the manifest's `max_tokens`); less
    than one stretch is one.

    Raises `ModelUnavailable` (missing, truncated, altered or other files) with the command that mends it.
    """

    exact: ClassVar[bool] = False
    """Whether the network runs in fp32, whose vectors are never likened to those of int8."""

    def __init__(self, folder: Path, *, threads: int = 2, tokens: int = 0) -> None:
        self.folder = folder
        self._threads = threads
        self._tokens = tokens
        self._lock = threading.Lock()
        self._manifest: dict[str, Any] = {}
        # Apart, so that a network that cannot be read takes no words with it, and no head the network.
        self._network = Part(self._read_network, [folder / name for name in ("manifest.json", *_NETWORK)])
        self._messages = Part(self._read_messages, [folder / name for name in ("manifest.json", _HEADS)])
        self._one: Any = None
        self.judge = SpamJudge(folder / FOLDER)

    @property
    def name(self) -> str:
        """Of the weights, and how much they are given to read: an index of other vectors is built anew."""
        more = f"-{self.tokens}" if self.tokens > int(self._meta()["max_tokens"]) else ""
        return f"{self._meta()['name']}{more}"

    @property
    def tokens(self) -> int:
        """Most tokens of one text that reach the network, with those that begin and end each stretch."""
        stretch = int(self._meta()["max_tokens"])
        return max(1, self._tokens // stretch) * stretch

    @property
    def dimensions(self) -> int:
        return int(self._meta()["dimensions"])

    @property
    def ready(self) -> bool:
        return self._network.ready and self._messages.ready

    def facts(self) -> dict[str, Any]:
        """What the manifest says of the weights: name, base, engine, licence, data; and the tokens that are read of a text."""
        return self._meta() | {"tokens": self.tokens}

    def load(self) -> None:
        """Read and check the files now instead of on first use: the network, and what text messages are judged with."""
        self._network.load()
        self._messages.load()

    def network_fault(self) -> ModelUnavailable | None:
        """Why there are no vectors; None where the network is whole."""
        return self._network.fault()

    def messages_fault(self) -> ModelUnavailable | None:
        """Why no text message is judged; None where what judges them is whole. Mails have a judge of their own (`judge`)."""
        return self._messages.fault()

    def spam_fault(self, text: str, clues: Clues = ()) -> ModelUnavailable | None:
        """Why a text gets no verdict on spam; None where it gets one, be it by its words alone."""
        if _may_be_short(text, clues):
            return self.messages_fault() or (None if self._is_short(text) else self.judge.fault())
        return self.judge.fault()

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, shape `(len(texts), dimensions)`, float32. Texts that read the same to the encoder cost one pass."""
        self._network.load()
        read = [tuple(ids) for ids in self._ids(texts)]
        parts = {ids: self._stretches(ids) for ids in read}
        places = {ids: place for place, ids in enumerate(dict.fromkeys(one for ones in parts.values() for one in ones))}
        out = self._passed(places)
        found = {ids: _whole([(len(one), out[places[one]]) for one in ones]) for ids, ones in parts.items()}
        return np.stack([found[ids] for ids in read]) if read else out

    def _passed(self, places: dict[Ids, int]) -> Vectors:
        """The vector of each stretch, in the row of its place."""
        out = np.zeros((len(places), self.dimensions), dtype=np.float32)
        passes = _passes(places, self._threads)
        if self._threads == 1 or len(places) < self._threads:
            for texts_of in passes:
                self._fill(out, self._session, texts_of, places)
            return out
        narrow = self._narrow()
        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(lambda texts_of: self._fill(out, narrow, texts_of, places), passes))
        return out

    def _stretches(self, ids: Ids) -> list[Ids]:
        """A text in parts of like length that one pass takes each, with the first and the last token round every one."""
        most = int(self._manifest["max_tokens"])
        if len(ids) <= most:
            return [ids]
        first, *inner, last = ids
        count = -(-len(inner) // (most - 2))
        size = -(-len(inner) // count)
        return [(first, *inner[start : start + size], last) for start in range(0, len(inner), size)]

    def spam_words(self, texts: Sequence[str], clues: Sequence[Clues] = ()) -> SpamWords:
        """What the words of texts say of spam: the part of `spam` that needs no encoder, and may be done beside it."""
        given = list(clues) or [()] * len(texts)
        short, mails = self._kinds(texts, given)
        return SpamWords(
            {row: self._of_short.lexical(texts[row]) for row in short},
            mails,
            self.judge.read([texts[row] for row in mails], [given[row] for row in mails]),
        )

    def _kinds(self, texts: Sequence[str], clues: Sequence[Clues]) -> tuple[list[int], list[int]]:
        """Rows that are judged as text messages, and the others."""
        short = [row for row in range(len(texts)) if self._as_message(texts[row], clues[row])]
        return short, sorted(set(range(len(texts))) - set(short))

    def _words_with_vectors(
        self, texts: Sequence[str], clues: Sequence[Clues]
    ) -> tuple[SpamWords, Callable[[Sequence[int]], Vectors]]:
        """As `spam_words`, and the vectors of the rows that words leave open, made while others' words are read."""
        given = list(clues) or [()] * len(texts)
        short, mails = self._kinds(texts, given)
        lexical: dict[int, float] = {}
        ids_of: dict[int, Ids] = {}
        narrow = self._narrow()

        def encoded(ids: Ids) -> Vectors:
            parts = self._stretches(ids)
            made = [narrow.run(["embedding"], {"input_ids": np.array([one], dtype=np.int64)})[0][0] for one in parts]
            return _whole([(len(one), vector) for one, vector in zip(parts, made, strict=True)])

        with Ahead(encoded, self._threads) as ahead:

            def ask(rows: Sequence[int]) -> None:
                if rows:
                    ids_of.update(zip(rows, map(tuple, self._ids([texts[row] for row in rows])), strict=True))
                    for row in rows:
                        ahead.add(ids_of[row])

            reads = []
            for rows in _parts(mails):  # first, because the longest should be
                reads.append(self.judge.read([texts[row] for row in rows], [given[row] for row in rows]))
                ask([rows[place] for place in self.judge.begin(reads[-1]).unsure])
            for rows in _parts(short):
                lexical |= {row: self._of_short.lexical(texts[row]) for row in rows}
                ask([row for row in rows if self._of_short.sure(lexical[row]) is None])
            vectors = ahead.vectors()
        scores = [one.scores for one in reads] or [np.zeros((0, 2), dtype=np.float32)]
        read = Read(np.concatenate(scores), [given[row] for row in mails])
        return SpamWords(lexical, mails, read), lambda rows: np.stack([vectors[ids_of[row]] for row in rows])

    def spam(
        self,
        texts: Sequence[str],
        clues: Sequence[Clues] = (),
        *,
        vectors: Vectors | None = None,
        words: SpamWords | None = None,
    ) -> list[Verdict]:
        """Spam alone, from cheap to dear: an encoder runs only over the texts that their words leave open.

        `clues` are those of `models.clues`, one set a text. Vectors that are there already save the texts left open a pass,
        and `words` (`spam_words` of the same texts and clues) the reading. Without a network the words' own probability stands.
        """
        made: Callable[[Sequence[int]], Vectors] | None = None
        if words is None and vectors is None and self._side_by_side(texts):
            words, made = self._words_with_vectors(texts, clues)
        words = words or self.spam_words(texts, clues)
        found: dict[int, Verdict] = {}
        open_rows = []
        told = {row: tuple(reasons(tuple(clues[row]))) if clues else () for row in words.short}
        for row, lexical in words.short.items():
            sure = self._of_short.sure(lexical)
            if sure is None:
                open_rows.append(row)
            else:
                found[row] = Verdict(sure, "words", told[row])
        begun = self.judge.begin(words.read)
        asked = [*open_rows, *(words.mails[place] for place in begun.unsure)]
        seen = None
        if vectors is not None:
            seen = vectors[asked]
        elif made is not None and asked:
            seen = made(asked)
        elif asked and self.network_fault() is None:
            seen = self.embed([texts[row] for row in asked])  # all at once: the fewer rounds, the less a thread waits
        if open_rows:
            lexical_of = [words.short[row] for row in open_rows]
            if seen is None:
                scores, stage = [self._of_short.by_words(one) for one in lexical_of], "words alone"
            else:
                scores, stage = self._of_short.scores(seen[: len(open_rows)], lexical_of).tolist(), "encoder"
            found |= {row: Verdict(score, stage, told[row]) for row, score in zip(open_rows, scores, strict=True)}
        mails = self.judge.finish(begun, seen[len(open_rows) :] if seen is not None else None)
        found |= dict(zip(words.mails, mails, strict=True))
        return [found[row] for row in range(len(texts))]

    def spam_stage(self, text: str, clues: Clues = ()) -> str:
        """`words` where words are sure of a text, else `encoder`, or `words alone` without one."""
        if self._as_message(text, clues):
            stage = "encoder" if self._of_short.sure(self._of_short.lexical(text)) is None else "words"
        else:
            stage = self.judge.stage(text, clues)
        return "words alone" if stage == "encoder" and self.network_fault() is not None else stage

    def evidence(self, text: str, clues: Clues = (), *, limit: int = 5) -> list[tuple[str, float]]:
        """Words and clues that weighed most for (positive) or against (negative) spam, strongest first."""
        if self._as_message(text, clues):
            return self._of_short.evidence(text, limit=limit)
        return self.judge.evidence(text, clues, limit=limit)

    # -- inside

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, at most as many as the encoder reads."""
        stretch = int(self._manifest["max_tokens"])
        limit = self.tokens // stretch * (stretch - 2) + 2
        texts = [readable(text) for text in texts]  # first: padding that nobody sees takes no place of what is read
        parts = [_both_ends(text, limit) for text in texts]
        found = iter(self._tokenizer.encode_batch([one for part in parts for one in part]))
        rows = [_joined([next(found).ids for _ in part], limit) for part in parts]
        if short := [place for place, row in enumerate(rows) if not row]:
            whole = self._tokenizer.encode_batch([ends(texts[place], *_CHARACTERS) for place in short])
            for place, item in zip(short, whole, strict=True):
                rows[place] = _clip(item.ids, limit)
        return rows

    def _meta(self) -> dict[str, Any]:
        if not self._manifest:
            self._manifest = self._read_manifest()
        return self._manifest

    def _read_manifest(self) -> dict[str, Any]:
        try:
            found = json.loads((self.folder / "manifest.json").read_text(), object_pairs_hook=_once)
        except (OSError, ValueError, RecursionError) as error:
            raise ModelUnavailable(
                f"the encoder's manifest in {self.folder.name}/ cannot be read ({type(error).__name__}: {error}): {_FIX}"
            ) from error
        if not isinstance(found, dict) or found.get("architecture") != "bert" or found.get("format") != FORMAT:
            raise ModelUnavailable(f"{self.folder.name}/ holds another architecture or format: {_FIX}")
        return found

    def _read_network(self) -> None:
        self._checked(_NETWORK, lambda meta: self._open())

    def _read_messages(self) -> None:
        self._checked((_HEADS,), self._read_heads)

    def _checked(self, names: Sequence[str], read: Callable[[dict[str, Any]], None]) -> None:
        """Read files whose checksums are those of the manifest."""
        with self._lock:  # both parts may be read at the same time
            if not self._network.ready and not self._messages.ready:
                self._manifest = self._read_manifest()  # of a folder that was mended it may be another
            meta = self._manifest
        try:
            for name in names:
                path = self.folder / name
                if not path.is_file():
                    raise ModelUnavailable(f"{name} is missing from {self.folder.name}/: {_FIX}")
                if _digest(path) != meta["files"][name]:
                    raise ModelUnavailable(f"{name} is not the file its manifest names (truncated or altered): {_FIX}")
            read(meta)
        except ModelUnavailable:
            raise
        except Exception as error:  # the runtime and the tokenizer raise classes of their own, directly under Exception
            raise ModelUnavailable(f"{self.folder.name}/ is no encoder of ours ({error!s:.200}): {_FIX}") from error

    def _session_of(self, threads: int) -> Any:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return ort.InferenceSession(
            str(self.folder / "model.onnx"), options, providers=["CPUExecutionProvider"], disabled_optimizers=_SLOWER
        )

    def _open(self) -> None:
        from tokenizers import Tokenizer

        self._session = self._session_of(self._threads)
        names = {item.name for item in self._session.get_inputs()}, {item.name for item in self._session.get_outputs()}
        if names != ({"input_ids"}, {"embedding"}):
            raise ModelUnavailable(f"model.onnx is another architecture: it takes {sorted(names[0])}: {_FIX}")
        self._tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def _read_heads(self, meta: dict[str, Any]) -> None:
        stored = arrays_in(self.folder / _HEADS)
        if spec := meta["heads"]["spam"]["parts"].get("short"):  # there is none while it is trained
            self._of_short: Short = Short.of(spec, stored)
        self._short = int(meta["heads"]["spam"]["short_below"])

    def _side_by_side(self, texts: Sequence[str]) -> bool:
        """Whether there is enough of them for words to be read while the network works."""
        return self._threads > 1 and len(texts) >= _MANY and self.network_fault() is None

    def _as_message(self, text: str, clues: Clues) -> bool:
        """Whether a text is judged as a text message. Only for one that may be is what judges those read."""
        if not _may_be_short(text, clues):
            return False
        self._messages.load()
        return self._is_short(text)

    def _is_short(self, text: str) -> bool:
        return len(text) < self._short

    def _narrow(self) -> Any:
        """A session of one thread per call, for bulk: texts side by side beat threads inside one small text."""
        with self._lock:
            if self._one is None:
                self._one = self._session_of(1)
            return self._one

    def _fill(self, out: Vectors, session: Any, texts: Sequence[Ids], places: dict[Ids, int]) -> None:
        """Texts of one length in one pass, never padded. Each token is scaled by itself, so company changes no answer."""
        (vectors,) = session.run(["embedding"], {"input_ids": np.array(texts, dtype=np.int64)})
        out[[places[one] for one in texts]] = vectors


def _whole(parts: Sequence[tuple[int, Vectors]]) -> Vectors:
    """The vector of a text from its stretches, each as heavy as it has tokens."""
    if len(parts) == 1:
        return parts[0][1]
    both = np.sum([size * vector for size, vector in parts], axis=0, dtype=np.float32)
    return np.asarray(both / np.linalg.norm(both), dtype=np.float32)


def _passes(texts: Collection[Ids], threads: int) -> list[list[Ids]]:
    """Texts of one length together, as many as `_TOGETHER` tokens hold; the longest first, so that no thread ends late. Few texts
    are spread over all threads.
    """
    of_length: dict[int, list[Ids]] = {}
    for ids in texts:
        of_length.setdefault(len(ids), []).append(ids)
    share = max(1, len(texts) // threads)
    found = []
    for length, same in sorted(of_length.items(), reverse=True):
        count = min(share, max(1, _TOGETHER // length))
        found += [same[start : start + count] for start in range(0, len(same), count)]
    return found


def _parts(rows: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(rows), _MANY):
        yield rows[start : start + _MANY]


def _may_be_short(text: str, clues: Clues) -> bool:
    """A single line is judged as a text message where it is short; a mail has clues, or its subject above its text."""
    return not of_mail(clues) and "\n" not in text.strip()


def _digest(path: Path) -> str:
    """SHA-256 in pieces: the file whole would be a tenth of the process."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _clip(ids: list[int], limit: int) -> list[int]:
    """Head and tail of a long text with its first ([CLS]) and last ([SEP]) token."""
    if len(ids) <= limit:
        return ids
    head = int(limit * _HEAD_SHARE)
    return ids[:head] + ids[-(limit - head) :]


def _both_ends(text: str, limit: int) -> tuple[str, ...]:
    """A long text as the words of its front and of its end, which nearly always have more tokens than are read of either."""
    front, end = (limit * one for one in _ENOUGH)
    if len(text) > front + end:
        last = max(text.rfind(" ", 0, front), text.rfind("\n", 0, front))
        first = min((one for one in (text.find(sign, len(text) - end) for sign in " \n") if one >= 0), default=-1)
        if min(last, first) >= 0:
            return text[:last], text[first:]
    return (ends(text, *_CHARACTERS),)


def _joined(parts: list[list[int]], limit: int) -> list[int]:
    """What `_clip` makes of the whole text; nothing where the parts have too few tokens to tell."""
    if len(parts) == 1:
        return _clip(parts[0], limit)
    head = int(limit * _HEAD_SHARE)
    front, end = parts
    return front[:head] + end[head - limit :] if len(front) > head and len(end) > limit - head else []


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names are each there once: two heads with one name would hide each other."""
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)} is there twice")
    return dict(pairs)


def pack(folder: Path, manifest: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> None:
    """Write `heads.npz` and `manifest.json` beside the files already in `folder`, with the checksum of each."""
    np.savez_compressed(folder / "heads.npz", **arrays)  # type: ignore[arg-type]  # savez's stub wants one array type
    manifest["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
