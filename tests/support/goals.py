"""What the classifier must reach on texts that it never saw: the project's goals, for reports of `notifyr evaluate` and the benches.

Quality is the same on every machine, so a figure below its goal fails whatever measured it. Speed is printed beside its goal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["FP32_LABELS", "GOALS", "Goal", "missed"]

FP32_LABELS = 0.995
"""Share of the best labels of every head that int8 weights must leave as those of fp32 have them."""


@dataclass(frozen=True)
class Goal:
    figure: str
    bound: float
    most: bool = False
    """Whether the figure may be at most the bound; else it is at least that."""

    def words(self, of: str, figure: float) -> str:
        return f"{of}: {self.figure} is {figure:.4f}, the goal is at {'most' if self.most else 'least'} {self.bound:g}"


GOALS: Mapping[str, tuple[Goal, ...]] = {
    "mail": (
        Goal("recall_at_0.1_percent", 0.9),
        Goal("pr_auc", 0.997),
        Goal("hard_ham_false_positives", 0.05, most=True),
        Goal("calibration_error", 0.02, most=True),
    ),
    "sms": (Goal("recall_at_0.1_percent", 0.93),),
    "banking77": (Goal("accuracy_cross_validated", 0.93), Goal("accuracy_at_10_examples", 0.78)),
    "clinc150": (Goal("out_of_scope_auroc", 0.96),),
    "optout": (Goal("heard", 0.999),),
}
"""Part of a report -> its goals, by the names of the figures."""


def missed(part: str, figures: Mapping[str, Any]) -> list[str]:
    """The goals of a part that its figures do not reach, in words; one that was not measured is missed, too."""
    found = []
    for goal in GOALS[part]:
        figure = figures.get(goal.figure)
        if figure is None:
            found.append(f"{part}: {goal.figure} was not measured")
        elif not (figure <= goal.bound if goal.most else figure >= goal.bound):
            found.append(goal.words(part, figure))
    return found
