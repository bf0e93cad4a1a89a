"""The one socket of a page: changes with ids to resume from, and who else is looking at this thread.

The session is checked before the socket is accepted and again every few seconds. Every queue, frame, rate and lifetime is
bounded: a page that cannot keep up is closed and resumes by its last id.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter
from redis.exceptions import RedisError
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from api.deps import Caller, caller_of, container_of
from api.realtime.hub import Gone, Hub
from api.security import session_token
from assistant.clock import monotonic
from assistant.db.session import Event
from assistant.telemetry import METRICS
from pipelines.container import Container

__all__ = ["router"]

router = APIRouter(include_in_schema=False)
LIFETIME = 3600.0
IDLE = 90.0
SILENCE = 9.0
"""A page says every 4 s that somebody is there; one that says nothing for so long is gone, whatever its connection does."""
FRAMES = 30
"""Most frames a page may send in ten seconds."""
SEND_SECONDS = 5.0
_KINDS = {"presence", "absent", "ping"}


@router.websocket("/live")
async def live(socket: WebSocket) -> None:
    """Close codes: 1003 bytes, 1008 not signed in (any more), 1009 too large, 4029 too many frames, 1012 come back, 1013 too slow."""
    container = container_of(socket)
    caller = await run_sync(caller_of, socket)
    if caller is None or caller.opened is None or caller.agent is None:
        await socket.close(1008, "sign in first")
        return
    after = socket.query_params.get("after", "")
    if len(after) > 40 or (not all(part.isdigit() for part in after.split("-")) and after):
        after = "0-1"
    await socket.accept()
    METRICS.sockets.inc()
    hub = _hub(socket, container)
    tasks = [
        asyncio.create_task(_push(socket, hub, after)),
        asyncio.create_task(_hear(socket, container, caller)),
    ]
    try:
        with hub.session(session_token(socket, container.settings)) as ended:
            done, _ = await asyncio.wait([*tasks, ended], timeout=LIFETIME, return_when=asyncio.FIRST_COMPLETED)
        code = next((task.result() for task in done if not task.cancelled() and task.exception() is None), 1012)
        for task in done:
            error = None if task.cancelled() else task.exception()
            if error is not None and not isinstance(error, (WebSocketDisconnect, RedisError, RuntimeError)):
                raise error
        if code and socket.application_state == WebSocketState.CONNECTED:
            await socket.close(code)
    finally:
        METRICS.sockets.dec()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _hub(socket: WebSocket, container: Container) -> Hub:
    """The hub of this process, made with its first socket."""
    state = socket.app.state
    if not hasattr(state, "hub"):
        state.hub = Hub(container.bus, container.database)
    hub: Hub = state.hub
    return hub


async def _push(socket: WebSocket, hub: Hub, after: str) -> int:
    """Send changes until the page is gone. Returns the close code."""
    try:
        async with aclosing(hub.frames(after)) as frames:
            async for text in frames:
                async with asyncio.timeout(SEND_SECONDS):
                    await socket.send_text(text)
    except TimeoutError:
        return 1013
    except Gone as gone:
        return gone.code
    return 1012


async def _hear(socket: WebSocket, container: Container, caller: Caller) -> int:
    """Take presence in. Everything else is refused."""
    assert caller.agent is not None
    window, count, here = monotonic(), 0, ""
    try:
        while True:
            try:
                text = await asyncio.wait_for(socket.receive_text(), SILENCE if here else IDLE)
            except TimeoutError:
                if not here:
                    return 1012
                await run_sync(_leave, container, caller, here)
                here = ""
                continue
            except KeyError:
                return 1003  # bytes, where only text is spoken
            if monotonic() - window > 10:
                window, count = monotonic(), 0
            count += 1
            if count > FRAMES:
                return 4029
            frame = _frame(text)
            if frame is None:
                return 1008
            here = await run_sync(_presence, container, caller, frame, here)
    except WebSocketDisconnect:
        return 0
    finally:
        if here:
            await run_sync(_leave, container, caller, here)


def _frame(text: str) -> dict[str, Any] | None:
    if len(text) > 2000:
        return None
    try:
        frame = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(frame, dict) or not all(
        isinstance(frame.get(name, ""), str) for name in ("kind", "thread_id", "state")
    ):
        return None
    if frame.get("kind") not in _KINDS:
        return None
    thread_id, state = frame.get("thread_id", ""), frame.get("state", "viewing")
    fine = isinstance(thread_id, str) and len(thread_id) <= 36 and state in {"viewing", "typing"}
    return frame if fine else None


def _presence(container: Container, caller: Caller, frame: dict[str, Any], here: str) -> str:
    assert caller.agent is not None
    thread_id, state = str(frame.get("thread_id", "")), str(frame.get("state", "viewing"))
    if here and here != thread_id:
        _leave(container, caller, here)
    if frame["kind"] != "presence" or not thread_id:
        return "" if frame["kind"] == "absent" else here
    try:
        before = container.bus.who(thread_id).get(caller.agent.id)
        container.bus.present(thread_id, caller.agent.id, name=caller.agent.name, state=state)
        if before is None or before["state"] != state:
            _tell(container, caller, thread_id, state)
    except RedisError:
        return here  # presence is a courtesy
    return thread_id


def _leave(container: Container, caller: Caller, thread_id: str) -> None:
    assert caller.agent is not None
    try:
        container.bus.absent(thread_id, caller.agent.id)
        _tell(container, caller, thread_id, "gone")
    except RedisError:
        return


def _tell(container: Container, caller: Caller, thread_id: str, state: str) -> None:
    assert caller.agent is not None
    facts = {"thread_id": thread_id, "agent_id": caller.agent.id, "name": caller.agent.name, "state": state}
    container.bus.publish(Event("presence", facts))
