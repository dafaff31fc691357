"""A folder that can be published as it is: page, ledger and records, without paths, names of users or weights."""

import contextlib
import hashlib
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments.ledger.evidence import Evidence
from experiments.ledger.runs import gather
from experiments.ledger.tuning import shifted_in, tunings_in
from experiments.ledger.verdicts import judge_all
from experiments.recording.contents import METRICS, to_json, to_yaml
from experiments.recording.record import Record
from experiments.report.page.files import write_report
from tasks.data.source import write_atomically

ARCHIVE, SUMS = "records.tar.gz", "SHA256SUMS"
README = """Records of {count} runs at scale {scale}: configuration, metrics, tables, summary and environment of each.

  index.html      the page; open it in a browser
  ledger.json     the verdicts
  records.csv     a row for each run
  {archive}  the records: unpack them, then `make ledger SCALE={scale}` redoes every table
  {sums}      checksums of all files: sha256sum -c {sums}
"""


def write_release(scale: str, outputs: str, folder: Path) -> int:
    """Write a release of the finished records that the ledger of a scale uses; returns how many there are.

    Raises ValueError if there is none.
    """
    evidence = gather(scale, outputs)
    used = list(used_records(evidence))
    if not used:
        raise ValueError(f"no finished run of scale {scale} under {outputs}: run make reproduce first")
    for record in used:
        write_anonymous(record, folder / "outputs" / "runs" / record.folder.parent.name / record.id)
    with contextlib.chdir(folder):
        own = gather(scale, "outputs")
        write_report(judge_all(own), own, scale, Path("."))
        for file in Path("report").iterdir():
            file.replace(file.name)
        Path("report").rmdir()
        with tarfile.open(ARCHIVE, "w:gz") as archive:
            archive.add("outputs", filter=without_owner)
        text = README.format(count=len(used), scale=scale, archive=ARCHIVE, sums=SUMS)
        write_atomically(Path("README.txt"), text.encode())
        files = sorted(file for file in Path(".").iterdir() if file.is_file() and file.name != SUMS)
        lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
        write_atomically(Path(SUMS), "".join(lines).encode())
    return len(used)


def used_records(evidence: Evidence) -> Iterable[Record]:
    """The finished records of the ledger: those that are judged, at shifted rates too, and those that chose rates."""
    found = [*evidence.values()]
    found += [record for own in shifted_in(evidence).values() for record in own.values()]
    found += [record for tuning in tunings_in(evidence) for record in tuning.records.values()]
    return {record.folder: record for record in found if record.finished}.values()


def write_anonymous(record: Record, folder: Path) -> None:
    """Copy a record, but for weights, with its own outputs and tracking replaced by the usual ones."""
    config = record.config | {"outputs": "outputs", "cache": "outputs/cache"}
    config["tracking"] = record.config["tracking"] | {"entity": None, "group": None, "tags": [], "notes": None}
    system = record.environment["platform"].split("-")[0]  # the build of a kernel can tell whose machine it is
    environment = record.environment | {
        "overrides": public(record.environment.get("overrides", [])),
        "platform": system,
    }
    write_atomically(folder / "config.yaml", to_yaml(without_paths(config)))
    write_atomically(folder / "environment.json", to_json(environment))
    for name in (METRICS, "summary.json", "tables.json"):
        if (record.folder / name).exists():
            write_atomically(folder / name, (record.folder / name).read_bytes())
    Record(folder).set_status(record.status)


def public(overrides: Iterable[str]) -> list[str]:
    """Overrides without those that say where a run was written or logged."""
    return [own for own in overrides if not own.startswith(("outputs=", "cache=", "tracking"))]


def without_paths(node: Any) -> Any:
    """Settings with the last part of every absolute path in place of the path."""
    if isinstance(node, dict):
        return {key: without_paths(value) for key, value in node.items()}
    if isinstance(node, list):
        return [without_paths(value) for value in node]
    return Path(node).name if isinstance(node, str) and node.startswith(("/", "~")) else node


def without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A member of an archive without its owner."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
