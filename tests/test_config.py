"""The configuration: every file of it can be built, and what is wrong with it is said in one line."""

import inspect
from dataclasses import replace

import hydra
import pytest

from experiments.config.checks import check_recorded
from experiments.config.choices import groups
from experiments.config.compose import compose
from experiments.config.errors import ConfigError
from experiments.ledger.claims import claims
from experiments.recording.environment import resolve_precision
from experiments.sweeps.grid import jobs
from experiments.training.run_spec import resolve

PARTS = ("attention", "position", "feedforward", "activation")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("positon=rope", "unknown key 'positon'; the nearest is 'position'"),
        ("width=64", "unknown key 'width'; the nearest is 'model.width'"),
        ("lr=1e-2", "unknown key 'lr'; the nearest are optimizer.lr, "),
        ("position=rop", "position=rop: no such choice; the nearest is 'rope'"),
        ("task.lenth=3", "unknown key 'task.lenth'; the nearest is 'task.length'"),
        ("training.steps=many", "training.steps: Value 'many' of type 'str' could not be converted to Integer"),
        (
            "training.groups.gate.lr=1",
            "unknown key 'training.groups.gate.lr'; the nearest is 'training.groups.gates.lr'",
        ),
        (
            "training.groups.gates.lr=much",
            "training.groups.gates.lr: Value 'much' of type 'str' could not be converted",
        ),
        ("model.width=1.5", "model.width=1.5"),
        ("tracking.mod=offline", "tracking.mode"),
        ("scale=huge", "scale=huge: no such choice"),
        ("seed=", "seed"),
        ("training.precision=fp31", "training.precision"),
        ("tracking.mode=onlin", "tracking.mode"),
        ("position=[", "position"),
        ("position.max_distance=3", "'position.max_distance'; position=relative_bias, position=relative_shaw have it"),
        ("rope", "'rope' is not key=value, such as position=rope"),
        ("3", "'3' is not key=value, such as seed=1"),
    ],
)
def test_a_wrong_override_is_named_in_one_line_with_the_nearest_right_one(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(["experiment=positions", override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_value_outside_of_a_choice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"attention\.update.*'linear' or 'delta'"):
        compose(["attention=infini_linear", "attention.update=quadratic"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "torch.hub.load",
        "torch.nn.modules.module.torch.hub.load",
        "transformers.AutoModel.from_pretrained",
        "experiments.tracking.offline.use_folder",
        "models.pretrained.export",
    ],
)
def test_what_may_not_be_called_is_refused_wherever_it_stands(target: str) -> None:
    """Among the parts of a model, in a list, and in a recorded configuration."""
    wanted = r"_target_=.* is not allowed: it must be named in conf/, be a model or an optimizer"
    with pytest.raises(ConfigError, match=wanted):
        compose([f"activation._target_={target}"])
    with pytest.raises(ConfigError, match=wanted):
        compose([f"optimizer.betas=[0.9,{{_target_: {target}}}]"])
    with pytest.raises(ConfigError, match=r"model\.parts\[1\]\._target_"):
        check_recorded({"name": "mine", "model": {"parts": [0, {"_target_": target}]}})


def test_models_and_optimizers_of_the_libraries_may_be_called() -> None:
    for target in ("torch.optim.RMSprop", "torch.nn.Softsign", "models.activations.Mish"):
        check_recorded({"name": "mine", "part": {"_target_": target}})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["../../pwn", "/tmp/pwn", "a/b", "", "..", ".hidden"])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="a name has letters, digits"):
        compose([f"name='{name}'"])
    with pytest.raises(ConfigError, match="a name has letters, digits"):
        check_recorded({"name": name})


@pytest.mark.slow
@pytest.mark.parametrize("group", PARTS)
def test_every_part_is_built_inside_a_decoder(group: str) -> None:
    for choice in groups()[group]:
        config = compose([f"{group}={choice}", "model.width=16", "model.heads=2", "model.layers=1"])
        model = hydra.utils.instantiate(config.model, vocabulary_size=8)
        assert sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("choice", groups()["model"])
def test_every_model_is_built(choice: str) -> None:
    config = compose([f"model={choice}"])
    offered = {"vocabulary_size": 300, "channels": 1, "classes": 10}
    wanted = inspect.signature(hydra.utils.get_object(config.model._target_)).parameters
    model = hydra.utils.instantiate(config.model, **{k: v for k, v in offered.items() if k in wanted})
    assert model.train()


@pytest.mark.slow
@pytest.mark.parametrize("choice", groups()["schedule"])
def test_every_schedule_warms_up_and_stays_within_one(choice: str) -> None:
    schedule = hydra.utils.instantiate(compose([f"schedule={choice}"]).schedule)
    factors = [schedule(step, 200) for step in range(200)]
    assert factors[0] < factors[10] < max(factors) <= 1
    assert min(factors) > 0


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["smoke", "laptop"])
@pytest.mark.parametrize("experiment", groups()["experiment"])
def test_every_run_of_every_experiment_can_be_planned(experiment: str, scale: str, tmp_path) -> None:
    planned = [job.spec() for job in jobs(experiment, scale, str(tmp_path))]
    identifiers = [one.record.id for one in planned]
    assert len(set(identifiers)) == len(identifiers)


def test_every_claim_rests_on_runs_that_exist(tmp_path) -> None:
    for claim in claims():
        for comparison in claim.comparisons:
            factors = [dict(job.factors) for job in jobs(comparison.experiment, "laptop", str(tmp_path))]
            for side in filter(None, (comparison.treatment, comparison.control)):
                wanted = {name: str(level) for name, level in side.items()}
                assert any(wanted.items() <= levels.items() for levels in factors), (claim.id, comparison.label)


def test_an_experiment_opens_with_its_own_command() -> None:
    from experiments.config.choices import CONF

    for choice in groups()["experiment"]:
        package, command, *_ = (CONF / "experiment" / f"{choice}.yaml").read_text().splitlines()
        assert package == "# @package _global_"
        assert command.startswith(f"# python -m experiments.run experiment={choice}")


@pytest.mark.slow
def test_the_id_changes_with_what_determines_the_numbers_and_with_nothing_else(tmp_path) -> None:
    def identifier(*overrides: str) -> str:
        return resolve(compose(["experiment=positions", "scale=smoke", *overrides])).record.id

    same = identifier()
    assert identifier(f"outputs={tmp_path}", "threads=2", "tracking=none", "training.checkpoint_every=3") == same
    for changed in ("seed=1", "position=none", "training.steps=9", "optimizer.lr=0.1"):
        assert identifier(changed) != same
    by_precision = {name: identifier(f"training.precision={name}") for name in ("bf16", "fp32")}
    assert by_precision["bf16"] != by_precision["fp32"]
    assert by_precision[resolve_precision("auto")] == same


@pytest.mark.slow
@pytest.mark.parametrize("experiment", groups()["experiment"])
def test_a_cached_composition_is_hydras_own(experiment: str, tmp_path) -> None:
    """Of the last run of every experiment, whose levels are all other ones than the first, and of a trial of it."""
    last = jobs(experiment, "laptop", str(tmp_path))[-1]
    for job in (last, replace(last, rate="0.001", trial="split" in last.spec().config["task"])):
        assert job.spec().config == resolve(compose(job.overrides)).config
        assert job.spec().record == resolve(compose(job.overrides)).record
