"""What a run read and wrote, as W&B Artifacts: W&B draws where a result comes from, data → start run → run → ledger.

Contents are those of the record, so that W&B recognises an artifact that it has by its digest.
"""

import json
from collections.abc import Iterable
from typing import Any

import wandb

from experiments.recording.record import Record

SMALL = ("config.yaml", "summary.json", "tables.json", "tokenizer.json")
WEIGHTS = "checkpoint.safetensors"


def log_artifacts(run: wandb.Run, record: Record, amount: str) -> None:
    """Log what a finished run read and wrote, online. amount: small (without weights) or all."""
    fingerprint = record.environment["data"]
    if record.config["data"]:
        run.use_artifact(artifact("data", fingerprint, {"data.json": record.config["data"]}))
    if start := record.environment.get("start"):
        (folder,) = record.folder.parent.parent.glob(f"*/{start}")
        run.use_artifact(run_artifact(Record(folder), amount))
    run.log_artifact(run_artifact(record, amount))


def run_artifact(record: Record, amount: str = "small") -> wandb.Artifact:
    """The files of a finished run."""
    found = artifact("run", record.id, {}, {"experiment": record.config["name"], "scale": record.environment["scale"]})
    for name in (*SMALL, *([WEIGHTS] if amount == "all" else [])):
        if (file := record.folder / name).exists():
            found.add_file(str(file), name=name, skip_cache=True, policy="immutable")
    return found


def log_ledger(run: wandb.Run, name: str, records: Iterable[Record], content: dict[str, Any]) -> None:
    """Log what a ledger says of these runs."""
    for record in records:
        if record.config["tracking"].get("artifacts", "none") != "none":
            run.use_artifact(run_artifact(record, record.config["tracking"]["artifacts"]))
    run.log_artifact(artifact("ledger", name, {"ledger.json": content}))


def artifact(kind: str, name: str, files: dict[str, Any], metadata: dict[str, Any] | None = None) -> wandb.Artifact:
    """An artifact with these contents as JSON files."""
    found = wandb.Artifact(f"{kind}-{name}", kind, metadata=metadata)
    for file, content in files.items():
        with found.new_file(file) as stream:
            json.dump(content, stream, sort_keys=True)
    return found
