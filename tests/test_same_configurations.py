"""Once: every configuration is what it was before scales had tables."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from experiments.compositions import composition
from experiments.config import compose_unchecked, groups, groups_of, plain
from experiments.evaluate import composed as evaluation
from experiments.grid import jobs

SCALES = ("smoke", "laptop", "gpu", "paper")
BEFORE = "c7ba2ccdb9a78d1c74ab2b6617129dcbb72d343234661210b9e005eb5f1fbc56"


def configurations() -> Iterator[tuple[str, dict[str, Any]]]:
    """Of every experiment, every choice of every group, every evaluation and every job of a sweep, at every scale."""
    for scale in SCALES:
        for experiment in groups()["experiment"]:
            found = [f"experiment={experiment}", f"scale={scale}"]
            yield " ".join(found), plain(compose_unchecked(found))
            for job in jobs(experiment, scale, "outputs"):
                yield " ".join(job.overrides), composition(job.overrides, job.seed, "outputs")
        for group, choices in groups_of("config").items():
            for choice in choices if group not in ("experiment", "scale") else ():
                found = [f"scale={scale}", f"{group}={choice}"]
                found += ["task.property=functions"] if choice == "property" else []
                yield " ".join(found), plain(compose_unchecked(found))
        for task in groups()["evaluation"]:
            for data in groups()["data"]:
                found = ["model=a/b", f"task={task}", f"data={data}", f"scale={scale}"]
                yield " ".join(found), evaluation(found)


def test_configurations_are_what_they_were() -> None:
    found = dict(configurations())
    assert len(found) > 2_000
    assert hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest() == BEFORE
