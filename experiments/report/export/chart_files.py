"""Every chart of the page as SVG, PNG and PDF, for papers and slides."""

from pathlib import Path
from typing import Any

import vl_convert

from experiments.ledger.evidence import Evidence
from experiments.ledger.verdicts import judge_all
from experiments.report.figures.own_models import evaluations
from experiments.report.figures.palette import CONFIG, concrete
from experiments.report.figures.sections import sections
from tasks.data.source import write_atomically

WIDTH = 640  # pixels of an SVG, axes included, if a chart has no width of its own; a PNG has twice as many


def chart_files(spec: dict[str, Any]) -> dict[str, bytes]:
    """The contents of a chart's SVG, PNG and PDF file, in the colours of the light theme, by extension."""
    fixed = concrete(spec)
    if fixed.get("width") == "container":
        fixed["width"] = WIDTH
    config = concrete(CONFIG | {"background": "var(--paper)", "font": "sans-serif"})
    svg: str = vl_convert.vegalite_to_svg(fixed, config=config)
    pdf: bytes = vl_convert.vegalite_to_pdf(fixed, config=config)
    return {"svg": svg.encode(), "png": vl_convert.vegalite_to_png(fixed, config=config, scale=2), "pdf": pdf}


def write_charts(evidence: Evidence, scale: str, outputs: str) -> tuple[Path, int]:
    """Write report/figures/<experiment>-<title>.svg, .png and .pdf under `outputs`.

    Returns the folder and the number of charts.
    """
    found = sections(judge_all(evidence), evidence, scale, evaluations(outputs))
    charts = [shown for experiments in found.values() for experiment in experiments for shown in experiment.charts]
    folder = Path(outputs) / "report" / "figures"
    for shown in charts:
        assert shown.chart is not None
        for extension, content in chart_files(shown.chart.spec).items():
            write_atomically(folder / f"{shown.name}.{extension}", content)
    return folder, len(charts)
