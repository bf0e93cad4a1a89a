"""Words of a text as the cheap half of the spam decision sees them."""

from __future__ import annotations

import numpy as np
import pytest

from models.features import COLUMNS, hashed, tokens


def test_numbers_links_and_addresses_lose_their_particulars() -> None:
    found = tokens("Call 0906 or see http://user@Win.Example:8080/x?y=1 or write to bo@example.org")
    assert found[:2] == ["call", "#4"]
    assert {"#link", "#host:win.example", "#address"} <= set(found)
    assert not any("bo@" in word for word in found)


def test_invisible_characters_neither_hide_a_word_nor_take_the_place_of_one() -> None:
    assert tokens("vi\u200bag\u00adra") == tokens("viagra") == ["viagra"]
    padded = "\u200b" * 50_000 + "viagra " + "\u200b" * 50_000
    assert (
        tokens(padded) == ["viagra"] and hashed(padded, short=True).tolist() == hashed("viagra ", short=True).tolist()
    )


def test_wide_and_styled_letters_are_read_as_plain_ones() -> None:
    assert tokens("ＦＲＥＥ 𝐦𝐨𝐧𝐞𝐲") == ["free", "#caps", "money"]


def test_the_end_of_a_padded_text_counts() -> None:
    assert "viagra" in tokens("lorem ipsum " * 5000 + " viagra")


@pytest.mark.parametrize("text", ["", " ", "\x00\x01", "🎁" * 1000, "\ud800", "a" * 1_000_000])
def test_odd_text_gives_columns_in_range(text: str) -> None:
    for short in (False, True):
        found = hashed(text, short=short)
        assert found.dtype == np.int64
        assert ((found >= 0) & (found < COLUMNS)).all()
        assert len(found) == len(set(found.tolist()))


def test_columns_do_not_depend_on_the_process() -> None:
    assert hashed("free money").tolist() == hashed("FREE money ").tolist() or "#caps" in tokens("FREE money")
    assert hashed("free money").tolist() == sorted(hashed("free money").tolist())
