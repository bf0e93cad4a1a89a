"""Every key of the inbox, once: the overlay, the tooltips, the palette, the script and the docs are made from this table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

__all__ = ["KEYS", "Key", "conflicts", "remapped"]


@dataclass(frozen=True, slots=True)
class Key:
    """`act` is what the script does; `keys` in tinykeys' notation (`g i` a sequence, `$mod` Ctrl or Cmd).

    A sign (`#`, `?`) is written without Shift: whether it needs Shift is up to the keyboard.
    """

    act: str
    keys: str
    words: str
    group: str
    href: str = ""
    """Where it goes, for keys that only go somewhere."""
    also: str = ""
    """A key of every browser that does the same where the focus is; it stays when the other one is changed or off."""

    @property
    def single(self) -> bool:
        """One plain character: can be switched off and remapped (WCAG 2.1.4)."""
        return len(self.keys) == 1 or self.keys.startswith("Shift+") or " " in self.keys or "…" in self.keys

    @property
    def shown(self) -> str:
        """As people read it."""
        return self.keys.replace("$mod", "Ctrl")


KEYS: tuple[Key, ...] = (
    Key("next", "j", "Next thread", "List", also="↓"),
    Key("previous", "k", "Previous thread", "List", also="↑"),
    Key("open", "o", "Open thread", "List", also="Enter"),
    Key("back", "u", "Back to the list", "List", also="Esc"),
    Key("select", "x", "Select thread", "List"),
    Key("select-next", "Shift+J", "Select, and go to the next", "List"),
    Key("select-previous", "Shift+K", "Select, and go to the previous", "List"),
    Key("search", "/", "Search", "List"),
    Key("accept", "y", "Accept and send the suggestion", "Suggestion"),
    Key("edit", "i", "Edit the suggestion", "Suggestion"),
    Key("dismiss", "d", "Dismiss the suggestion (then 1 to 6 for the reason)", "Suggestion"),
    Key("regenerate", "Shift+R", "Draft again", "Suggestion"),
    Key("stop", "Shift+S", "Stop the draft that is being written", "Suggestion"),
    Key("older", "<", "Earlier draft", "Suggestion"),
    Key("newer", ">", "Later draft", "Suggestion"),
    Key("cite", "1…9", "Open citation 1 to 9 (Esc goes back)", "Suggestion"),
    Key("override", "Shift+Y", "Send although somebody else is replying", "Suggestion"),
    Key("reply", "r", "Reply", "Write"),
    Key("reply-all", "a", "Reply to all", "Write"),
    Key("forward", "f", "Forward", "Write"),
    Key("note", "m", "Internal note", "Write"),
    Key("compose", "c", "New message", "Write", "/compose"),
    Key("label", "l", "Label", "Thread"),
    Key("done", "e", "Done", "Thread"),
    Key("snooze", "h", "Snooze (“tue 9am”; cancelled if they reply)", "Thread"),
    Key("star", "s", "Star", "Thread"),
    Key("assign", "v", "Assign to somebody", "Thread"),
    Key("mark-unread", "Shift+U", "Mark as unread", "Thread"),
    Key("spam", "!", "Spam or not spam", "Thread"),
    Key("trash", "#", "Move to trash", "Thread"),
    Key("next-message", "n", "Next message", "Thread"),
    Key("previous-message", "p", "Previous message", "Thread"),
    Key("context", "w", "Who is this (context)", "Thread"),
    Key("more-acts", ".", "More acts on this thread", "Thread"),
    Key("undo", "z", "Undo", "Anywhere"),
    Key("redo", "Shift+Z", "Redo", "Anywhere"),
    Key("send", "$mod+Enter", "Send what you wrote", "Write"),
    Key("send-done", "$mod+Shift+Enter", "Send and done", "Write"),
    Key("palette", "$mod+k", "Command palette", "Anywhere"),
    Key("help", "?", "Keys", "Anywhere"),
    Key("go-inbox", "g i", "Inbox", "Go to", "/inbox"),
    Key("go-review", "g n", "Needs review", "Go to", "/inbox?view=review"),
    Key("go-outbox", "g o", "Outbox", "Go to", "/inbox?view=outbox"),
    Key("go-sent", "g t", "Sent", "Go to", "/inbox?view=sent"),
    Key("go-snoozed", "g s", "Snoozed", "Go to", "/inbox?view=snoozed"),
    Key("go-spam", "g p", "Spam", "Go to", "/inbox?view=spam"),
    Key("go-knowledge", "g k", "Knowledge", "Go to", "/knowledge"),
    Key("go-settings", "g ,", "Settings", "Go to", "/settings"),
)


def remapped(changes: Mapping[str, str], *, letters: bool = True) -> tuple[Key, ...]:
    """The table with an agent's own keys; without `letters` those that are one plain character are left out."""
    table = tuple(replace(key, keys=_plain(changes.get(key.act, key.keys))) for key in KEYS)
    return table if letters else tuple(key for key in table if not key.single)


def _plain(keys: str) -> str:
    """`Shift+#`, as somebody wrote or stored it, is `#`."""
    return re.sub(r"Shift\+(?=[^\w\s])", "", keys)


def conflicts(keys: Iterable[Key]) -> list[tuple[str, str]]:
    """Pairs of acts that cannot be told apart: the same keys, or one the beginning of the other's sequence."""
    table = list(keys)
    found = []
    for i, one in enumerate(table):
        for other in table[i + 1 :]:
            a, b = one.keys.split(" "), other.keys.split(" ")
            shorter = min(len(a), len(b))
            if a[:shorter] == b[:shorter]:
                found.append((one.act, other.act))
    return found
