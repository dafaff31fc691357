"""The three tables by which the Infini-attention paper compares models, with our results in the same layout."""

from collections.abc import Sequence

from experiments.report.figures.chart import Chart, Table
from experiments.report.figures.passkey_figures import beside_the_paper
from experiments.report.figures.summary_builders import NAMES, mean_columns
from experiments.report.runs import Run, spaced

# Munkhdalai et al. 2024, table 2: floats of memory, and perplexity on PG19 and on Arxiv-math.
PERPLEXITIES = {
    "transformer_xl": ("50M", 11.88, 2.42),
    "memorizing": ("183M", 11.37, 2.26),
    "recurrent_memory": ("2.5M", 13.27, 2.55),
    "infini_linear": ("1.6M", 9.65, 2.24),
    "infini_delta": ("1.6M", 9.67, 2.23),
}
# Table 4: ROUGE-1, ROUGE-2, ROUGE-L and their geometric mean on BookSum.
SUMMARIES = {
    "bart": (36.4, 7.6, 15.3, 16.2),
    "bart_unlimiformer": (36.8, 8.3, 15.7, 16.9),
    "primera": (38.6, 7.2, 15.6, 16.3),
    "primera_unlimiformer": (37.9, 8.2, 16.3, 17.2),
    "decoder": (40.0, 8.8, 17.9, 18.5),
}


def paper_tables(runs: dict[str, list[Run]]) -> dict[str, Table]:
    """The tables that there are finished runs for, by title."""
    found = {
        "Perplexity and memory (table 2)": perplexities(runs.get("memory_lm", [])),
        "Passkeys: digits in %, start / middle / end (table 3)": beside_the_paper(runs.get("passkey", [])),
        "Summaries, ROUGE (table 4)": summaries(runs.get("code_summarization", [])),
    }
    return {title: table for title, table in found.items() if table and not isinstance(table, Chart) and table.rows}


def perplexities(runs: Sequence[Run]) -> Table:
    """Perplexity and size of the memory of every mechanism, means over the seeds."""
    rows, metrics = list[list[object]](), ("nonoverlapping/perplexity", "state_floats")
    for name, own in by_level(runs, "attention").items():
        here = mean_columns([[run.value(metric) for metric in metrics] for run in own])
        rows.append([spaced(name), *here, *PERPLEXITIES.get(name, (None, None, None))])
    columns = ["attention", "perplexity", "floats of memory", "paper: memory", "paper: PG19", "paper: Arxiv-math"]
    return Table(columns, rows)


def summaries(runs: Sequence[Run]) -> Table:
    """ROUGE of every model, means over the seeds, with the simple baselines on the same documents."""
    scores = ("rouge1", "rouge2", "rougeL", "overall")
    rows: list[list[object]] = []
    for name, own in by_level(runs, "model").items():
        here = mean_columns([[run.value(score) for score in scores] for run in own])
        rows.append([NAMES.get(name, name), *here, *SUMMARIES.get(name, (None,) * 4)])
    titles = ("ROUGE-1", "ROUGE-2", "ROUGE-L", "overall")
    return Table(["model", *titles, *(f"paper: {title}" for title in titles)], rows)


def by_level(runs: Sequence[Run], factor: str) -> dict[str, list[Run]]:
    """The runs of each level of a factor."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.factors[factor], []).append(run)
    return found
