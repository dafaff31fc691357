"""A server on this machine that answers as the Hugging Face hub does: commits of repositories, and their files."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Hub:
    """commit: of every branch of every repository. folders: the files of repositories, by kind and name, such as
    "datasets/someone/books". asked: the paths that were asked for."""

    address: str = ""
    commit: str = "a" * 40
    folders: dict[str, Path] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make the hub's client ask here."""
        return {"HF_ENDPOINT": self.address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}

    def answer(self, path: str) -> tuple[int, bytes]:
        """The status and the body for a path."""
        path = path.partition("?")[0]
        if path.startswith("/api/"):
            kind, owner, name, asked, *_ = path.removeprefix("/api/").split("/")
            files = self.files(f"{kind}/{owner}/{name}")
            if asked == "tree":
                listed = [{"type": "file", "path": path, "oid": path, "size": len(own)} for path, own in files.items()]
                return 200, json.dumps(listed).encode()
            return 200, json.dumps({"id": f"{owner}/{name}", "sha": self.commit}).encode()
        repository, _, rest = path.removeprefix("/").partition("/resolve/")
        files = self.files(repository if repository.startswith("datasets/") else f"models/{repository}")
        return (200, files[name]) if (name := rest.partition("/")[2]) in files else (404, b"{}")

    def files(self, repository: str) -> dict[str, bytes]:
        """The files of a repository by their names; none of one that is not there."""
        folder = self.folders.get(repository, Path("nowhere"))
        return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@contextmanager
def running() -> Iterator[Hub]:
    """Such a server, as long as the context lasts."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.asked.append(self.path)
            status, body = hub.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", hub.commit)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
