"""How well a score separates OOD images from in-distribution ones; a higher score is more out-of-distribution."""

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score, roc_auc_score


def detection_metrics(inside: ArrayLike, outside: ArrayLike) -> dict[str, float]:
    """AUROC, AUPR and the two numbers that go by the name FPR95.

    Args:
        inside: scores of in-distribution cases, shape `(n,)`; higher = more out of distribution.
        outside: scores of out-of-distribution cases, shape `(m,)`.

    Returns:
        `auroc`: P(outside > inside) + P(equal) / 2.
        `aupr_out`: average precision with out-of-distribution as the positive class; depends on m / (n + m).
        `fpr_at_95_in_kept`: share of outside cases accepted at the threshold that keeps at least 95 % of the inside
        cases (Liang et al. 2018, arXiv 1706.02690; `fpr_at_tpr_id` elsewhere).
        `fpr_at_95_out_found`: share of inside cases rejected at the threshold that finds at least 95 % of the
        outside cases (`fpr_at_tpr_ood` elsewhere).
        All are in [0, 1], and NaN where one side is empty.

    Example:
        >>> found = detection_metrics(inside=[0.1, 0.2, 0.3, 0.4], outside=[0.4, 0.9])
        >>> {name: round(value, 3) for name, value in found.items()}
        {'auroc': 0.938, 'aupr_out': 0.833, 'fpr_at_95_in_kept': 0.5, 'fpr_at_95_out_found': 0.25}
    """
    inside, outside = np.asarray(inside, dtype=np.float64), np.asarray(outside, dtype=np.float64)
    if not (inside.size and outside.size):
        return dict.fromkeys(("auroc", "aupr_out", "fpr_at_95_in_kept", "fpr_at_95_out_found"), float("nan"))
    is_ood = np.r_[np.zeros(inside.size), np.ones(outside.size)]
    scores = np.r_[inside, outside]
    kept_up_to = np.quantile(inside, 0.95, method="inverted_cdf")
    found_from = -np.quantile(-outside, 0.95, method="inverted_cdf")
    return {
        "auroc": float(roc_auc_score(is_ood, scores)),
        "aupr_out": float(average_precision_score(is_ood, scores)),
        "fpr_at_95_in_kept": float(np.mean(outside <= kept_up_to)),
        "fpr_at_95_out_found": float(np.mean(inside >= found_from)),
    }
