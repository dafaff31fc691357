"""What comes from outside the repository: packages, folders of choices, folders of claims."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import list as listing
from experiments import new
from experiments.config import plugins
from experiments.config.choices import groups
from experiments.config.compose import compose
from experiments.config.errors import ConfigError
from experiments.config.targets import check_targets
from experiments.conformance import __main__ as conformance
from experiments.ledger.claims import FOLDER, ClaimError, claims, paper
from experiments.ledger.runs import gather
from experiments.recording.code import code_fingerprint
from experiments.training.run_spec import resolve
from tests.conftest import Program, tiny

SNAKE = """
import os
import torch
from torch import hub
from models.activations import Activation
from .numbers import TWO

class Snake(Activation):
    def forward(self, x):
        return x + torch.sin(x) ** TWO

def snake(channels):
    return Snake(channels)
"""
CHOICE = "_target_: {package}.parts.Snake\n_partial_: true\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A package with an activation, of a name that no other test uses, on Python's path and in use."""
    name = f"from_{abs(hash(request.node.name))}"
    folder = tmp_path / name
    (folder / "conf" / "activation").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "numbers.py").write_text("TWO = 2\nUNUSED = 3\n")
    (folder / "parts.py").write_text(SNAKE)
    (folder / "conf" / "activation" / "snake.yaml").write_text(CHOICE.format(package=name))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv(plugins.PLUGINS, name)
    monkeypatch.setenv(plugins.CHOICES, "")
    monkeypatch.setenv(plugins.CLAIMS, "")
    return name


def test_a_package_adds_choices_and_their_source_is_part_of_a_run(package: str, tmp_path: Path) -> None:
    assert "snake" in groups()["activation"]
    spec = resolve(compose(tiny(tmp_path, "activation=snake")))
    assert spec.config["plugins"] == [package]
    assert spec.record.id != resolve(compose(tiny(tmp_path, "activation=gelu"))).record.id


@pytest.mark.parametrize(("edit", "changes"), [("TWO = 4\nUNUSED = 3\n", True), ("TWO = 2\nUNUSED = 4\n", False)])
def test_what_a_run_reaches_of_a_package_determines_it(
    edit: str, changes: bool, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a relative import, too."""
    other = f"{package}_edited"
    shutil.copytree(tmp_path / package, tmp_path / other)
    (tmp_path / other / "numbers.py").write_text(edit)
    shutil.copytree(tmp_path / package, tmp_path / f"{package}_copied")
    monkeypatch.setenv(plugins.PLUGINS, f"{other},{package}_copied")

    def of(name: str) -> set[str]:
        from experiments.recording import code

        found = code.reached([code.split(f"{name}.parts.Snake")])
        return {text for (module, _), text in found.items() if module.startswith(name)}

    assert (of(other) != of(f"{package}_copied")) == changes
    shutil.rmtree(tmp_path / other / "conf")
    shutil.rmtree(tmp_path / f"{package}_copied" / "conf")
    assert code_fingerprint({"activation": {"_target_": f"{other}.parts.Snake"}})


def test_a_run_without_the_package_is_the_same_run(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_it = resolve(compose(tiny(tmp_path))).record.id
    monkeypatch.setenv(plugins.PLUGINS, "")
    assert resolve(compose(tiny(tmp_path))).record.id == with_it


@pytest.mark.parametrize("target", ["snake", "os.system", "hub.load", "Activation", "torch.optim.SGD"])
def test_of_a_package_only_its_own_classes_are_built(target: str, package: str) -> None:
    check_targets({"_target_": f"{package}.parts.Snake"})
    with pytest.raises(ConfigError, match="is not allowed"):
        check_targets({"_target_": f"{package}.parts.{target}"})


def test_a_record_does_not_say_what_may_be_built(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(plugins.PLUGINS, "")
    with pytest.raises(ConfigError, match="is not allowed"):
        check_targets({"plugins": [package], "activation": {"_target_": f"{package}.parts.Snake"}})


def test_a_folder_of_choices_is_named_in_each_of_hydras_ways(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine, of (all) = signs"
    (folder / "activation").mkdir(parents=True)
    (folder / "activation" / "mine.yaml").write_text(CHOICE.format(package=package))
    ways = [["--config-dir", str(folder)], [f"--config-dir={folder}"], [f"hydra.searchpath=['file://{folder}']"]]
    for way in ways:
        monkeypatch.setenv(plugins.CHOICES, "")
        assert plugins.take([*way, "seed=1", "-m"]) == ["seed=1", "-m"]
        assert compose(tiny(tmp_path, "activation=mine")).activation._target_ == f"{package}.parts.Snake"
    monkeypatch.setenv(plugins.CHOICES, "")
    plugins.take([f"hydra.searchpath=[pkg://{package}.conf]"])
    assert plugins.folders() == 2 * [tmp_path / package / "conf"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plugins=not_installed_anywhere"], "cannot be imported: No module named.*install it, or add the folder"),
        (["plugins=[broken_at_once]"], "broken_at_once cannot be imported: division by zero"),
        (["plugins=a/b"], "name a package as Python imports it"),
        (["plugins="], "name a package"),
        (["--config-dir"], "name a folder"),
        (["--config-dir", "/not/there"], "/not/there, a folder of choices: no such folder"),
        (["claims=/not/there"], "/not/there, a folder of claims: no such folder"),
        (["--config-dir={tmp}/twice"], "activation=relu is in .*conf/activation/relu.yaml and in .*rename one"),
        (["claims={tmp}/unknown"], "claim X1: there is no experiment positons; the nearest is 'positions'"),
        (["claims={tmp}/cut"], "x1.yaml"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    arguments: list[str], message: str, package: str, tmp_path: Path, program: Program
) -> None:
    (tmp_path / "broken_at_once.py").write_text("1 / 0\n")
    (tmp_path / "twice" / "activation").mkdir(parents=True)
    (tmp_path / "twice" / "activation" / "relu.yaml").write_text(CHOICE)
    text = (FOLDER / "r1.yaml").read_text().replace("R1", "X1", 1)
    for name, content in (("unknown", text.replace("positions", "positons")), ("cut", text[:-5] + ": [")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x1.yaml").write_text(content)
    given = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    options = ["--scale", "smoke", "--no-runs", "--outputs", str(tmp_path / "out")]
    ended = program(*given, *options, module="experiments.reproduce")
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 1 and line.startswith("error: ")
    assert re.search(message, line)
    assert not (tmp_path / "out").exists()


def test_a_claim_from_outside_is_added_or_replaces_ours(package: str, tmp_path: Path) -> None:
    ours = [claim.id for claim in claims()]
    folder = tmp_path / package / "claims"
    folder.mkdir()
    text = (FOLDER / "r1.yaml").read_text()
    (folder / "own.yaml").write_text(text.replace("id: R1", "id: X1").replace("idea: RoPE", "idea: Mine"))
    (folder / "r1.yaml").write_text(text.replace("statement: ", "statement: Replaced. "))
    assert [claim.id for claim in claims()] == [*ours, "X1"]
    assert next(claim for claim in claims() if claim.id == "R1").statement.startswith("Replaced.")


def test_the_claims_of_another_paper_stand_alone(package: str, tmp_path: Path) -> None:
    folder = tmp_path / package / "claims"
    folder.mkdir()
    shutil.copy(FOLDER / "r1.yaml", folder / "r1.yaml")
    (folder / "paper.yaml").write_text("title: Mine\nlead: It is.\nideas: {RoPE: Is it so?}\n")
    assert [claim.id for claim in claims()] == ["R1"] and paper().title == "Mine"
    assert {job.experiment for job in gather("smoke", str(tmp_path / "out"))} == {"positions"}
    (folder / "paper.yaml").write_text("title: Mine\nideas: {RoPE: Is it so?}\n")
    with pytest.raises(ClaimError, match=r"paper.yaml, line 1: lead"):
        paper()


BROKEN = {
    "Late": "return self.merge(self.project(x)[2].flip(2)), state",
    "Forgets": "return self.merge(self.project(x)[2].cumsum(2)), state",
    "Casts": "return self.merge(self.project(x)[2]).float(), state",
    "Counts": "self.calls = getattr(self, 'calls', 0) + 1; return self.calls * self.merge(self.project(x)[2]), state",
    "Mixes": "return self.merge(self.project(x)[2].mean(0, keepdim=True).expand(len(x), -1, -1, -1)), state",
    "Deaf": "return self.merge(self.project(x)[2].detach()), state",
}
BREAKS = {
    "Late": "no token changes an earlier logit: a later token changes an earlier logit",
    "Forgets": "fed in tokens with carried state, the result is the same: Tensor-likes are not close!",
    "Casts": "float32 and bfloat16 stay what they are: ",
    "Counts": "a call changes no state and no weight: the same call gives another result",
    "Mixes": "rows of a batch do not meet: Tensor-likes are not close!",
    "Deaf": "every parameter has a gradient: blocks.0.attention_norm.weight has no gradient",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_class_that_breaks_a_contract_is_told_which(
    name: str, package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = f"class {name}(Attention):\n    def forward(self, x, position, state=None):\n        {BROKEN[name]}\n"
    start = "    def initial_state(self, x):\n        return None\n"
    (tmp_path / package / "broken.py").write_text(f"from models.attention import Attention\n{body}{start}")
    assert conformance.main([f"{package}.broken.{name}"]) == 1
    assert f"BROKEN  {BREAKS[name]}" in capsys.readouterr().out


ROUGH = {
    "Sums": ("return x + x.sum(-1, keepdim=True)", "it is element-wise, and keeps shape and type"),
    "Cut": ("return x * (x > 0).detach() + (x.round() - x).detach()", "its gradient is its slope"),
    "Bursts": ("return x.exp().exp()", "it is finite between -50 and 50"),
}


@pytest.mark.parametrize("name", ROUGH)
def test_an_activation_that_breaks_a_contract_is_told_which(
    name: str, package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = f"class {name}(Activation):\n    def forward(self, x):\n        {ROUGH[name][0]}\n"
    (tmp_path / package / "broken.py").write_text(f"from models.activations import Activation\n{body}")
    assert conformance.main([f"{package}.broken.{name}"]) == 1
    assert f"BROKEN  {ROUGH[name][1]}: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models.attention.full.Nope"], "cannot be imported"),
        (["models.feedforward.MLP"], "is no subclass of any of models.attention.base.Attention"),
        (["models.attention.infini.Infini", "window=3"], "window is not a setting of Infini, which has width"),
        (["models.positions.absolute.Learned"], "it cannot be built: .*max_length.*give settings as name=value"),
    ],
)
def test_what_cannot_be_tried_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert conformance.main(arguments) == 1
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.slow
def test_a_package_for_another_paper_passes_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Program
) -> None:
    """Laid out, tested by its own tests, reproduced; its ledger and page stand alone."""
    folder = tmp_path / "My-paper 2"
    assert new.main(["paper", str(folder)]) == 0
    tests = subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=folder, capture_output=True, text=True)
    assert tests.returncode == 0 and "2 passed" in tests.stdout, tests.stdout
    monkeypatch.setenv("PYTHONPATH", str(folder))
    outputs = folder / "outputs"
    options = ["plugins=my_paper_2", "--scale", "smoke", "--outputs", str(outputs)]
    ended = program(*options, module="experiments.reproduce")
    assert ended.returncode == 0, ended.stderr
    assert {file.name for file in (outputs / "runs").iterdir()} == {"my_paper_2"}
    page = (outputs / "report" / "index.html").read_text(encoding="utf-8")
    assert "<h1>My-paper 2: a ledger of claims</h1>" in page and "Claims of Bump" in page
    assert "Infini" not in re.sub(r"<script.*?</script>|<style.*?</style>", "", page, flags=re.S)


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, message in ((tmp_path, "is there already"), (tmp_path / "___", "letters and digits")):
        assert new.main(["paper", str(folder)]) == 1 and message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_choices_are_listed_with_what_their_files_say(
    package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert listing.main(["position"]) == 0
    assert re.search(r"^rope +Rotary", capsys.readouterr().out, re.M)
    assert listing.main(["--outputs", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^{name} +0 finished +\S", shown, re.M) for name in groups()["experiment"])
    assert listing.main(["claims"]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^{claim.id} +{claim.idea}", shown, re.M) for claim in claims())
    assert listing.main(["postion"]) == 1
    assert "postion: no such group; the nearest is 'position'" in capsys.readouterr().err
