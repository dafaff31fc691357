"""What a finished search has found: its metrics and tables."""

import statistics
from typing import Any

import torch

from experiments.activation_search.space import has_bare_x
from experiments.activation_search.study import BASELINES, Study
from models.expressions import parse

TOP = 10  # the number of best functions whose form is analyzed


def findings(
    this: Study, baselines: dict[str, float], retrained: dict[str, dict[str, float]]
) -> tuple[dict[str, float], dict[str, list[dict[str, Any]]]]:
    """The metrics and tables of a search.

    this: the finished search. baselines: scores of `BASELINES`. retrained: the result of `Study.retrain`. In the
    metrics, `found` is the function with the best score, which is chosen without the test images.
    """
    best = this.best()
    proposed = this.study.get_trials(deepcopy=False)
    means = {name: statistics.fmean(accuracies.values()) for name, accuracies in retrained.items()}
    found = means[best[0].user_attrs["text"]]
    top = best[:TOP]
    metrics = {
        "best_score": best[0].value or 0.0,
        "trained": float(len(best)),
        "asked": float(len(proposed)),
        "refused": float(sum("refused" in trial.user_attrs for trial in proposed)),
        "known": float(sum("same_as" in trial.user_attrs for trial in proposed)),
        "share_with_bare_x": statistics.fmean(has_bare_x(trial.params) for trial in top),
        "share_with_bare_x_of_all": statistics.fmean(has_bare_x(trial.params) for trial in best),
        "retrained/found": found,
        **{f"score/{name}": score for name, score in baselines.items()},
        **{f"rank/{name}": 1.0 + sum((t.value or 0.0) > score for t in best) for name, score in baselines.items()},
        **{f"retrained/{name}": means[name] for name in BASELINES},
        **{f"found_minus_{name}": found - means[name] for name in BASELINES},
    }
    functions = [
        {
            "rank": index + 1,
            "function": trial.user_attrs["text"],
            "score": trial.value,
            "takes x itself": "yes" if has_bare_x(trial.params) else "no",
            "retrained": means.get(trial.user_attrs["text"]),
        }
        for index, trial in enumerate(top)
    ]
    functions += [
        {
            "rank": metrics[f"rank/{name}"],
            "function": text,
            "score": baselines[name],
            "takes x itself": "by hand",
            "retrained": means[name],
        }
        for name, text in BASELINES.items()
    ]
    return metrics, {"found": functions, "curves": curves([trial.user_attrs["text"] for trial in top[:5]])}


def curves(texts: list[str]) -> list[dict[str, Any]]:
    """The values of functions on [-5, 5], with β = 1."""
    x = torch.linspace(-5, 5, 101)
    return [
        {"function": text, "x": point, "value": value}
        for text in texts
        for point, value in zip(x.tolist(), parse(text)(x, torch.ones(())).tolist())
    ]
