"""What the spam head is worth on texts it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.training.corpora import Sample

__all__ = ["average_precision", "calibration_error", "recall_at", "spam_report"]

Floats = npt.NDArray[np.float64]


def average_precision(scores: Floats, truth: npt.NDArray[np.bool_]) -> float:
    """Area under precision over recall (step-wise, as scikit-learn's `average_precision_score`)."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order])
    precision = hits / np.arange(1, len(order) + 1)
    return float((precision * truth[order]).sum() / max(1, truth.sum()))


def recall_at(scores: Floats, truth: npt.NDArray[np.bool_], false_positive_rate: float) -> tuple[float, float]:
    """(recall, threshold) at a false positive rate: the share of spam above the threshold that lets so many ham through."""
    ham = np.sort(scores[~truth])[::-1]
    threshold = float(ham[min(len(ham) - 1, int(len(ham) * false_positive_rate))])
    return float((scores[truth] > threshold).mean()), threshold


def calibration_error(scores: Floats, truth: npt.NDArray[np.bool_], bins: int = 15) -> float:
    """Expected calibration error over equal bins of the score."""
    place = np.minimum((scores * bins).astype(int), bins - 1)
    return float(
        sum(
            abs(scores[place == b].mean() - truth[place == b].mean()) * (place == b).mean()
            for b in range(bins)
            if (place == b).any()
        )
    )


def spam_report(scores: Floats, samples: Sequence[Sample], *, fixed: float | None = None) -> dict[str, Any]:
    """Counts and figures for one set of samples and their probabilities of spam.

    `threshold` is read on these very samples, which flatters every filter alike; `fixed` was chosen before they were seen.
    """
    truth = np.array([sample.label == "spam" for sample in samples])
    recall, threshold = recall_at(scores, truth, 0.001)
    hard = np.array([sample.source == "hard-ham" for sample in samples])
    half = scores > 0.5
    report: dict[str, Any] = {
        "texts": len(samples),
        "spam": int(truth.sum()),
        "pr_auc": round(average_precision(scores, truth), 4),
        "recall_at_0.1_percent": round(recall, 4),
        "threshold": round(threshold, 4),
        "calibration_error": round(calibration_error(scores, truth), 4),
        "confusion_at_half": {
            "spam_found": int((half & truth).sum()),
            "spam_missed": int((~half & truth).sum()),
            "ham_stopped": int((half & ~truth).sum()),
            "ham_passed": int((~half & ~truth).sum()),
        },
    }
    if hard.any():
        report["hard_ham_false_positives"] = round(float((scores[hard] > threshold).mean()), 4)
    if fixed is not None:
        report["fixed_threshold"] = {
            "threshold": round(fixed, 4),
            "recall": round(float((scores[truth] > fixed).mean()), 4),
            "false_positives": round(float((scores[~truth] > fixed).mean()), 4),
        }
        if hard.any():
            report["fixed_threshold"]["hard_ham_false_positives"] = round(float((scores[hard] > fixed).mean()), 4)
    return report
