"""Models of the user's own: a small random Llama and T5, with tokenizers trained for the test, in all three tasks."""

import json
import re
import shutil
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    BertLMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from experiments.config.choices import CONF, groups
from experiments.evaluation.pretrained import composed, execute
from experiments.recording.record import Record, records
from models.external import Tokenizer, find
from models.pretrained import export
from tasks.external.passkey import ANSWER, ExternalPasskey, scores_of
from tests.conftest import CACHE, Program, tiny

pytestmark = pytest.mark.slow

TEXT = "The grass is green. The pass key is 71234; über naïve 日本語 <s> cafés are several bytes each.\n"
SIZE = 340


def backend(kind: str) -> Backend:
    """bytes: byte-level pieces that bring their space in front; words: a space mark before each word, single digits."""
    special = ["<s>", "</s>", "<pad>", "<unk>"]
    if kind == "bytes":
        tokenizer = Backend(BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    else:
        tokenizer = Backend(BPE(unk_token="<unk>"))
        metaspace = pre_tokenizers.Metaspace()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([metaspace, pre_tokenizers.Digits(individual_digits=True)])
        tokenizer.decoder = decoders.Metaspace()
        alphabet = list("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz.,;:?")
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT.replace("<s>", "")] * 20, trainer)
    return tokenizer


def tokenizer_of(kind: str, ends: bool = False) -> PreTrainedTokenizerFast:
    built = backend(kind)
    if ends:
        built.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=built, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def save_llama(folder: Path) -> None:
    """A small random Llama and its tokenizer, as a user might have them."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokens = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    config = LlamaConfig(vocab_size=SIZE, num_key_value_heads=2, max_position_embeddings=600, **sizes, **tokens)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer_of("bytes").save_pretrained(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `llama` and `t5`."""
    root = tmp_path_factory.mktemp("models")
    save_llama(root / "llama")
    small = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    ends = {"pad_token_id": 2, "eos_token_id": 1, "decoder_start_token_id": 2}
    T5ForConditionalGeneration(T5Config(vocab_size=SIZE, **small, **ends)).save_pretrained(root / "t5")
    tokenizer_of("bytes", ends=True).save_pretrained(root / "t5")
    return root


def evaluated(outputs: Path, *overrides: str) -> Record:
    """One evaluation in this process."""
    arguments = ["scale=smoke", f"outputs={outputs}", f"cache={CACHE}", "threads=1", "tracking=none", *overrides]
    return execute(composed(arguments), arguments, Console(file=StringIO()))


def write_texts(folder: Path, split: str = "test", times: int = 1) -> Path:
    """Three files of one, two and three times so many lines."""
    (folder / split).mkdir(parents=True)
    for index in range(3):
        text = TEXT.swapcase() if split == "train" else TEXT  # no span of one split stands in another
        (folder / split / f"{index}.txt").write_text(text * (index + 1) * times + f"{split} {index}", encoding="utf-8")
    return folder


def test_an_evaluation_is_recorded_tracked_shown_and_never_done_twice(
    folders: Path, program: Program, tmp_path: Path
) -> None:
    arguments = [f"model={folders / 'llama'}", "task=passkey", "scale=smoke", f"outputs={tmp_path}", "threads=1"]
    ended = program(*arguments, module="experiments.evaluate")
    assert ended.returncode == 0, ended.stderr
    (record,) = records(tmp_path)
    assert record.finished and record.folder.parent.name == "evaluate_passkey"
    assert {f"digits/512/{depth}" for depth in ("start", "middle", "end")} <= set(record.summary["metrics"])
    (logged,) = (tmp_path / "wandb").rglob("run-*.wandb")
    assert logged.stem == f"run-{record.id}"
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Models of your own" in page and "Passkeys found" in page and "/llama" in page
    before = (record.folder / "status.json").stat().st_mtime_ns
    moved = shutil.copytree(folders / "llama", tmp_path / "moved")  # the same weights are the same model
    again = evaluated(tmp_path, f"model={moved}", "task=passkey")
    assert (again.folder, (again.folder / "status.json").stat().st_mtime_ns) == (record.folder, before)


def test_other_weights_and_other_settings_are_other_evaluations(folders: Path, tmp_path: Path) -> None:
    common = ["task=language_modeling", "data=text", f"data.path={write_texts(tmp_path / 'texts')}"]
    first = evaluated(tmp_path, f"model={folders / 'llama'}", *common)
    other = shutil.copytree(folders / "llama", tmp_path / "other")
    model = AutoModelForCausalLM.from_pretrained(other)
    with torch.no_grad():
        model.lm_head.weight[3] += 1
    model.save_pretrained(other)
    second = evaluated(tmp_path, f"model={other}", *common)
    third = evaluated(tmp_path, f"model={other}", *common, "task.length=32")
    assert len({first.id, second.id, third.id}) == 3
    assert first.summary["metrics"]["sliding/loss"] != second.summary["metrics"]["sliding/loss"]


def test_the_loss_is_that_of_transformers_own_labels(folders: Path, tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts")
    record = evaluated(
        tmp_path, f"model={folders / 'llama'}", "task=language_modeling", "data=text", f"data.path={texts}"
    )
    model = AutoModelForCausalLM.from_pretrained(folders / "llama").eval()
    total, tokens, size = 0.0, 0, 0
    for file in sorted((texts / "test").iterdir()):
        text = file.read_text(encoding="utf-8")
        ids = torch.tensor([[0, *tokenizer_of("bytes")(text, split_special_tokens=True).input_ids]])
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        tokens, size = tokens + ids.shape[1] - 1, size + len(text.encode())
    for row in record.read("tables.json")["protocol"]:
        assert (row["window"], row["tokens"], row["bytes"]) == (600, tokens, size)
    for protocol in ("nonoverlapping", "sliding"):  # every document fits one window
        assert record.summary["metrics"][f"{protocol}/loss"] == pytest.approx(total / tokens, rel=1e-5)


@pytest.mark.parametrize("kind", ["bytes", "words"])
def test_a_prompt_is_exactly_as_long_as_asked_in_the_models_own_tokens(kind: str) -> None:
    tokenizer = Tokenizer(tokenizer_of(kind))
    task = ExternalPasskey(tokenizer, 700, 0, [400, 601], prompts=3, tokens_per_batch=1)
    assert task.length == 601
    for length in (400, 601):
        for depth in ("start", "middle", "end"):
            prompt = task.prompt(length, 71234, depth)
            text = tokenizer.decode(prompt)
            assert len(prompt) == length and prompt[0] == tokenizer.opening
            assert text.startswith("There is an important info") and text.endswith("? The pass key is")
            assert re.sub(r"\s", "", text).count("71234") == 2


@pytest.mark.parametrize("kind", ["bytes", "words"])
def test_digits_are_read_off_the_answers_text_however_they_are_cut(kind: str) -> None:
    tokenizer = Tokenizer(tokenizer_of(kind))
    task = ExternalPasskey(tokenizer, None, 0, [600], prompts=4, tokens_per_batch=1200)

    class Reader(torch.nn.Linear):
        """Finds every second key."""

        def answer(self, source: torch.Tensor, steps: int, end: int | None) -> torch.Tensor:
            assert source.shape == (2, 600 - ANSWER + 1) and steps == ANSWER
            keys = [re.sub(r"\D", "", tokenizer.decode(row))[:5] for row in source.tolist()]
            rows = [tokenizer.encode(f" {key}. The grass is green") for key in (keys[0], "00000")]
            return torch.tensor([(row + [2] * steps)[:steps] for row in rows])

    found = task.evaluate(Reader(1, 1))
    assert found.metrics["exact"] == 0.5 and 0.5 <= found.metrics["digits"] < 0.8


def test_scores_count_digits_and_whole_keys() -> None:
    answers = [" 12345. The", "1 2 3 4 5", "12 999 and", "no number", "<123456"]
    found = scores_of(answers, ["12345"] * 5)
    assert found["exact"] == 3 / 5 and found["digits"] == pytest.approx((5 + 5 + 2 + 0 + 5) / 25)


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_summaries_are_those_of_the_models_own_greedy_decoding(name: str, folders: Path, tmp_path: Path) -> None:
    settings = ["task.source_length=90", "task.summary_length=9"]
    record = evaluated(tmp_path, f"model={folders / name}", "task=summarization", *settings)
    assert {"rouge1", "overall", "baseline/lead/rouge1"} <= set(record.summary["metrics"])
    samples = record.read("tables.json")["samples"]
    source = find(str(folders / name))
    tokenizer, encoder = source.tokenizer, name == "t5"
    kind = AutoModelForSeq2SeqLM if encoder else AutoModelForCausalLM
    model = kind.from_pretrained(folders / name).eval()
    after = [] if encoder else tokenizer.encode("\n\nSummary:")
    for sample in samples:
        document = tokenizer.encode(sample["document"])  # its first 300 characters are more than 90 tokens
        around = ([], [1]) if encoder else ([0], after)
        prompt = [*around[0], *document[: 90 - len(around[0]) - len(around[1])], *around[1]]
        assert len(prompt) == 90
        written = model.generate(torch.tensor([prompt]), max_new_tokens=9, do_sample=False)[0].tolist()
        text = tokenizer.decode(written[1:] if encoder else written[90:]).strip()
        assert sample["summary"] == text


def test_a_decoder_of_ours_scores_the_same_outside(program: Program, tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts", times=20)  # share no span with the training text, so all is scored
    for split in ("train", "validation"):
        write_texts(texts, split, times=20)
    ours = ["data=text", f"data.path={texts}"]
    trained = program(
        *tiny(tmp_path, "tracking=none", "training.steps=4", "training.precision=fp32", "task.stride=32", *ours)
    )
    assert trained.returncode == 0, trained.stderr
    (record,) = records(tmp_path)
    export(record.folder, tmp_path / "exported")
    settings = [f"task.{key}={record.config['task'][key]}" for key in ("length", "stride", "evaluation_tokens")]
    found = evaluated(tmp_path, f"model={tmp_path / 'exported'}", "task=language_modeling", *settings, *ours)
    for name, value in found.summary["metrics"].items():
        assert value == pytest.approx(record.summary["metrics"][name], rel=1e-4)
    answered = evaluated(tmp_path, f"model={tmp_path / 'exported'}", "task=passkey", "task.evaluation_lengths=[512]")
    assert answered.finished


def spoil(root: Path, folders: Path, what: str) -> Path:
    """A copy of the Llama's folder that lacks something or has it wrong."""
    folder = shutil.copytree(folders / "llama", root / "spoilt")
    config = json.loads((folder / "config.json").read_text())
    if what == "tokenizer":
        for file in folder.glob("tokenizer*"):
            file.unlink()
    elif what == "weights":
        (folder / "model.safetensors").write_bytes(b"half of it")
    elif what == "no weights":
        (folder / "model.safetensors").unlink()
    elif what == "code":
        auto = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
        (folder / "evil.py").write_text("raise SystemExit('run')")
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "unheard_of", "auto_map": auto}))
    elif what == "vocabulary":
        (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 99}))
    elif what == "type":
        (folder / "config.json").write_text(json.dumps(LlamaConfig().to_dict() | {"model_type": "vit"}))
    return folder


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("tokenizer", "contains no tokenizer: add the model's own"),
        ("weights", "cannot read its weights"),
        ("no weights", "contains no weights"),
        ("code", "it needs its own code, which is never run here"),
        ("vocabulary", "has 99 tokens and its tokenizer .*: they do not belong together"),
        ("type", "has type vit; it must be a causal or a sequence-to-sequence model"),
    ],
)
def test_a_folder_that_cannot_be_used_is_told_in_one_line(
    what: str, message: str, folders: Path, tmp_path: Path
) -> None:
    folder = spoil(tmp_path, folders, what)
    with pytest.raises(ValueError, match=message) as caught:
        evaluated(tmp_path / "outputs", f"model={folder}", "task=passkey")
    assert "\n" not in str(caught.value)
    assert not records(tmp_path / "outputs")


@pytest.mark.parametrize(
    ("model", "overrides", "message"),
    [
        ("llama", ["task=passkey", "task.evaluation_lengths=[600,601]"], "601 tokens exceed the 600 positions"),
        ("llama", ["task=language_modeling", "task.length=700"], "700 tokens exceed the 600 positions"),
        ("llama", ["task=summarization", "task.source_length=590"], "653 tokens exceed the 600 positions"),
        ("llama", ["task=passkey", "task.evaluation_lengths=[64]"], "a passkey prompt with its answer needs at least"),
        ("llama", ["task=passkey", "task.promts=3"], "unknown key 'task.promts'; the nearest is 'task.prompts'"),
        ("llama", ["task=passkeys"], "task=passkeys: no such choice; the nearest is 'passkey'"),
        ("llama", ["task=passkey", "data=stdlib"], "task=passkey needs no data"),
        ("llama", ["task=language_modeling", "data=docstrings"], "task=language_modeling needs documents"),
        ("llama", ["task=language_modeling", "task.split=tests"], "task.split"),
        ("llama", [], "task is missing: add task=passkey|language_modeling|summarization"),
        ("t5", ["task=passkey"], "is a sequence-to-sequence model: it can only be evaluated on task=summarization"),
        ("nowhere", ["task=passkey"], "does not exist; pass a folder saved by save_pretrained, or a hub id"),
        ("", ["task=passkey"], "contains no config.json"),
    ],
)
def test_what_cannot_be_asked_is_told_in_one_line_before_any_work(
    model: str, overrides: list[str], message: str, folders: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        evaluated(tmp_path, f"model={folders / model}", *overrides)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_a_model_that_looks_both_ways_is_refused(folders: Path, tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    BertLMHeadModel(BertConfig(vocab_size=SIZE, initializer_range=1.0, **sizes)).save_pretrained(tmp_path / "bert")
    tokenizer_of("bytes").save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="is not causal: its logits depend on later tokens"):
        evaluated(tmp_path, f"model={tmp_path / 'bert'}", "task=passkey", "task.evaluation_lengths=[400]")
    assert not records(tmp_path)


@pytest.mark.parametrize("task", groups()["evaluation"])
def test_every_evaluation_opens_with_its_own_command_and_is_planned_at_every_scale(task: str) -> None:
    package, command, *_ = (CONF / "evaluation" / f"{task}.yaml").read_text().splitlines()
    assert package == "# @package _global_"
    assert command.startswith(f"# python -m experiments.evaluate model=<folder or hub id> task={task}")
    for scale in groups()["scale"]:
        assert composed(["model=some/model", f"task={task}", f"scale={scale}"])["name"] == f"evaluate_{task}"


def test_a_hub_id_without_a_network_says_how_to_go_on(program: Program, tmp_path: Path) -> None:
    ended = program("model=some/model", "task=passkey", f"outputs={tmp_path}", module="experiments.evaluate")
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert "set HF_HUB_OFFLINE=0 to load it from the hub" in line
