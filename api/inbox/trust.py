"""How the percentage on a suggestion card is measured, and whether it has held."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from api.inbox import charts
from api.inbox.shell import SignedIn, render
from assistant.services import calibration

__all__ = ["router"]

router = APIRouter(include_in_schema=False)


@router.get("/settings/trust")
def trust(page: SignedIn) -> HTMLResponse:
    """Reliability chart, outcomes by score, and how far each intent is."""
    with page.container.database.reading() as session:
        found = calibration.outcomes(session)
        stated = calibration.pooled(session)
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
        page=page,
        count=found.count,
        enough=calibration.ENOUGH,
        weight=calibration.WEIGHT,
        rows=rows,
        intents=calibration.reach(found),
        stated=stated,
        dots=charts.dots([(mean, share) for mean, share, _ in stated]),
        bars=[
            charts.line([(mean, low), (mean, high)], most=1)
            for mean, share, count in stated
            for low, high in [calibration.interval(round(share * count), count)]
        ],
        diagonal=charts.diagonal(),
    )
