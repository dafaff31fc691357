"""What a scale means: its own file in conf/scale, and its row in the table of every experiment."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from experiments.config import choices, composition
from experiments.config.checks import plain
from experiments.config.choices import CONF, groups
from experiments.config.compose import compose
from experiments.config.composition import compose_unchecked
from experiments.config.errors import ConfigError
from experiments.config.schema import Scale
from experiments.evaluation.pretrained import composed as evaluation

HEAD, BASE = "# @package _global_\nscale: mine\n", "defaults: [gpu, _self_]\n"
SIZES = "sizes:\n  decoder:\n    width: 512\n"
EXPERIMENTS = groups()["experiment"]


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of conf/, used in its place."""
    folder = Path(shutil.copytree(CONF, tmp_path / "conf"))
    for module in (choices, composition):
        monkeypatch.setattr(module, "CONF", folder)
    return folder


def table(experiment: str) -> tuple[dict[str, Any], str]:
    """The rows of an experiment by scale, and its configuration as it is written."""
    composed = compose_unchecked([f"experiment={experiment}"])
    rows: Any = OmegaConf.to_container(composed)
    return rows.pop("scales") or {}, str(rows)


@pytest.mark.slow
def test_a_scale_is_added_by_one_file(conf: Path) -> None:
    """It takes what it does not say itself from gpu, whose rows it uses; another file is not touched."""
    (conf / "scale" / "mine.yaml").write_text(HEAD + BASE + "row: gpu\n" + SIZES)
    for experiment in EXPERIMENTS:
        own, gpu = (plain(compose([f"experiment={experiment}", f"scale={scale}"])) for scale in ("mine", "gpu"))
        if own["model"]["_target_"] == "models.transformer.Decoder":
            assert own["model"].pop("width") == 512 != gpu["model"].pop("width")
        assert own.pop("scale") == "mine" != gpu.pop("scale")
        assert own == gpu
    for task in groups()["evaluation"]:
        own, gpu = (evaluation([f"task={task}", "model=a/b", f"scale={scale}"]) for scale in ("mine", "gpu"))
        assert own == gpu | {"scale": "mine"}


def test_a_scale_may_say_all_there_is(conf: Path) -> None:
    sizes = (conf / "scale" / "smoke.yaml").read_text().partition("sizes:")[2]
    file = f"{HEAD}row: laptop\ndatasets:\n  text: text\nsizes:{sizes}"
    (conf / "scale" / "mine.yaml").write_text(file)
    found = plain(compose(["experiment=positions", "scale=mine"]))
    assert found["data"]["_target_"].endswith("TextFiles")
    assert (found["model"]["width"], found["training"]["steps"]) == (32, 400)
    with pytest.raises(ConfigError, match=r"conf/scale/mine.yaml has no datasets.images, which the experiment needs"):
        compose(["experiment=activation_images", "scale=mine"])


def test_a_row_of_a_scales_own_goes_before_the_one_that_it_names(conf: Path) -> None:
    (conf / "scale" / "mine.yaml").write_text(HEAD + BASE + "row: gpu\n")
    experiment = conf / "experiment" / "position_cost.yaml"
    own = "scales:\n  mine:\n    tokens: 77\n    lengths: [7]\n    repeats: 1\n"
    experiment.write_text(experiment.read_text().replace("scales:\n", own))
    assert plain(compose(["experiment=position_cost", "scale=mine"]))["task"]["tokens"] == 77
    assert plain(compose(["experiment=position_cost", "scale=gpu"]))["task"]["tokens"] == 65536


def test_a_scale_without_a_row_is_refused(conf: Path) -> None:
    (conf / "scale" / "mine.yaml").write_text(HEAD + BASE)
    refusal = "scale=mine is not available for this experiment; choose one of smoke, laptop, gpu, paper$"
    with pytest.raises(ConfigError, match=refusal):
        plain(compose(["experiment=positions", "scale=mine"]))
    with pytest.raises(ConfigError, match=refusal):
        evaluation(["task=passkey", "model=a/b", "scale=mine"])
    assert plain(compose(["scale=mine"]))["model"]["width"] == 768  # no experiment, no table


def test_the_command_line_goes_before_the_table() -> None:
    own = ["training.steps=3", "segment_length=32", "model.width=64", "training.precision=fp32", "data=text"]
    found = plain(compose(["experiment=memory_lm", "scale=gpu", *own]))
    assert found["training"]["steps"] == 3 and found["training"]["precision"] == "fp32"
    assert found["segment_length"] == found["attention"]["segment_length"] == 32
    assert found["model"]["width"] == 64 and found["data"]["_target_"].endswith("TextFiles")


def test_what_settings_read_of_a_scale_is_no_part_of_a_run() -> None:
    composed = compose(["experiment=positions"])
    assert set(composed) - set(plain(composed)) == set(Scale.__annotations__)
    assert not set(Scale.__annotations__) & set(evaluation(["task=passkey", "model=a/b"]))


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_rows_name_the_same_settings_and_each_is_read(experiment: str) -> None:
    rows, written = table(experiment)
    assert set(rows) in (set(), set(groups()["scale"]))
    read = set(re.findall(r"\$\{scaled\.(\w+)\}", written))
    assert all(set(row) == read for row in rows.values())


def test_scales_have_the_same_sizes_and_each_is_read() -> None:
    def names(node: Any, path: str = "") -> set[str]:
        return (
            set().union(*(names(below, f"{path}.{key}") for key, below in node.items()))
            if isinstance(node, dict)
            else {path}
        )

    files = {scale: yaml.safe_load((CONF / "scale" / f"{scale}.yaml").read_text()) for scale in groups()["scale"]}
    written = "".join(file.read_text() for file in CONF.rglob("*.yaml"))
    for scale, file in files.items():
        assert file["scale"] == scale and set(file) == {"scale", "datasets", "sizes"}
        assert {f"${{sizes{name}}}" for name in names(file["sizes"])} == set(re.findall(r"\$\{sizes[\w.]+\}", written))
        assert {f"${{dataset:{kind}}}" for kind in file["datasets"]} == set(
            re.findall(r"- override /data: (\S+})", written)
        )


@pytest.mark.parametrize("file", sorted(CONF.rglob("*.yaml")), ids=lambda file: str(file.relative_to(CONF)))
def test_settings_are_short_lines_of_plain_yaml(file: Path) -> None:
    """No line over 120 characters, no map of several settings in one line."""

    def maps(node: yaml.Node) -> Iterator[yaml.MappingNode]:
        if isinstance(node, yaml.MappingNode):
            yield node
        for below in node.value if not isinstance(node, yaml.ScalarNode) else ():
            for each in below if isinstance(below, tuple) else (below,):
                yield from maps(each)

    text = file.read_text()
    assert max(map(len, text.splitlines())) <= 120
    assert not [node.value for node in maps(yaml.compose(text)) if node.flow_style and len(node.value) > 1]
