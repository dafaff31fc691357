"""A folder that someone else has made, of a model, a record or a cache, never runs code."""

import hashlib
import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file

from experiments.config.errors import RecordError
from experiments.evaluation.repeat import repeat
from experiments.evaluation.single_prompt import passkey_model
from experiments.recording.record import Record
from models.external import find
from models.pretrained import export
from models.seq2seq import pretrained
from tasks.data.glyphs import Glyphs
from tasks.data.text import Document
from tasks.data.tokens import TokenizedCorpus
from tests.conftest import CONFIGURATION, ENVIRONMENT
from tests.test_evaluate import folders
from tests.test_external_models import change

__all__ = ["folders"]

pytestmark = pytest.mark.slow

Plant = Callable[[Path, Path], None]  # plants code into a folder that would create the other path


class Call:
    """Creates a file when it is unpickled."""

    def __init__(self, called: Path):
        self.called = called

    def __reduce__(self) -> Any:
        return open, (str(self.called), "w")


def module(folder: Path, called: Path) -> None:
    """A module with classes for everything."""
    (folder / "evil.py").write_text(
        f"open({str(called)!r}, 'w')\nfrom transformers import *\nclass Config(LlamaConfig): pass\n"
        "class Model(LlamaForCausalLM): pass\nclass Tokenizer(PreTrainedTokenizerFast): pass\n"
    )


MAP = {
    "AutoConfig": "evil.Config",
    "AutoModelForCausalLM": "evil.Model",
    "AutoModelForSeq2SeqLM": "evil.Model",
    "AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"],
}


def of_config(**settings: Any) -> Plant:
    def plant(folder: Path, called: Path) -> None:
        module(folder, called)
        change(folder / "config.json", **settings)

    return plant


def of_tokenizer(**settings: Any) -> Plant:
    def plant(folder: Path, called: Path) -> None:
        module(folder, called)
        change(folder / "tokenizer_config.json", **settings)

    return plant


def of_weights(name: str, **settings: Any) -> Plant:
    """A pickle in place of the weights."""

    def plant(folder: Path, called: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(pickle.dumps(Call(called)))
        change(folder / "config.json", **settings)

    return plant


def of_index(name: str) -> Plant:
    """An honest file of torch behind the index of safetensors."""

    def plant(folder: Path, called: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        (folder / name).parent.mkdir(exist_ok=True)
        torch.save(tensors, folder / name)
        index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, name)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return plant


def of_shards(folder: Path, called: Path) -> None:
    """A distributed checkpoint, whose metadata is a pickle."""
    (folder / "model.safetensors").rename(folder / "shard-00000-model-00000-of-00001.safetensors")
    (folder / ".metadata").write_bytes(pickle.dumps(Call(called)))


def of_adapter(folder: Path, called: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "auto_mapping": {"x": "evil"}}))
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Call(called)))


def of_generate(folder: Path, called: Path) -> None:
    module(folder, called)
    (folder / "custom_generate").mkdir()
    shutil.copy(folder / "evil.py", folder / "custom_generate" / "generate.py")


def of_decoder(**settings: Any) -> Plant:
    return of_config(model_type="reproduction_decoder", vocab_size=340, model=settings)


KERNEL = "some/kernel"
IGNORED = {  # are not followed, and change nothing
    "known type": of_config(auto_map=MAP, trust_remote_code=True),
    "attention": of_config(attn_implementation=KERNEL),
    "private attention": of_config(_attn_implementation=KERNEL, _attn_implementation_internal=KERNEL),
    "attention by part": of_config(attn_implementation={"": KERNEL}),
    "experts": of_config(experts_implementation=KERNEL),
    "generate": of_generate,
}
REFUSED = {
    "unknown type": (of_config(model_type="unheard_of", auto_map=MAP), "it needs its own code"),
    "quantized": (of_config(quantization_config={"quant_method": "fp8"}), "has a quantization_config"),
    "fused": (of_config(fusion_config={"evil": True}), "has a fusion_config"),
    "another file": (of_weights("adapter_model.bin", transformers_weights="adapter_model.bin"), "no weights"),
    "pickle": (of_weights("pytorch_model.bin"), "no weights in model.safetensors; other formats can run code"),
    "pickle by another name": (of_weights("model.safetensors"), "cannot read its weights"),
    "index of pickles": (of_index("weights.bin"), "weights.bin is not the name of a safetensors file in the folder"),
    "index elsewhere": (of_index("other/a.safetensors"), "is not the name of a safetensors file in the folder"),
    "distributed": (of_shards, "is a distributed checkpoint"),
    "adapter": (of_adapter, "has an adapter"),
    "tokenizer's map": (of_tokenizer(auto_map=MAP), "names code of its own"),
    "tokenizer's class": (of_tokenizer(tokenizer_class="evil.Tokenizer"), "is no tokenizer of transformers"),
    "tokenizer's model": (of_tokenizer(tokenizer_class="AutoModelForCausalLM"), "is no tokenizer of transformers"),
    "tokenizer's function": (of_tokenizer(tokenizer_class="pipeline"), "is no tokenizer of transformers"),
    "config's tokenizer": (
        lambda folder, called: [
            of_tokenizer(tokenizer_class=None)(folder, called),
            of_config(tokenizer_class="AutoModelForCausalLM")(folder, called),
        ],
        "is no tokenizer of transformers",
    ),
    "module": (of_decoder(_target_="models.nothing.Decoder"), "cannot read its config.json"),
    "function": (of_decoder(_target_="os.system"), "can contain only modules"),
    "list": (of_decoder(_target_=["os.system"]), "can contain only modules"),
    "interpolation": (of_decoder(_target_="models.transformer.Decoder", width="${oc.env:HOME}"), "only plain values"),
}


@pytest.mark.parametrize("name", [*IGNORED, *REFUSED])
def test_a_model_runs_no_code(name: str, folders: Path, tmp_path: Path) -> None:
    folder, called = shutil.copytree(folders / "llama", tmp_path / "llama"), tmp_path / "called"
    plant, message = REFUSED.get(name) or (IGNORED[name], None)
    plant(folder, called)
    if message is None:
        source = torch.arange(4, 20)[None]
        own, other = (find(str(path)).load() for path in (folders / "llama", folder))
        assert torch.equal(own.answer(source, 9, None), other.answer(source, 9, None))
        assert other.model.config._attn_implementation == own.model.config._attn_implementation
    else:
        with pytest.raises(ValueError, match=message) as caught:
            find(str(folder)).load()
        assert "\n" not in str(caught.value)
    assert not called.exists()


@pytest.mark.parametrize("name", ["attention", "pickle", "distributed", "quantized", "tokenizer's model"])
def test_a_checkpoint_to_train_from_runs_no_code(name: str, folders: Path, tmp_path: Path) -> None:
    """A folder that `model.checkpoint` names is checked in the same way."""
    folder, called = shutil.copytree(folders / "t5", tmp_path / "t5"), tmp_path / "called"
    plant, message = REFUSED.get(name) or (IGNORED[name], None)
    plant(folder, called)
    if message is None:
        pretrained(str(folder), "main", 340)
    else:
        with pytest.raises(ValueError, match=message):
            pretrained(str(folder), "main", 340)
    assert not called.exists()


def recorded(folder: Path, called: Path, **hostile: Any) -> Record:
    """A finished run as someone else might hand it over."""
    (folder / "hubconf.py").write_text(f"open({str(called)!r}, 'w')\ndef mine(): pass")
    record = Record(folder / "runs" / "mine" / "0123456789ab")
    own = {"name": "mine", "training": {}, "task": {"_target_": "tasks.passkey.Passkey"}}
    record.begin(CONFIGURATION | own | hostile, ENVIRONMENT)
    record.metrics_file.write_text("")
    record.finish({"metrics": {}, "evaluations": {"0": {}}, "parameters": 0, "steps": 0, "seconds": 0.0}, {})
    return record


def hub(folder: Path) -> dict[str, Any]:
    return {"_target_": "torch.hub.load", "repo_or_dir": str(folder), "model": "mine", "source": "local"}


GLYPHS = "tasks.data.glyphs.Glyphs"
CREATED = "${{oc.create:{{_target_: torch.hub.load, repo_or_dir: '{}', model: mine, source: local}}}}"
SETTINGS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "target": (hub, r"data\._target_=torch\.hub\.load is not allowed"),
    "nested": (lambda folder: {"parts": [{"more": hub(folder)}]}, "is not allowed"),
    "list": (lambda folder: {"_target_": ["torch.hub.load"]}, "is not allowed"),
    "created": (lambda folder: {"_target_": GLYPHS, "cache": CREATED.format(folder)}, "no interpolations"),
    "decoded": (lambda folder: {"_target_": GLYPHS, "cache": "${oc.decode:'1'}"}, "no interpolations"),
    "named": (lambda folder: {"_target_": "${name}"}, "is not allowed"),
}


@pytest.mark.parametrize("what", SETTINGS)
@pytest.mark.parametrize("place", ["data", "task", "model"])
def test_a_record_has_nothing_called(what: str, place: str, tmp_path: Path) -> None:
    make, message = SETTINGS[what]
    record = recorded(tmp_path, tmp_path / "called", **{place: make(tmp_path)})
    for read in (lambda: repeat(record, str(tmp_path / "again"), Console()), lambda: passkey_model(record.folder)):
        with pytest.raises((ValueError, RecordError), match=f"{message.replace('data', place)}|is damaged"):
            read()
    assert not (tmp_path / "called").exists()


def test_a_recorded_configuration_is_data(tmp_path: Path) -> None:
    called = tmp_path / "called"
    record = recorded(tmp_path, called)
    (record.folder / "config.yaml").write_text(f"!!python/object/apply:builtins.open ['{called}', 'w']")
    record.set_status("finished")
    for read in (lambda: repeat(record, str(tmp_path), Console()), lambda: passkey_model(record.folder)):
        with pytest.raises((ValueError, RuntimeError), match="is damaged"):
            read()
    with pytest.raises((ValueError, yaml.YAMLError)):
        export(record.folder, tmp_path / "exported")
    assert not called.exists()


class Texts:
    """A corpus of one text."""

    name, fingerprint = "texts", "0"

    def documents(self, split: str) -> list[Document]:
        return [Document("0", "The grass is green. " * 99)]


def test_a_cache_is_data(tmp_path: Path) -> None:
    """Arrays of objects are pickles."""
    called, objects = tmp_path / "called", io.BytesIO()
    evil = np.array([Call(called)], dtype=object)
    np.savez(objects, tokens=evil, starts=evil, train=evil, test=evil)
    corpus = TokenizedCorpus(Texts(), 300, str(tmp_path))

    def tokenize() -> object:
        return TokenizedCorpus(Texts(), 300, str(tmp_path)).stream("train")

    def draw() -> object:
        return Glyphs(str(tmp_path), train_size=62, test_size=62).images("test")

    tokenize()
    draw()
    (drawn,) = (tmp_path / "glyphs").iterdir()
    for file, read in ((corpus.folder / "train", tokenize), (drawn, draw)):
        file.write_bytes(objects.getvalue())
        with pytest.warns(UserWarning, match="made again"):
            read()
        digest = hashlib.sha256("/".join(file.parts[-2:]).encode() + objects.getvalue()).hexdigest()
        file.write_bytes(digest.encode() + b"\n" + objects.getvalue())
        with pytest.raises(ValueError, match="allow_pickle=False"):  # even if its digest is forged
            read()
    assert not called.exists()
