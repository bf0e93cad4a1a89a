"""Pictures that mails name: fetched by the server at an agent's act, kept, shown from here; the sender's URL never reaches a browser."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Iterator

import pytest

from api.inbox import mailhtml
from assistant.db.messages import Message
from channels.support.http import SafeClient
from tests.api.conftest import World

GIF = bytes.fromhex("47494638396101000100800000000000ffffff2c00000000010001000002024401003b")
FILES = {
    "/a.gif": GIF,
    "/drawing.gif": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
    "/page.gif": b"<html><script>1</script>",
    "/big.gif": GIF + b"\0" * 4_000_000,
}


@pytest.fixture
def asked(world: World) -> Iterator[list[str]]:
    """What reached the host of the pictures, which the guarded client may talk to in these tests only."""
    paths: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            content = FILES.get(self.path)
            self.send_response(200 if content else 404)
            self.send_header("Content-Type", "image/gif")
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None:
            """Nothing to say."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        world.container.__dict__["fetcher"] = SafeClient(
            ports=[listener.server_port],
            resolve=lambda _host, _port: ["127.0.0.1"],
            may_connect=lambda _: True,
            max_bytes=3_000_000,
        )
        with world.container.database.transaction() as session:
            message = session.get_one(Message, world.ids["message"])
            message.html = "<p>Look</p>" + "".join(
                f'<img src="http://pictures.example:{listener.server_port}{path}" alt="picture">'
                for path in [*FILES, "/none.gif"]
            )
        yield paths
        listener.shutdown()


@pytest.mark.checklist(45)
def test_pictures_are_fetched_once_when_asked_for_and_shown_from_here(world: World, asked: list[str]) -> None:
    client = world.browser()
    thread, frame = f"/inbox/{world.ids['thread']}", f"/messages/{world.ids['message']}/frame"
    assert "5 images not loaded" in client.get(thread).text
    assert "src=" not in re.sub(r"<link[^>]*>", "", client.get(frame).text)
    assert asked == []
    load = f"/messages/{world.ids['message']}/images"
    answer = client.post(load, data={"view": "all"})
    assert answer.status_code == 303
    assert sorted(asked) == sorted([*FILES, "/none.gif"])
    page = client.get(thread).text
    assert "1 of 5 images loaded" in page
    shown = client.get(frame)
    assert re.findall(r'src="(data:image/gif;base64,)', shown.text) == ["data:image/gif;base64,"]
    assert "pictures.example" not in shown.text + page
    assert shown.headers["content-security-policy"] == mailhtml.FRAME_POLICY
    client.post(load, data={"view": "all"})
    assert len(asked) == len(FILES) + 1


def test_always_for_this_sender_is_kept_and_asks_no_more(world: World, asked: list[str]) -> None:
    client = world.browser()
    thread = f"/inbox/{world.ids['thread']}"
    assert "data-auto" not in client.get(thread).text
    client.post("/settings", data={"theme": "dark", "letters": "on"})
    client.post(f"/messages/{world.ids['message']}/images", data={"view": "all", "always": "on"})
    with world.container.database.transaction() as session:
        message = session.get_one(Message, world.ids["message"])
        message.html += f'<img src="{asked and "https"}://other.example/b.gif">'
    client.post("/settings", data={"theme": "light", "letters": "on"})
    settings = client.get("/settings").text
    assert "ana@example.net" in settings
    client.post("/settings", data={"theme": "light", "letters": "on", "images-off": "ana@example.net"})
    assert "ana@example.net" not in client.get("/settings").text


@pytest.mark.checklist(45)
def test_a_private_address_is_never_fetched(world: World, asked: list[str]) -> None:
    del world.container.__dict__["fetcher"]
    client = world.browser()
    client.post(f"/messages/{world.ids['message']}/images", data={"view": "all"})
    assert asked == []
    assert "0 of 5 images loaded" in client.get(f"/inbox/{world.ids['thread']}").text
