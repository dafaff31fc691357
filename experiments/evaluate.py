"""`python -m experiments.evaluate model=<folder or hub id> task=… [data=…] [key=value]`: evaluate your own model.

Evaluates any causal model of transformers, or a sequence-to-sequence model on summarization, with its own tokenizer.
The result is a record, with a W&B run and a row on the report page, like that of a training run.
"""

import sys
from collections.abc import Sequence

import transformers
from rich.console import Console

from experiments.config.command import command
from experiments.evaluation.pretrained import composed, execute
from experiments.ledger.runs import gather
from experiments.report.publish import publish
from experiments.sweeps.call import print_result
from experiments.tracking.switches import check_switches, check_tracking
from experiments.training.distributed import check_alone


@command
def main(arguments: Sequence[str]) -> int:
    """Evaluate a model; returns the exit code."""
    console = Console(stderr=True, markup=False)
    transformers.logging.disable_progress_bar()
    check_alone("an evaluation")
    check_switches()
    config = composed(arguments)
    check_tracking(config["tracking"])
    record = execute(config, arguments, console)
    print_result(console, record)
    page = publish(gather(config["scale"], config["outputs"]), config["scale"], config["outputs"], None)
    console.print(f"report: {page}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
