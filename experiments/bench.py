"""`make bench`: measure speed and memory on this machine, next to other implementations."""

from rich.console import Console

from experiments.benchmarks import page as bench_page
from experiments.benchmarks import peers as bench_peers
from experiments.benchmarks import sweep as bench_sweep
from experiments.benchmarks.models import REPEATS, activation_table, attention_table, decoding_table, position_table
from experiments.benchmarks.tracking import tracking_table
from experiments.recording import environment


def main() -> None:
    """Run all benchmarks and print their tables."""
    threads = environment.use_threads(None)
    precision = environment.resolve_precision("auto")
    console = Console(markup=False)
    console.print(f"{environment.processor()}, {threads} threads, {precision}")
    console.print(attention_table(console, precision))
    console.print(activation_table(precision))
    console.print(position_table(precision))
    console.print(decoding_table(precision))
    console.print(tracking_table())
    console.print(bench_sweep.sweep_table())
    console.print(bench_page.page_table())
    bench_peers.report(console, precision, REPEATS)


if __name__ == "__main__":
    main()
