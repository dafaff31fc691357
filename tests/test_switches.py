"""W&B's own environment variables take effect, a malformed one is refused, and paths are printed as they are."""

import ast
from pathlib import Path
from typing import Any

import pytest

from experiments.config.cache import composition
from experiments.config.checks import plain
from experiments.config.compose import compose
from experiments.config.errors import ConfigError
from experiments.recording.record import Record
from experiments.tracking.offline import local_folder
from experiments.tracking.switches import check_switches, check_tracking, tracking_now
from experiments.tracking.wandb_run import tags_of
from tests.conftest import CONFIGURATION, ENVIRONMENT, ROOT

SWITCHES = {  # variable: what it is set to, the setting that it changes, and that setting's value then
    "WANDB_MODE": ("disabled", "mode", "disabled"),
    "WANDB_PROJECT": ("mine", "project", "mine"),
    "WANDB_ENTITY": ("team", "entity", "team"),
    "WANDB_RUN_GROUP": ("group", "group", "group"),
    "WANDB_TAGS": ("a, b", "tags", ["a", "b"]),
    "WANDB_NOTES": ("it's: {a} [/b]", "notes", "it's: {a} [/b]"),
}


def tracking(*overrides: str, root: str = "config") -> dict[str, Any]:
    own = ["experiment=positions"] if root == "config" else []
    return plain(compose([*own, *overrides], root=root), complete=False)["tracking"]


@pytest.fixture(autouse=True)
def without_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SWITCHES, "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", SWITCHES)
def test_a_variable_of_wandb_takes_effect_and_an_override_wins(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given, setting, expected = SWITCHES[name]
    plainly = tracking()
    monkeypatch.setenv(name, given)
    assert tracking() == plainly | {setting: expected}
    assert composition(["experiment=positions"], 0, "outputs")["tracking"] == tracking()
    other = {"mode": "online", "tags": "[c]"}.get(setting, "other")
    assert tracking(f"tracking.{setting}={other}") != tracking()
    assert tracking("tracking=wandb_online")["mode"] == "online"
    monkeypatch.setenv(name, "")
    assert tracking() == plainly


def test_where_files_go_is_wandbs_variable_or_beside_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_folder(tmp_path) == tmp_path / "wandb"
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "mine"))
    assert local_folder(tmp_path) == tmp_path / "mine"


def test_a_recorded_run_goes_where_the_variables_say_unless_its_command_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record(tmp_path / "run")
    settings = {"mode": "offline", "project": "recorded", "entity": None}
    overrides = {"overrides": ["tracking.project=recorded"]}
    record.begin(CONFIGURATION | {"tracking": settings}, ENVIRONMENT | overrides)
    for name in ("MODE", "PROJECT", "ENTITY"):
        monkeypatch.setenv(f"WANDB_{name}", "now")
    assert tracking_now(record) == {"mode": "now", "project": "recorded", "entity": "now"}


@pytest.mark.parametrize("override", ["+tracking.foo=1", "+training.foo=1", "+foo=1"])
def test_an_added_key_that_nothing_reads_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown key '.*foo'"):
        tracking(override)


def test_tags_can_be_set_and_added_and_settings_of_tracking_are_no_factors() -> None:
    for override in ("tracking.tags=[a]", "+tracking.tags=[a]"):
        assert tracking(override)["tags"] == ["a"]
    assert tags_of(["tracking.project=p", "tracking=none", "position=rope"]) == ["position=rope"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WANDB_BASE_URL", "nonsense"),
        ("WANDB_BASE_URL", "http://"),
        ("WANDB_BASE_URL", "http://host:port"),
        ("WANDB_BASE_URL", "https://wandb.ai"),
        ("WANDB_MODE", "dryrun"),
        ("WANDB_PROJECT", "a/b"),
        ("WANDB_SILENT", "perhaps"),
        ("WANDB_CONSOLE", "loud"),
        ("WANDB_FINISH_TIMEOUT", "soon"),
        ("WANDB_HTTP_TIMEOUT", "soon"),
    ],
)
def test_a_malformed_variable_is_named_with_its_value(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        check_switches()
    assert str(caught.value).startswith(f"{name}={value}: ") and "\n" not in str(caught.value)


def test_a_malformed_key_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", " secret ")
    with pytest.raises(ConfigError, match=r"^WANDB_API_KEY: ") as caught:
        check_switches()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"project": "a/b"}, {"tags": ["x" * 65]}, {"tags": [""]}])
def test_what_wandb_would_refuse_is_refused_first(wrong: dict[str, Any]) -> None:
    check_tracking({"project": "mine", "tags": ["a"]})
    with pytest.raises(ConfigError, match=f"^tracking.{next(iter(wrong))}="):
        check_tracking({"project": "mine"} | wrong)


@pytest.mark.parametrize("file", sorted((ROOT / "experiments").rglob("*.py")), ids=lambda file: file.stem)
def test_no_console_reads_markup_in_a_path_or_a_message(file: Path) -> None:
    """outputs=out/br[/x]y would else be an error, and [red] would vanish."""
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    for call in calls:
        if isinstance(call.func, ast.Name) and call.func.id == "Console":
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert given.get("markup") == "False" or given == {"quiet": "True"}, f"line {call.lineno}"
