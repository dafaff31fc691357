"""`python -m experiments.passkey_once RUN_FOLDER [length=1000000] [depth=start] [key=90541]`: one passkey prompt.

A finished run's model reads the whole prompt and answers; told are the answer, the seconds, and the peak memory.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from experiments.config.errors import USER_ERRORS
from experiments.evaluation.single_prompt import ask, load, question_of
from experiments.records import environment


def main(arguments: Sequence[str]) -> int:
    """Ask what the arguments say; returns the exit code."""
    if not arguments or "=" in arguments[0]:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        question = question_of(arguments[1:])
        environment.use_threads(None)
        task, model, precision = load(Path(arguments[0]))
        answer = ask(task, model, precision, question)
    except USER_ERRORS as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    right = answer.named.replace(" ", "") == str(question.key)
    print(f"{question.length:,} tokens, key {question.key} at the {question.depth}")
    print(f"answer: {answer.named} ({'right' if right else 'wrong'})")
    print(
        f"{answer.seconds:.1f} s on {torch.get_num_threads()} threads, {question.length / answer.seconds:,.0f} tokens/s"
    )
    print(f"peak memory: {answer.peak / 1e6:,.0f} MB above model and prompt")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
