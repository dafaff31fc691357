"""`make figures`: every chart of the page as SVG and PNG, for papers and slides."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vl_convert

from experiments.ledger.verdicts import judge_all
from experiments.report.own_models import evaluations
from experiments.report.palette import CONFIG, concrete
from experiments.report.rendering import evaluated, ideas
from tasks.data.source import write_atomically

WIDTH = 640  # pixels of an SVG, axes included, where a chart has no width of its own; a PNG has twice as many


def pictures(spec: dict[str, Any]) -> dict[str, bytes]:
    """A chart as the contents of an SVG and of a PNG file, with the colours of the light theme."""
    fixed = concrete(spec)
    if fixed.get("width") == "container":
        fixed["width"] = WIDTH
    config = concrete(CONFIG | {"background": "var(--paper)", "font": "sans-serif"})
    svg: str = vl_convert.vegalite_to_svg(fixed, config=config)
    return {"svg": svg.encode(), "png": vl_convert.vegalite_to_png(fixed, config=config, scale=2)}


def main(arguments: Sequence[str]) -> None:
    """Write report/figures/<experiment>-<title>.svg and .png from the records of a scale under a folder of outputs."""
    from experiments.ledger.evidence import gather

    scale, outputs = arguments
    evidence = gather(scale, outputs)
    sections = ideas(judge_all(evidence), evidence, scale)
    sections |= evaluated(evaluations(outputs), 0)
    folder = Path(outputs) / "report" / "figures"
    written = 0
    for experiment in (experiment for experiments in sections.values() for experiment in experiments):
        for shown in experiment.shown:
            if shown.chart:
                written += 1
                for ending, content in pictures(shown.chart.spec).items():
                    write_atomically(folder / f"{shown.name}.{ending}", content)
    print(f"{written} charts in {folder}" if written else f"no finished runs in {outputs}: make reproduce makes them")


if __name__ == "__main__":
    main(sys.argv[1:])
