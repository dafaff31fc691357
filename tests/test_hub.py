"""The hub's own client against a server that answers as the hub does: what a run loads by name is one content."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from experiments.config.errors import ConfigError
from experiments.evaluation.pretrained import composed, execute
from experiments.recording.record import records
from experiments.training.revisions import pinned
from tests.conftest import CACHE, ROOT, tiny
from tests.loopback_hub import Hub, running
from tests.test_evaluate import save_llama

PINNED = """
import json, sys
from experiments.training.revisions import pinned
print(json.dumps(pinned(json.loads(sys.argv[1]))))
"""
DATA = {"identifier": "someone/books", "revision": "main", "path": None}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running() as found:
        yield found


def config(tmp_path: Path, data: dict | None = None, model: dict | None = None) -> dict:
    return {"cache": str(tmp_path / "cache"), "data": data, "model": model or {"width": 8}, "task": {"prompts": 1}}


def python(hub: Hub, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python as someone calls it whose hub is this one."""
    environment = os.environ | hub.environment | {"HF_HOME": str(folder / "huggingface")}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)


@pytest.mark.slow
def test_a_branch_is_the_commit_that_it_was_when_it_was_first_asked_for(hub: Hub, tmp_path: Path) -> None:
    def resolved(settings: dict) -> dict:
        return json.loads(python(hub, tmp_path, "-c", PINNED, json.dumps(settings)).stdout)

    settings = config(tmp_path, DATA, {"checkpoint": "someone/model", "revision": "main"})
    first = resolved(settings)
    assert first["data"]["revision"] == first["model"]["revision"] == "a" * 40
    asked = [path for path in hub.asked if "someone" in path]
    assert asked == ["/api/datasets/someone/books/revision/main", "/api/models/someone/model/revision/main"]
    hub.commit = "b" * 40
    assert resolved(settings) == first
    assert resolved(config(tmp_path / "other", DATA))["data"]["revision"] == "b" * 40


def test_a_commit_and_data_in_a_folder_are_not_asked_for(tmp_path: Path) -> None:
    for data in (DATA | {"revision": "c" * 40}, DATA | {"path": str(tmp_path)}, None):
        assert pinned(config(tmp_path, data)) == config(tmp_path, data)


def test_a_folder_of_a_model_is_known_by_its_files(tmp_path: Path) -> None:
    revisions = set()
    for name, content in (("a", "{}"), ("b", "{}"), ("c", '{"other": 1}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content)
        revisions.add(pinned(config(tmp_path, None, {"checkpoint": str(tmp_path / name)}))["model"]["revision"])
    assert len(revisions) == 2


def test_a_hub_that_cannot_be_asked_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"which commit main of someone/books is .*: set data\.revision=<commit>"):
        pinned(config(tmp_path, DATA))
    save_llama(tmp_path / "llama")
    overrides = [f"model={tmp_path}/llama", "task=summarization", "data=booksum", f"outputs={tmp_path}"]
    with pytest.raises(ConfigError, match="the hub did not say which commit main of ubaada/booksum"):
        execute(composed(overrides), overrides, Console(quiet=True))


@pytest.mark.slow
def test_papers_of_arxiv_are_loaded_file_by_file(hub: Hub, tmp_path: Path) -> None:
    """The repository has other subsets and a program to load it, neither of which is loaded."""
    folder = tmp_path / "proof-pile"
    for name in ("arxiv/train/arXiv_000", "arxiv/train/arXiv_001", "arxiv/validation/a", "arxiv/test/a", "code/test/a"):
        file = folder / f"{name}.jsonl.{'zst' if 'train' in name else 'gz'}"
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            json.dumps({"text": f"{name} {index}: " + f"let $x_{index}$ be {index}. " * 2000}) for index in range(3)
        ]
        file.write_bytes(compressed("\n".join(lines).encode(), file.suffix))
    (folder / "proof-pile-2.py").write_text("raise SystemExit")
    hub.folders["datasets/EleutherAI/proof-pile-2"] = folder
    overrides = tiny(tmp_path, "data=arxiv", f"cache={tmp_path}/cache", "tracking=none", "training.steps=2")
    ended = python(hub, tmp_path, "-m", "experiments.run", *overrides)
    assert ended.returncode == 0, ended.stderr
    (record,) = records(tmp_path)
    assert record.config["data"]["revision"] == hub.commit
    loaded = {path.rpartition("/resolve/")[2].partition("/")[2] for path in hub.asked if "/resolve/" in path}
    expected = {"arxiv/train/arXiv_000.jsonl.zst", "arxiv/validation/a.jsonl.gz", "arxiv/test/a.jsonl.gz"}
    assert loaded == expected


def compressed(content: bytes, suffix: str) -> bytes:
    """A file's content under the compression that its ending says."""
    import pyarrow

    return gzip.compress(content) if suffix == ".gz" else pyarrow.compress(content, codec="zstd", asbytes=True)


@pytest.mark.slow
def test_a_model_of_the_hub_is_evaluated(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "llama"
    save_llama(folder)
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    hub.folders["models/someone/llama"] = folder
    overrides = ["model=someone/llama", "task=passkey", "scale=smoke", f"outputs={tmp_path}", f"cache={CACHE}"]
    ended = python(hub, tmp_path, "-m", "experiments.evaluate", *overrides, "tracking=none", "threads=1")
    assert ended.returncode == 0, ended.stderr
    (record,) = records(tmp_path)
    assert record.finished and record.config["pretrained"] == "someone/llama"
    assert not [path for path in hub.asked if path.endswith("pytorch_model.bin")]
