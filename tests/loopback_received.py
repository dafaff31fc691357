"""What arrived at the server of loopback.py, as plain data."""

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Run:
    """A run as it arrived: `history` has a row for every logged step, `files` the bytes of every upload."""

    id: str
    entity: str
    project: str
    name: str = ""
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, dict[str, str | None]] = field(default_factory=dict)  # name → its step axis and its summary
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None  # None until the client says that the run is over
    posts: int = 0  # file streams received
    notes: str = ""

    def table(self, key: str) -> dict[str, Any]:
        """Columns and data of the last Table that was logged under a key."""
        return json.loads(self.files[self.summary[key]["path"]])

    def as_node(self, project: str) -> dict[str, Any]:
        """The run as W&B's public API gives it. project: its number."""
        state = {None: "running", 0: "finished"}.get(self.exit_code, "failed")
        named = {"id": self.id, "name": self.id, "displayName": self.name, "state": state, "tags": self.tags}
        config = {key: {"value": value} for key, value in self.config.items()}
        read = {"config": json.dumps(config), "summaryMetrics": json.dumps(self.summary), "systemMetrics": "{}"}
        return {"projectId": project, "historyLineCount": len(self.history), **named, **read}


@dataclass
class View:
    """A saved workspace (type project-view) or report (runs, runs/draft)."""

    id: str
    name: str
    display_name: str
    type: str
    entity: str
    project: str
    description: str
    spec: dict[str, Any]


@dataclass
class Artifact:
    """An artifact that was announced."""

    name: str
    type: str
    run: str
    digest: str
    metadata: dict[str, Any]
    used_by: list[str]  # ids of runs
