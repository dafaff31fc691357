"""A W&B server on this machine for tests: it speaks what W&B's clients need and keeps what arrives as plain data.

with Server() as server:
    subprocess.run(…, env=os.environ | server.environment)
    assert server.runs["abc"].summary["loss"] < 1
"""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from tests.loopback_received import Artifact, Run, View

ENTITY = "tester"
KEY = "0123456789abcdef" * 2 + "01234567"  # as long as a real one
SUMMARIES = {1: "min", 2: "max", 3: "mean", 4: "best", 5: "last", 6: "none"}  # of wandb_internal.proto


class Server:
    """The server, its address as environment variables, and what it received."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.views: dict[str, View] = {}  # by id
        self.artifacts: list[Artifact] = []
        self.alerts: list[dict[str, Any]] = []
        self.projects: dict[tuple[str, str], str] = {}  # (entity, project) → id
        self.operations: list[str] = []  # the names of all GraphQL requests
        self.unknown: list[str] = []  # requests that it does not know: a test that needs them fails
        self.keys: set[str] = set()  # the Authorization headers that came
        self.lock = threading.Lock()
        self.handler = type("Handler", (_Handler,), {"owner": self})
        self.http = _Listener(("127.0.0.1", 0), self.handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.down = False

    def __enter__(self) -> "Server":
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    def die(self) -> None:
        """Answer nobody any more, those who are connected neither."""
        self.down = True
        self.__exit__()

    def come_back(self) -> None:
        """At the same address, with all that was received."""
        self.http, self.down = _Listener(("127.0.0.1", self.http.server_port), self.handler), False
        self.__enter__()

    @property
    def environment(self) -> dict[str, str]:
        """What sends a process' W&B here."""
        return {
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": KEY,
            "WANDB_ENTITY": ENTITY,
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_CONSOLE": "off",
        }

    @property
    def histories(self) -> dict[str, list[int]]:
        """The steps of every run, in the order of its rows."""
        return {run.id: [row["_step"] for row in run.history] for run in self.runs.values()}

    @property
    def workspaces(self) -> list[View]:
        return [view for view in self.views.values() if view.type == "project-view"]

    @property
    def reports(self) -> list[View]:
        return [view for view in self.views.values() if view.type.startswith("runs")]

    def project(self, given: dict[str, Any]) -> dict[str, Any]:
        """The project that a request names, made if it is new."""
        entity = given.get("entityName") or given.get("entity") or ENTITY
        name = given.get("projectName") or given.get("project") or given.get("name")
        identifier = self.projects.setdefault((entity, name), f"{len(self.projects) + 1}")
        place = {"id": identifier, "internalId": identifier, "name": name, "entityName": entity}
        return place | {"entity": {"id": entity, "name": entity}, "createdAt": "2026-01-01T00:00:00Z"}

    def run_of(self, entity: str, project: str, identifier: str) -> Run:
        return self.runs.setdefault(identifier, Run(identifier, entity, project))

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any] | None:
        """The data of a GraphQL answer; None for an operation that is not known."""
        method = getattr(self, f"on_{operation}", None)
        return method(given) if method else None

    def on_Viewer(self, given: dict[str, Any]) -> dict[str, Any]:
        teams = {"edges": [{"node": {"name": ENTITY}}]}
        viewer = {"id": "user-1", "entity": ENTITY, "username": ENTITY, "name": ENTITY, "email": "", "flags": "{}"}
        keys = {"edges": []}
        return {"viewer": viewer | {"admin": False, "deletedAt": None, "apiKeys": keys, "teams": teams}}

    on_GetViewer = on_GetDefaultEntity = on_Viewer

    def on_ServerFeaturesQuery(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def on_GetProjects(self, given: dict[str, Any]) -> dict[str, Any]:
        found = [self.project({"entity": entity, "name": name}) for entity, name in self.projects]
        edges = [{"node": place | {"isBenchmark": False, "user": None, "__typename": "Project"}} for place in found]
        page = {"endCursor": None, "hasNextPage": False, "__typename": "PageInfo"}
        return {"models": {"pageInfo": page, "edges": edges}}

    def on_UpsertModel(self, given: dict[str, Any]) -> dict[str, Any]:
        place = self.project(given)
        return {"upsertModel": {"project": place, "model": place, "inserted": True}}

    def on_ProjectInternalId(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": self.project(given)}

    on_GetProject = on_ProjectInternalId

    def on_View(self, given: dict[str, Any]) -> dict[str, Any]:
        found = [view for view in self.views.values() if given["viewName"] in (view.name, view.id)]
        nodes = [{"id": view.id, "displayName": view.display_name, "spec": json.dumps(view.spec)} for view in found]
        return {"project": {"allViews": {"edges": [{"node": node} for node in nodes]}}}

    def on_upsertView(self, given: dict[str, Any]) -> dict[str, Any]:
        inserted = given.get("id") not in self.views
        identifier = given.get("id") or f"view-{len(self.views) + 1}"
        place = self.project(given)
        view = View(
            identifier,
            given["name"],
            given["displayName"],
            given["type"],
            place["entityName"],
            place["name"],
            given["description"] or "",
            json.loads(given["spec"]),
        )
        self.views[identifier] = view
        named = {"id": view.id, "type": view.type, "name": view.name, "displayName": view.display_name}
        rest = {"description": view.description, "spec": given["spec"], "updatedAt": place["createdAt"]}
        return {"upsertView": {"view": named | rest | {"project": place}, "inserted": inserted}}

    on_UpsertView2 = on_upsertView

    def on_UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        place = self.project(given)
        inserted = given["name"] not in self.runs
        run = self.run_of(place["entityName"], place["name"], given["name"])
        run.notes = given["notes"] or run.notes
        run.name = given["displayName"] or run.name
        run.group = given["groupName"] or run.group
        run.job_type = given["jobType"] or run.job_type
        run.tags = given["tags"] or run.tags
        if given["config"]:
            config = {key: item["value"] for key, item in json.loads(given["config"]).items()}
            run.metrics = _defined(config.pop("_wandb", {}).get("m", []))
            run.config = config
        if given["summaryMetrics"]:
            run.summary = json.loads(given["summaryMetrics"])
        bucket = {"id": run.id, "name": run.id, "displayName": run.name, "description": None, "sweepName": None}
        rest = {"config": given["config"], "historyLineCount": len(run.history), "project": place}
        return {"upsertBucket": {"bucket": bucket | rest, "inserted": inserted}}

    def on_RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        place, run = self.project(given | {"project": given["project"]}), self.runs.get(given["name"])
        if run is None:
            return {"model": place | {"bucket": None}}
        config = json.dumps({key: {"value": value} for key, value in run.config.items()})
        bucket = {"id": run.id, "name": run.id, "displayName": run.name, "tags": run.tags, "notes": None}
        tails = {"historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]), "eventsTail": "[]"}
        lines = {"logLineCount": 0, "historyLineCount": len(run.history), "eventsLineCount": 0}
        state = {"summaryMetrics": json.dumps(run.summary), "config": config, "wandbConfig": '{"t": 1}'}
        return {"model": place | {"bucket": bucket | tails | lines | state}}

    def on_Runs(self, given: dict[str, Any]) -> dict[str, Any]:
        """The runs of a project whose names a filter lists, all on one page."""
        wanted = json.loads(given["filters"])["name"]["$in"]
        place = (given["entity"], given["project"])
        found = [run for run in self.runs.values() if run.id in wanted and (run.entity, run.project) == place]
        nodes = [run.as_node(self.project(given)["internalId"]) for run in found]
        page = {"endCursor": None, "hasNextPage": False}
        edges = [{"node": node, "cursor": node["name"]} for node in nodes]
        return {"project": {"runCount": len(nodes), "runs": {"edges": edges, "pageInfo": page}}}

    def on_CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        base = f"{self.url}/upload/{given['run']}/"
        files = [{"name": name, "uploadUrl": base + name} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def on_CreateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        wanted = given["input"]
        name = (wanted.get("artifactCollectionNames") or [wanted.get("artifactCollectionName")])[0]
        metadata = json.loads(wanted.get("metadata") or "{}")
        run = wanted.get("runName") or ""
        known = [(own.name, own.digest) for own in self.artifacts]
        if (name, wanted["digest"]) not in known:
            self.artifacts.append(Artifact(name, wanted["artifactTypeName"], run, wanted["digest"], metadata, []))
            known.append((name, wanted["digest"]))
        identifier = f"artifact-{known.index((name, wanted['digest'])) + 1}"
        sequence = {"latestArtifact": {"id": identifier}}
        artifact = {"id": identifier, "state": "COMMITTED", "artifactSequence": sequence}  # its files are not wanted
        return {"createArtifact": {"artifact": artifact}}

    def on_UseArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        wanted = given["input"]
        self.artifacts[int(wanted["artifactID"].split("-")[1]) - 1].used_by.append(wanted["runName"])
        return {"useArtifact": {"artifact": {"id": wanted["artifactID"]}}}

    def on_ArtifactByID(self, given: dict[str, Any]) -> dict[str, Any]:
        own = self.artifacts[int(given["id"].split("-")[1]) - 1]
        place = self.project({"entity": ENTITY, "project": next(iter(self.projects))[1]})
        sequence = {"__typename": "ArtifactSequence", "name": own.name, "project": place}
        kind = {"name": own.type}
        times = dict.fromkeys(("createdAt", "updatedAt"), place["createdAt"])
        none = dict.fromkeys(("description", "historyStep", "commitHash", "digestAlgorithm"))
        rest = {"size": 1, "digest": own.digest, "fileCount": 1, "aliases": [], "tags": [], "state": "COMMITTED"}
        kept = {"ttlDurationSeconds": -1, "ttlIsInherited": True, "metadata": json.dumps(own.metadata)}
        about = {"__typename": "Artifact", "id": given["id"], "versionIndex": 0, "artifactType": kind}
        return {"artifact": about | {"artifactSequence": sequence} | times | none | rest | kept}

    def on_ArtifactType(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": None}

    def on_OrganizationCoreWeaveOrganizationID(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"entity": None}

    def on_NotifyScriptableRunAlert(self, given: dict[str, Any]) -> dict[str, Any]:
        self.alerts.append(given)
        return {"notifyScriptableRunAlert": {"success": True}}

    def stream(self, entity: str, project: str, identifier: str, sent: dict[str, Any]) -> None:
        """A piece of a run's history and summary."""
        run = self.run_of(entity, project, identifier)
        run.posts += 1
        for name, piece in (sent.get("files") or {}).items():
            rows = [json.loads(line) for line in piece["content"]] if name.endswith(("jsonl", "json")) else []
            if name == "wandb-history.jsonl":
                start = piece["offset"]
                run.history[start : start + len(rows)] = rows
            elif name == "wandb-summary.json" and rows:
                run.summary = rows[-1]
        if sent.get("complete"):
            run.exit_code = sent.get("exitcode", 0)


def _defined(encoded: list[dict[str, Any]]) -> dict[str, dict[str, str | None]]:
    """The metrics in W&B's own configuration. Its fields are numbers: name 1, glob 2, step 4 or place 5, summary 7."""
    names = [metric.get("1") or metric.get("2") for metric in encoded]
    found = {}
    for name, metric in zip(names, encoded):
        place = metric.get("5")
        step = metric.get("4") or (names[place - 1] if place else None)
        summaries = [SUMMARIES.get(number, str(number)) for number in metric.get("7", [])]
        found[str(name)] = {"step": step, "summary": ",".join(summaries) or None}
    return found


class _Listener(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that ended without a goodbye is no error; one of ours is seen by the client."""


class _Handler(BaseHTTPRequestHandler):
    """GraphQL, file streams and uploads."""

    owner: Server
    protocol_version = "HTTP/1.1"

    def parse_request(self) -> bool:
        self.close_connection = self.owner.down
        return not self.owner.down and super().parse_request()

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            data = b"".join(pieces)
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def reply(self, value: Any, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        sent = json.loads(self.body() or b"{}")
        with self.owner.lock:
            self.owner.keys.add(self.headers.get("Authorization", ""))
            if self.path.endswith("/graphql"):
                self.graphql(sent)
            elif self.path.endswith("/file_stream"):
                _, _, entity, project, identifier, _ = self.path.split("/")
                self.owner.stream(entity, project, identifier, sent)
                self.reply({})
            else:
                self.owner.unknown.append(self.path)
                self.reply({}, 404)

    def graphql(self, sent: dict[str, Any]) -> None:
        text = sent["query"].strip()
        operation = sent.get("operationName") or text.split("{")[0].split("(")[0].split()[-1]
        self.owner.operations.append(operation)
        data = self.owner.answer(operation, sent.get("variables") or {})
        if data is None:
            self.owner.unknown.append(operation)
            return self.reply({"errors": [{"message": f"{operation} is not known here"}]})
        self.reply({"data": data})

    def do_PUT(self) -> None:
        content = self.body()
        _, _, identifier, name = self.path.split("/", 3)
        with self.owner.lock:
            self.owner.run_of(ENTITY, "", identifier).files[unquote(name)] = content
        self.reply({})

    def do_GET(self) -> None:
        self.reply({})

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing on the terminal."""
