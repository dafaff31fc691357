"""Peak memory and time of a training step of Infini-attention by the length of its sequence, beside the peer's."""

import statistics
from unittest.mock import patch

import altair as alt
from rich.console import Console
from rich.table import Table

from experiments.benchmarks.peers import Step, lucidrains_infini, next_token, ours, text, training_lucidrains
from experiments.measurements.tensor_memory import peak_bytes
from experiments.measurements.timing import interleaved
from models.recomputation import recompute_layers

WIDTH, SEGMENT = 256, 64
LENGTHS = (1024, 4096, 8192, 32768)  # tokens of the one sequence of a step
REPEATS = 3
COLUMNS = ("tokens", "training", "peak MiB", "s per step", "memory, relative to the peer", "time, relative to the peer")


def steps_of(length: int, precision: str) -> dict[str, Step]:
    """A training step of each kind on one sequence of this length; all have the gradient through all segments."""
    tokens = text(length, rows=1)
    model, again = (ours(WIDTH, SEGMENT, "attention=infini_delta") for _ in range(2))
    recompute_layers(again)
    own = next_token(model, tokens, precision)
    peer = lucidrains_infini(WIDTH, SEGMENT, detach_mems_every_num_segments=length // SEGMENT)

    def all_kept() -> None:
        with patch("models.attention.infini.recomputed", lambda function, *arguments: function(*arguments)):
            own()

    return {
        "infini-transformer-pytorch": training_lucidrains(peer, tokens, precision),
        "ours, memories kept": all_kept,
        "ours, memories recomputed": own,
        "ours, layers recomputed": next_token(again, tokens, precision),
    }


def memory_table(console: Console, precision: str) -> Table:
    """Peak memory and time of a step with every length."""
    title = f"training Infini-attention (delta) on one sequence, width {WIDTH}, segments of {SEGMENT}, {precision}"
    table = Table(*COLUMNS, title=title)
    for length in LENGTHS:
        with console.status(f"a step of {length:,} tokens"):
            steps = steps_of(length, precision)
            seconds = {name: statistics.median(times) for name, times in interleaved(steps, REPEATS).items()}
            peaks = {name: peak_bytes(step) for name, step in steps.items()}
        peer = next(iter(steps))
        for name in steps:
            cells = (f"{length:,}", name, f"{peaks[name] / 2**20:,.0f}", f"{seconds[name]:.2f}")
            table.add_row(*cells, f"{peaks[name] / peaks[peer]:.2f}", f"{seconds[name] / seconds[peer]:.2f}")
    return table


def memory_chart(rows: list[dict[str, str]]) -> alt.Chart:
    """The table's peaks by length."""
    points = [
        {"tokens": int(row["tokens"].replace(",", "")), "MiB": int(row["peak MiB"].replace(",", ""))}
        | {"training": row["training"]}
        for row in rows
    ]
    logarithmic = alt.Scale(type="log", nice=False)
    return (
        alt.Chart(alt.Data(values=points), width=480, height=280)
        .mark_line(point=True)
        .encode(
            x=alt.X("tokens:Q", scale=logarithmic, axis=alt.Axis(values=list(LENGTHS), title="tokens of the sequence")),
            y=alt.Y("MiB:Q", scale=logarithmic, title="peak memory of a training step, MiB"),
            color=alt.Color("training:N", sort=None, title=None),
            strokeDash=alt.StrokeDash("training:N", sort=None, title=None),
        )
    )
