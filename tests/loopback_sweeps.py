"""The server of loopback.py with sweeps: it keeps the configuration of one and hands out its runs, each to an agent."""

import json
from typing import Any

from tests.loopback import Server

SWEEP = "sweep123"


class SweepServer(Server):
    """values: the parameters of each run, by name; sweep_of: the sweep that each run said it is of."""

    def __init__(self, values: list[dict[str, Any]]) -> None:
        super().__init__()
        self.waiting = {f"handed{number}": chosen for number, chosen in enumerate(values)}
        self.config, self.place = "", dict[str, Any]()  # YAML as it came, and the project that it is of
        self.sweep_of: dict[str, str | None] = {}

    def on_UpsertSweep(self, given: dict[str, Any]) -> dict[str, Any]:
        self.config, self.place = given["config"], self.project(given)
        return {"upsertSweep": {"sweep": {"name": SWEEP, "project": self.place}, "configValidationWarnings": []}}

    def on_SweepWithRuns(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"sweep": {"name": SWEEP, "config": self.config, "runs": {"edges": []}}}}

    def on_CreateAgent(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"createAgent": {"agent": {"id": "agent-1"}}}

    def on_Heartbeat(self, given: dict[str, Any]) -> dict[str, Any]:
        """One run at a time, which is there from now on; then the end."""
        commands: list[dict[str, Any]] = []
        if not json.loads(given["runState"]):
            if self.waiting:
                identifier = next(iter(self.waiting))
                args = {name: {"value": value} for name, value in self.waiting.pop(identifier).items()}
                self.run_of(self.place["entityName"], self.place["name"], identifier)
                commands = [{"type": "run", "run_id": identifier, "program": None, "args": args}]
            else:
                commands = [{"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": given["id"]}, "commands": json.dumps(commands)}}

    def on_UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        self.sweep_of.setdefault(given["name"], given.get("sweep"))  # at the start; later updates leave it out
        return super().on_UpsertBucket(given)
