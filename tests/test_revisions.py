"""What a run loads by name is one content: a branch of the hub is the commit that it was, a folder its files."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from experiments.config.errors import ConfigError
from experiments.training.revisions import pinned

SCRIPT = """
import json, sys
from experiments.training.revisions import pinned
print(json.dumps(pinned(json.loads(sys.argv[1]))))
"""
DATA = {"identifier": "someone/books", "revision": "main", "path": None}


def config(tmp_path: Path, data: dict | None = None, model: dict | None = None) -> dict:
    return {"cache": str(tmp_path / "cache"), "data": data, "model": model or {"width": 8}, "task": {"prompts": 1}}


class Hub(BaseHTTPRequestHandler):
    """Answers for each repository's branch main with a commit, which the test moves on."""

    commit, asked = "a" * 40, list[str]()

    def do_GET(self) -> None:
        Hub.asked.append(self.path)
        body = json.dumps({"id": "someone/books", "sha": Hub.commit}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    Hub.commit, Hub.asked = "a" * 40, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def resolved(settings: dict, address: str) -> dict:
    environment = os.environ | {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", SCRIPT, json.dumps(settings)]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
def test_a_branch_is_the_commit_that_it_was_when_it_was_first_asked_for(address: str, tmp_path: Path) -> None:
    settings = config(tmp_path, DATA, {"checkpoint": "someone/model", "revision": "main"})
    first = resolved(settings, address)
    assert first["data"]["revision"] == first["model"]["revision"] == "a" * 40
    asked = [path for path in Hub.asked if "someone" in path]
    assert asked == ["/api/datasets/someone/books/revision/main", "/api/models/someone/model/revision/main"]
    Hub.commit = "b" * 40
    assert resolved(settings, address) == first
    assert resolved(config(tmp_path / "other", DATA), address)["data"]["revision"] == "b" * 40


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
