"""What the tests share: tiny settings, one cache of tokens, and the program as a user calls it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "outputs" / "cache"  # tokens are made once for all tests, and for `make reproduce`

for name in [name for name in os.environ if name.startswith(("MAKE", "HYDRA_", "WANDB_"))]:
    del os.environ[name]  # what a user or `make test` has set changes what the program prints
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["WANDB_CONSOLE"] = "off"  # W&B would wrap the streams that pytest replaces from test to test

SLOW = {"program", "browser", "checkout"}  # fixtures: what calls the program or copies the source is slow

CONFIGURATION = {  # of a record, as far as all have it
    "name": "made up",
    "seed": 0,
    "scale": "laptop",
    "outputs": "outputs",
    "task": {"_target_": "tasks.passkey.Passkey"},
    "data": None,
    "tracking": {"mode": "disabled", "project": "p", "entity": None},
}
ENVIRONMENT = {
    **dict.fromkeys(("settings", "data", "code", "platform"), "s"),
    **{"scale": "laptop", "precision": "fp32", "python": "3.11.7", "processor": "p"},
    **{"libraries": {"torch": "t"}, "threads": 1, "processes": 1, "overrides": []},
}

Ended = subprocess.CompletedProcess[str]
Program = Callable[..., Ended]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses a slow fixture."""
    for item in items:
        if isinstance(item, pytest.Function) and SLOW & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def own_wandb_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that a test starts have a W&B service of their own, as a user's have, and not that of the tests."""
    monkeypatch.delenv("WANDB_SERVICE", raising=False)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Call `python -m <module> <arguments>` in the project's folder as a process of its own."""
    folder = tmp_path_factory.mktemp("printed")
    files = {stream: str(folder / stream) for stream in ("stdout", "stderr")}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-m", "tests.forked"], cwd=ROOT, text=True, **pipes) as server:
        assert server.stdin and server.stdout

        def call(*arguments: str, module: str = "experiments.run", timeout: int = 240) -> Ended:
            request = {"module": module, "arguments": arguments, "seconds": timeout, "environment": {**os.environ}}
            print(json.dumps(request | files), file=server.stdin, flush=True)
            code = int(server.stdout.readline())
            return Ended(arguments, code, *(Path(file).read_text() for file in files.values()))

        yield call
        server.stdin.close()


def tiny(outputs: Path, *overrides: str) -> list[str]:
    """Overrides of a language-modelling run of a second or two."""
    return [
        "scale=smoke",
        f"outputs={outputs}",
        f"cache={CACHE}",
        "experiment=positions",
        "model.width=32",
        "model.layers=2",
        "threads=1",
        *overrides,
    ]
