"""A stranger's HTML made harmless: an allow-list of tags and attributes (nh3), no remote fetch, shown in a sandboxed frame."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from html import escape, unescape
from urllib.parse import urlsplit

import nh3

__all__ = ["FRAME_POLICY", "SafeHtml", "document", "remote_images", "sanitise", "split_quote", "words_of"]

FRAME_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
)
_TAGS = frozenset(
    "a abbr b bdi bdo blockquote br caption center cite code col colgroup dd del div dl dt em figcaption figure font h1 h2 h3 h4 "
    "h5 h6 hr i img ins kbd li mark ol p pre q s samp small span strike strong sub sup table tbody td tfoot th thead tr tt u ul var".split()
)
_SIZES = {"align", "valign", "width", "height", "bgcolor", "dir", "lang"}
_ATTRIBUTES: dict[str, set[str]] = {tag: set(_SIZES) for tag in _TAGS}
_ATTRIBUTES["a"] |= {"href"}  # no title: a sender's own words would stand where a browser shows where a link leads
_ATTRIBUTES["img"] |= {"src", "alt", "title"}
_ATTRIBUTES["font"] |= {"color", "size", "face"}
_ATTRIBUTES["td"] |= {"colspan", "rowspan"}
_ATTRIBUTES["th"] |= {"colspan", "rowspan"}
_ATTRIBUTES["table"] |= {"border", "cellpadding", "cellspacing"}
_ATTRIBUTES["ol"] |= {"start"}
_DROPPED = {
    "script",
    "style",
    "title",
    "head",
    "noscript",
    "template",
    "iframe",
    "object",
    "svg",
    "math",
    "textarea",
    "select",
}
_ABROAD = re.compile(r"\s*(?:https?|mailto|tel):", re.I)
"""Where a link of a mail may lead. A relative one would lead into our own pages."""
_HOST = re.compile(r"(?<![\w.-])(?:(?:[\w-]{1,63}\.)+[^\W\d_][\w-]{1,62}|\d{1,3}(?:\.\d{1,3}){3})(?![\w-])")
"""What a reader takes for the name of a host, in small letters. Prices and versions are none."""
_CID = re.compile(r"cid:(.{1,300})", re.I)


class SafeHtml(str):
    """Text that went through `sanitise`. The only kind of string that templates may show unescaped."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


def sanitise(
    html: str,
    inline: Mapping[str, str] | None = None,
    remote: Mapping[str, str] | None = None,
    named: list[str] | None = None,
) -> SafeHtml:
    """`html` with allowed tags only. Links keep http, https, mailto and tel.

    Pictures are those in `inline` (cid -> our URL) and in `remote` (the mail's URL -> ours); every other becomes its
    alternative text, so that nothing is fetched. `named` collects the remote URLs that the mail wants.
    """
    pictures = inline or {}
    fetched = remote or {}

    def attribute(tag: str, name: str, value: str) -> str | None:
        if tag == "img" and name == "src":
            match = _CID.fullmatch(value.strip())
            if match:
                return pictures.get(match.group(1))
            url = _remote(value)
            if url and named is not None and url not in named:
                named.append(url)
            return fetched.get(url)
        if name == "href" and not _ABROAD.match(value):
            return None
        if name in {"width", "height"} and not re.fullmatch(r"\d{1,4}%?", value):
            return None
        return value

    cleaner = nh3.Cleaner(
        tags=set(_TAGS),
        clean_content_tags=_DROPPED,
        attributes=_ATTRIBUTES | {"*": set()},  # nh3 itself would keep `title` everywhere
        attribute_filter=attribute,
        url_schemes={"http", "https", "mailto", "tel", "cid"},
        link_rel="noopener noreferrer",
        strip_comments=True,
    )
    cleaned: str = cleaner.clean(html)
    return SafeHtml(_links(_images(cleaned)))


def _remote(value: str) -> str:
    """The URL of a picture on another host; empty for anything else."""
    url = re.sub(r"[\t\n\r]", "", value).strip()
    url = f"https:{url}" if url.startswith("//") else url
    return url if re.match(r"https?://", url, re.I) and len(url) <= 2_000 else ""


def remote_images(html: str) -> list[str]:
    """The pictures of `html` that would come from elsewhere, each once, as the cleaned mail would name them."""
    found: list[str] = []
    if re.search(r"<img\b", html, re.I):
        sanitise(html, named=found)
    return found


def split_quote(body: SafeHtml) -> tuple[SafeHtml, SafeHtml]:
    """Cleaned HTML as (new words, the quoted end). A quote with words after it stays where it is.

    Cut between tags: what is left open is closed by the end of the frame's page.
    """
    depth, start, end = 0, -1, 0
    for match in re.finditer(r"<(/?)blockquote\b[^<>]*>", body):
        if not match.group(1):
            if depth == 0 and (start < 0 or re.sub(r"<[^<>]*>|&nbsp;|\s", "", body[end : match.start()])):
                start = match.start()
            depth += 1
        else:
            depth, end = max(0, depth - 1), match.end()
    tail = re.sub(r"<[^<>]*>|&nbsp;|\s", "", body[end:])
    before = re.sub(r"<(?!img)[^<>]*>|&nbsp;|\s", "", body[: max(0, start)])
    if start < 0 or depth or tail or not before:
        return body, SafeHtml("")
    return SafeHtml(body[:start]), SafeHtml(body[start:end])


def words_of(html: str) -> str:
    """What a reader sees of cleaned HTML."""
    return " ".join(unescape(re.sub(r"<[^<>]*>", " ", html)).split())


def _images(html: str) -> str:
    """Pictures that lost their source show their alternative text instead of a broken sign."""

    def shown(match: re.Match[str]) -> str:
        tag = match.group(0)
        if " src=" in tag:
            return tag
        alt = re.search(r'alt="([^"]*)"', tag)
        return f'<span class="image-blocked">{alt.group(1) if alt and alt.group(1) else "image not loaded"}</span>'

    return re.sub(r"<img\b[^<>]*>", shown, html)


def _links(html: str) -> str:
    """Each link opens in its own tab and names its real host when its words name another one."""

    def shown(match: re.Match[str]) -> str:
        before, href, after, words = match.groups()
        host = urlsplit(href.replace("&amp;", "&")).hostname or ""
        # As it looks: an alternative text is read like words, and a full stop of another script like a full stop.
        seen = re.sub(r'<img\b[^<>]*?\balt="([^"]*)"[^<>]*>', r" \1 ", words)
        plain = unicodedata.normalize("NFKC", unescape(re.sub(r"<[^<>]*>", "", seen))).replace("\u3002", ".").lower()
        warning = ""
        if host and any(host != named and not host.endswith("." + named) for named in _HOST.findall(plain)):
            warning = f' <span class="link-target">goes to {escape(host)}</span>'
        return f'<a{before}href="{href}"{after} target="_blank">{words}</a>{warning}'

    return re.sub(r'<a\b([^<>]*?)href="([^"<>]*)"([^<>]*)>(.*?)</a>', shown, html, flags=re.S)


def document(body: SafeHtml) -> str:
    """A whole page for the frame: no script, no remote anything, colours that a person chose stay readable."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Message</title>'
        '<meta name="referrer" content="no-referrer"><link rel="icon" href="data:,"><style>'
        "html{color-scheme:light;background:#fff}body{margin:0;padding:12px;font:15px/1.5 system-ui,sans-serif;color:#1d2129;"
        "overflow-wrap:anywhere}img{max-width:100%;height:auto}table{max-width:100%}pre{white-space:pre-wrap}"
        "blockquote{margin:8px 0;padding-left:12px;border-left:3px solid #d5d9e0;color:#555d69}"
        ".image-blocked{display:inline-block;padding:2px 8px;border:1px dashed #8a93a1;border-radius:6px;color:#555d69;font-size:13px}"
        ".link-target{color:#a13a10;font-size:13px}"
        f"</style></head><body>{body}</body></html>"
    )
