"""What a run loads by name, tied to one content: branches of the hub to commits, folders of models to their files."""

import re
from functools import cache
from pathlib import Path
from typing import Any

from experiments.config.errors import ConfigError, first_line
from tasks.data.source import cached, fingerprint

COMMIT = re.compile(r"[0-9a-f]{40}")
NAMES = {"data": "identifier", "model": "checkpoint", "task": "tokenizer"}  # settings that name a repository or folder


def pinned(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with revisions that name one content each. Raises ConfigError if the hub cannot be asked."""
    named = {group: config[group][key] for group, key in NAMES.items() if (config.get(group) or {}).get(key)}
    return config | {
        group: config[group] | {"revision": content_of(config, group, name)} for group, name in named.items()
    }


def content_of(config: dict[str, Any], group: str, name: str) -> str | None:
    """The commit that a revision is, or the digest of a model's folder. Data in a folder have a fingerprint instead."""
    revision, folder = config[group].get("revision"), Path(name).expanduser()
    if config[group].get("path") or COMMIT.fullmatch(revision or ""):
        return revision
    if group != "data" and folder.is_dir():
        return digest_of_folder(name)
    kind = "dataset" if group == "data" else "model"
    # Asked once for all runs of these outputs, which belong together even if the branch moves on.
    file = Path(config["cache"]) / "commits" / fingerprint([kind, name, revision or "main"])
    return cached(file, lambda: commit_of(name, kind, revision or "main", f"{group}.revision")).decode()


@cache
def digest_of_folder(name: str) -> str:
    """The digest of the files of a model's folder, once for all runs of a process."""
    from models.model_folder import fingerprint_of  # imports transformers

    return fingerprint_of(name, Path(name).expanduser())


def commit_of(name: str, kind: str, revision: str, setting: str) -> bytes:
    """The commit of a repository's branch or tag, asked of the hub. Raises ConfigError."""
    from huggingface_hub import HfApi

    try:
        return str(HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=30).sha).encode()
    except Exception as error:  # the libraries that it calls raise many types of errors
        raise ConfigError(
            f"the hub did not say which commit {revision} of {name} is ({first_line(error)}): set {setting}=<commit>, "
            "or HF_HUB_OFFLINE=0 if this run may ask it"
        ) from error
