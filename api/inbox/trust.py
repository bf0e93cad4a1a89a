"""How the percentage on a suggestion card is measured, and whether it has held."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from api.inbox import charts
from api.inbox.shell import Page, SignedIn, render
from assistant.errors import NotifyrError
from assistant.services import access, autopilot, calibration, policies

__all__ = ["page_of", "router"]

router = APIRouter(include_in_schema=False)


@router.get("/settings/trust")
def trust(page: SignedIn) -> HTMLResponse:
    """Reliability chart, outcomes by score, and how far each intent is."""
    return page_of(page)


def page_of(page: Page, *, problem: NotifyrError | None = None) -> HTMLResponse:
    with page.container.database.reading() as session:
        found = calibration.outcomes(session)
        stated = calibration.pooled(session)
        grants = {one.intent: one for one in policies.every(session)}
        agents = {one.id: one.name for one in access.agents(session)}
    rows = [
        {
            "low": one.low,
            "high": min(one.high, 1.0),
            "clean": one.clean,
            "count": one.count,
            "bounds": calibration.interval(one.clean, one.count),
            "estimate": calibration.estimate(found, one.low),
        }
        for one in found.bins
    ]
    return render(
        "trust.html",
        status=problem.status if problem else 200,
        page=page,
        problem=problem,
        mode=page.container.settings.autopilot,
        grants=grants,
        agents=agents,
        needed=autopilot.NEEDED,
        count=found.count,
        enough=calibration.ENOUGH,
        weight=calibration.WEIGHT,
        rows=rows,
        intents=[(one, autopilot.sends_needed(one.clean, one.count)) for one in calibration.reach(found)],
        stated=stated,
        dots=charts.dots([(mean, share) for mean, share, _ in stated]),
        bars=[
            charts.line([(mean, low), (mean, high)], most=1)
            for mean, share, count in stated
            for low, high in [calibration.interval(round(share * count), count)]
        ],
        diagonal=charts.diagonal(),
    )
