"""One passkey prompt to a finished run: what is told, and what is refused in one line."""

import re
from pathlib import Path

import pytest

from experiments.recording.record import records
from tests.conftest import Ended, Program

ONCE = "experiments.passkey_once"


@pytest.fixture(scope="module")
def run(program: Program, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a finished run that has learnt nothing."""
    outputs = tmp_path_factory.mktemp("outputs")
    ended = program(
        "experiment=passkey",
        "scale=smoke",
        "threads=1",
        f"outputs={outputs}",
        "tracking=none",
        "task.evaluation_lengths=[128]",
    )
    assert ended.returncode == 0, ended.stderr
    return str(records(outputs)[0].folder)


def test_answer_seconds_and_memory_are_told(run: str, program: Program) -> None:
    ended = program(run, "length=20000", "depth=middle", "key=12345", module=ONCE)
    assert ended.returncode == 0, ended.stderr
    asked, answer, seconds, memory = ended.stdout.splitlines()
    assert asked == "20,000 tokens, key 12345 at the middle"
    assert re.fullmatch(r"answer: \S+( \S+){4} \((right|wrong)\)", answer)
    assert re.match(r"\d+\.\d s on \d+ threads", seconds)
    peak = re.fullmatch(r"peak memory: (\d+) MB in addition to model and prompt", memory)
    assert peak and 0 < int(peak[1]) < 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["length=50"], "needs at least 62 tokens; 46 were requested"),
        (["depth=top"], "depth=top: Input should be 'start', 'middle' or 'end'"),
        (["key=123"], "key=123: a key has 5 digits"),
        (["size=4"], "size=4: Unexpected keyword argument"),
    ],
)
def test_a_wrong_question_is_one_line(run: str, arguments: list[str], message: str, program: Program) -> None:
    assert_refused(program(run, *arguments, module=ONCE), message)


def test_a_folder_that_is_no_run_is_one_line(program: Program, tmp_path: Path) -> None:
    assert_refused(program(str(tmp_path), module=ONCE), "is not the folder of a finished run")


def assert_refused(ended: Ended, message: str) -> None:
    assert ended.returncode == 1
    assert message in ended.stderr and len(ended.stderr.strip().splitlines()) == 1
