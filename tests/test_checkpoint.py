"""One identity for one content: a checkpoint that is damaged, foreign or of another step is refused, with a way out."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from experiments.config.errors import RecordError
from experiments.recording.contents import digest_of
from experiments.training import checkpoint
from experiments.training.checkpoint import Progress
from models.state import read_tensors, save_tensors

STEPS = 8
ROWS = b'{"step": 8, "train/loss": 1.0}\n'


def trained(folder: Path, step: int = STEPS) -> Path:
    """The checkpoint of a tiny run that has logged ROWS."""
    folder.mkdir(parents=True)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    (folder / "metrics.jsonl").write_bytes(ROWS)
    progress = Progress(step, len(ROWS), metrics_digest=digest_of(ROWS))
    checkpoint.save(folder / "checkpoint.safetensors", checkpoint.collect(model, optimizer, None), progress)
    return folder / "checkpoint.safetensors"


def flip(at: float) -> Callable[[Path], None]:
    """Flip one bit at this share of the file."""

    def change(file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[int(at * (len(content) - 1))] ^= 1
        file.write_bytes(content)

    return change


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def with_nan(file: Path) -> None:
    """As someone would who knows the format and not the digest."""
    with safe_open(file, framework="pt") as stored:
        metadata, names = stored.metadata(), list(stored.keys())
        tensors = {name: stored.get_tensor(name) for name in names}
    save_file(tensors | {"model/weight": torch.full((2, 3), torch.nan)}, file, metadata)


def without_digest(file: Path) -> None:
    tensors, metadata = read_tensors(file)
    save_file(tensors, file, metadata)


def of_another_run(file: Path) -> None:
    trained(file.parent.parent / "another").replace(file)


def of_another_model(file: Path) -> None:
    tensors, metadata = read_tensors(file)
    save_tensors(file, tensors | {"model/weight": torch.ones(5, 3)}, metadata)


CHANGES = {
    **{f"a bit flipped at {share}": flip(share) for share in (0, 0.02, 0.2, 0.4, 0.6, 0.8, 0.9, 1)},
    **{"cut": cut, "empty": empty, "NaN": with_nan, "no digest": without_digest},
    **{"another run": of_another_run, "another model": of_another_model},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_checkpoint_that_is_damaged_or_foreign_is_refused(change: Callable[[Path], None], tmp_path: Path) -> None:
    file = trained(tmp_path / "run")
    model = nn.Linear(3, 2)
    checkpoint.load(file, model, torch.optim.Adam(model.parameters()), None)
    checkpoint.load_weights(file, model, STEPS)
    change(file)
    with pytest.raises(RecordError, match=r"is damaged or foreign \(.*\): remove it to restart that run$"):
        checkpoint.load(file, model, torch.optim.Adam(model.parameters()), None)
    with pytest.raises(
        RecordError, match=rf"is damaged or foreign \(.*\): remove {file.parent} to train that run again$"
    ):
        checkpoint.load_weights(file, model, STEPS)


@pytest.mark.parametrize("rows", [b"", ROWS[:-1], ROWS.replace(b"1.0", b"1.5")], ids=["none", "cut", "changed"])
def test_a_run_does_not_go_on_from_metrics_that_have_changed(rows: bytes, tmp_path: Path) -> None:
    file = trained(tmp_path / "run")
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    file.with_name("metrics.jsonl").write_bytes(ROWS + b"later rows, which are dropped")
    checkpoint.load(file, model, optimizer, None)
    file.with_name("metrics.jsonl").write_bytes(rows)
    with pytest.raises(RecordError, match=r"metrics\.jsonl has changed since it was saved"):
        checkpoint.load(file, model, optimizer, None)


def test_no_run_starts_from_weights_of_an_earlier_step_or_of_a_run_that_diverged(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="saved after step 4 of 8"):
        checkpoint.load_weights(trained(tmp_path / "early", 4), nn.Linear(3, 2), STEPS)
    file = trained(tmp_path / "run")
    tensors, metadata = read_tensors(file)
    save_tensors(file, tensors | {"model/weight": torch.full((2, 3), torch.inf)}, metadata)
    with pytest.raises(RecordError, match="diverged: its weights are not finite"):
        checkpoint.load_weights(file, nn.Linear(3, 2), STEPS)
