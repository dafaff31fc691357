"""What holds for data: splits by document, hub sets read from a folder, errors that name what is missing, ROUGE."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import hydra
import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from support import composed

from experiments.training.run_spec import resolve
from tasks.data.images import Digits
from tasks.data.pairs import Docstrings
from tasks.data.source import SPLITS, DataError, split_of
from tasks.data.text import HubText, StandardLibrary, TextFiles
from tasks.rouge import overall, rouge, sentences

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"  # samples of the hub's data sets, where there are any
PUBLISHED = [  # ROUGE-1, 2, L and the overall score of Munkhdalai et al. 2024, table 4
    (36.4, 7.6, 15.3, 16.2),
    (36.8, 8.3, 15.7, 16.9),
    (38.6, 7.2, 15.6, 16.3),
    (37.9, 8.2, 16.3, 17.2),
    (37.9, 8.7, 17.6, 18.0),
    (40.0, 8.8, 17.9, 18.5),
]
PAIRS = [  # summary, reference
    ("the cat sat on the mat", "the cat lay on the mat"),
    ("He was running; they run.", "She runs and he ran, in 1984!"),
    ("nothing in common", "entirely different words"),
    ("", "a summary was expected here"),
    ("Two sentences. The second follows.\nAnd a line.", "The second follows. Two sentences."),
]


@pytest.mark.parametrize("row", PUBLISHED)
def test_overall_rouge_reproduces_the_published_rows(row: tuple[float, ...]) -> None:
    assert overall(*row[:3]) == pytest.approx(row[3], abs=0.05)


def test_rouge_equals_rouge_scores_own() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    found = rouge(*map(list, zip(*PAIRS)))
    rows = [scorer.score(target=reference, prediction=summary) for summary, reference in PAIRS]
    for name in ("rouge1", "rouge2", "rougeL"):
        assert found[name] == pytest.approx(100 * sum(row[name].fmeasure for row in rows) / len(rows))
    assert found["overall"] == pytest.approx(overall(found["rouge1"], found["rouge2"], found["rougeL"]))


def test_rouge_equals_counts_by_hand() -> None:
    """Five of six words, three of five pairs, a common subsequence of five."""
    found = rouge([PAIRS[0][0]], [PAIRS[0][1]])
    assert (found["rouge1"], found["rouge2"], found["rougeL"]) == pytest.approx((100 * 5 / 6, 60, 100 * 5 / 6))
    assert rouge(["they were running"], ["they were runs"])["rouge1"] == pytest.approx(100)  # stemmed
    with pytest.raises(ValueError):
        rouge(["one"], ["one", "two"])


def test_sentences_are_split_and_nothing_is_lost() -> None:
    assert sentences("One. Two?  Three!\nfour\n\nFive is 3.14.") == ["One.", "Two?", "Three!", "four", "Five is 3.14."]


def test_the_split_of_a_document_is_a_function_of_its_name() -> None:
    names = [f"folder/file{index}.py" for index in range(20_000)]
    splits = [split_of(name) for name in names]
    assert splits == [split_of(name) for name in names]
    shares = {split: splits.count(split) / len(names) for split in SPLITS}
    assert shares == pytest.approx({"train": 0.85, "validation": 0.05, "test": 0.1}, abs=0.01)


def library(root: Path, names: list[str]) -> dict[str, set[str]]:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"# {name}\n" + '"""Add two numbers.\n\n' + "One word after the other. " * 20 + f'{name}"""\n')
    source = StandardLibrary(str(root))
    return {split: {document.name for document in source.documents(split)} for split in SPLITS}


def test_splits_are_disjoint_and_stay_as_the_corpus_grows(tmp_path: Path) -> None:
    names = [f"package{index % 5}/module{index}.py" for index in range(80)]
    before = library(tmp_path, names[:40])
    after = library(tmp_path, ["a/first.py", *names])
    for split in SPLITS:
        assert before[split] and before[split] <= after[split]
    assert sum(map(len, after.values())) == 81 == len(set().union(*after.values()))


def write_texts(root: Path, names: list[str]) -> TextFiles:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(f"The text of {name}, café.\r\n".encode())
    return TextFiles(str(root))


def names_in(source: TextFiles) -> dict[str, set[str]]:
    return {split: {document.name for document in source.documents(split)} for split in SPLITS}


def test_files_of_ones_own_are_split_by_name_and_stay_where_they_are(tmp_path: Path) -> None:
    names = [f"shelf{index % 5}/book{index}.{'txt' if index % 2 else 'md'}" for index in range(80)]
    first = write_texts(tmp_path, names[:40])
    before, same = names_in(first), TextFiles(str(tmp_path))
    assert first.fingerprint == same.fingerprint
    grown = write_texts(tmp_path, ["a/first.py", "train/kept.txt", "validation/kept.txt", "test/kept.txt", *names])
    after = names_in(grown)
    assert grown.fingerprint != first.fingerprint
    for split in SPLITS:
        assert before[split] and before[split] | {f"{split}/kept.txt"} <= after[split]
    assert sum(map(len, after.values())) == 84 == len(set().union(*after.values()))
    (document,) = (found for found in grown.documents("test") if found.name == "test/kept.txt")
    assert document.text == "The text of test/kept.txt, café.\r\n"


def test_files_that_are_no_texts_are_named_and_left_out_or_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_texts(tmp_path, ["train/a.txt", "test/b.txt", ".git/hidden.txt", ".hidden"])
    good = TextFiles(str(tmp_path)).fingerprint
    bad = {"blank.txt": b" \n", "picture.png": b"\x89PNG\xff", "test/copy.txt": (tmp_path / "train/a.txt").read_bytes()}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    source = TextFiles(str(tmp_path))
    with pytest.warns(UserWarning) as told:
        assert source.fingerprint != good  # a copy further up in the order takes the place of the other
    (line,) = [str(warning.message) for warning in told]
    for said in (
        "blank.txt is empty",
        "picture.png is not UTF-8 text (byte 0)",
        "train/a.txt is a copy of another file",
    ):
        assert said in line
    with pytest.raises(
        DataError, match=r"blank\.txt is empty; .*; mend or remove what is bad, or set data\.on_bad=skip"
    ):
        TextFiles(str(tmp_path), on_bad="stop").documents("train")
    (tmp_path / "huge.txt").write_text("long " * 20)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=50))
    with pytest.warns(UserWarning, match=r"huge\.txt is larger than the free memory"):
        assert [document.name for document in TextFiles(str(tmp_path)).documents("test")] == [
            "test/b.txt",
            "test/copy.txt",
        ]


def test_files_of_ones_own_that_cannot_be_used_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"set data\.path=<folder or file>"):
        TextFiles()
    with pytest.raises(DataError, match=r"nowhere does not exist; it must be a text file or a folder"):
        TextFiles(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="has no good text file"):
        TextFiles(str(tmp_path)).documents("train")
    write_texts(tmp_path, ["train/one.txt"])
    with pytest.raises(DataError, match=r"has 1 good files, none of them in the test split.*folder .*test"):
        TextFiles(str(tmp_path)).documents("test")
    (document,) = TextFiles(str(tmp_path / "train" / "one.txt")).documents(split_of("one.txt"))
    assert document.name == "one.txt"


def test_docstrings_of_a_module_and_equal_texts_share_a_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(Docstrings, "packages", ("documented",))
    text = "This sentence of ten words stands here for a document. " * 5
    (tmp_path / "documented").mkdir()
    (tmp_path / "documented" / "__init__.py").write_text("")
    for index in range(60):
        functions = [f'def f{k}():\n    """Do {k}.\n\n    {text} {index} {k}\n    """\n' for k in range(2)]
        copied = f'def g():\n    """Copied.\n\n    {text}\n    """\n'
        hidden = f'def _h():\n    """Hidden.\n\n    {text} hidden\n    """\n'
        (tmp_path / "documented" / f"module{index}.py").write_text("\n".join([*functions, copied, hidden]))
    docstrings = Docstrings(str(tmp_path / "cache"))
    splits = {split: docstrings.pairs(split) for split in SPLITS}
    modules = [{pair.name.split(":")[0] for pair in pairs} for pairs in splits.values()]
    assert all(modules) and sum(map(len, modules)) == 60
    documents = [pair.document for pairs in splits.values() for pair in pairs]
    assert len(documents) == len(set(documents)) == 2 * 60 + 1
    assert {pair.summary for pair in splits["train"]} >= {"Do 0.", "Do 1."}
    assert not any("Hidden" in pair.summary for pairs in splits.values() for pair in pairs)


def test_digits_are_split_once_and_for_all() -> None:
    train, test = (Digits().images(split) for split in ("train", "test"))
    assert (len(train.labels), len(test.labels)) == (1438, 359)
    assert train.pixels.shape == (1438, 1, 8, 8) and train.pixels.dtype == np.uint8
    everything, bunch = Digits().everything, load_digits()
    assert np.array_equal(everything.pixels[:, 0], (bunch.images * (255 / 16)).round())
    assert np.array_equal(everything.labels, bunch.target)
    joined = np.concatenate([train.pixels, test.pixels]).reshape(1797, -1)
    assert sorted(map(bytes, joined)) == sorted(map(bytes, everything.pixels.reshape(1797, -1)))
    assert np.array_equal(test.pixels, Digits().images("test").pixels)


def books(split: str) -> datasets.Dataset:
    columns = {"short_book_title": ["A", "B", "C"], "publication_date": [1850, 1860, 1870], "url": ["u", "v", "w"]}
    return datasets.Dataset.from_dict(columns | {"text": [f"{split} book one", "  ", f"{split} book three"]})


def chapters(split: str) -> datasets.Dataset:
    summaries = [
        [{"source": "sparknotes", "text": f"{split} short"}, {"source": "cliff", "text": "other"}],
        [],
        [{"source": "cliff", "text": f"{split} shorter"}],
    ]
    return datasets.Dataset.from_dict({"text": [f"{split} long", "lost", f"{split} longer"], "summary": summaries})


def pictures(split: str) -> datasets.Dataset:
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)})
    shades = [np.full((32, 32, 3), shade + len(split), np.uint8) for shade in (0, 100, 200)]
    columns = {"img": [Image.fromarray(shade) for shade in shades], "label": [3, 1, 9]}
    return datasets.Dataset.from_dict(columns, features=features)


def source(data: str, folder: Path, cache: Path) -> Any:
    settings = dict(composed(f"data={data}", f"data.path={folder}", f"cache={cache}").data)
    return hydra.utils.get_class(settings.pop("_target_"))(**settings)


def write(make: Callable[[str], datasets.Dataset], folder: Path, kind: str, splits: tuple[str, ...] = SPLITS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split in splits:
        if kind == "parquet":
            make(split).to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
        else:
            lines = (json.dumps(row) for row in make(split).to_list())
            (folder / f"{split}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_pg19_is_read_from_a_folder(kind: str, tmp_path: Path) -> None:
    read = source("pg19", write(books, tmp_path / "books", kind), tmp_path)
    for split in SPLITS:
        assert [document.text for document in read.documents(split)] == [f"{split} book one", f"{split} book three"]
    names = [document.name for split in SPLITS for document in read.documents(split)]
    assert len(set(names)) == 6


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_booksum_is_read_from_a_folder(kind: str, tmp_path: Path) -> None:
    read = source("booksum", write(chapters, tmp_path / "books", kind), tmp_path)
    for split in SPLITS:
        found = [(pair.document, pair.summary) for pair in read.pairs(split)]
        assert found == [(f"{split} long", f"{split} short"), (f"{split} longer", f"{split} shorter")]


@pytest.mark.parametrize("own", ["test", "validation"])
def test_validation_is_taken_out_of_the_training_rows_of_a_hub_set_without_both_splits(
    own: str, tmp_path: Path
) -> None:
    def rows(split: str) -> datasets.Dataset:
        return datasets.Dataset.from_dict({"text": [f"{split} {n}" for n in range(200)], "summary": ["short"] * 200})

    folder = write(rows, tmp_path / "rows", "parquet", ("train", own))
    read, pairs = source("pg19", folder, tmp_path), source("booksum", folder, tmp_path)
    texts = {split: [document.text for document in read.documents(split)] for split in SPLITS}
    assert texts["test"] == [f"{own} {n}" for n in range(200)]
    assert 3 <= len(texts["validation"]) <= 20
    assert sorted(texts["train"] + texts["validation"]) == sorted(f"train {n}" for n in range(200))
    assert texts == {split: [pair.document for pair in pairs.pairs(split)] for split in SPLITS}


@pytest.mark.parametrize(("data", "label"), [("cifar10", "label"), ("cifar100", "fine_label")])
def test_cifar_is_read_from_a_folder(data: str, label: str, tmp_path: Path) -> None:
    def rows(split: str) -> datasets.Dataset:
        return pictures(split).rename_column("label", label) if label != "label" else pictures(split)

    read = source(data, write(rows, tmp_path / "images", "parquet", ("train", "test")), tmp_path)
    for split in ("train", "test"):
        pixels, labels = read.images(split)
        assert pixels.shape == (3, 3, 32, 32) and pixels.dtype == np.uint8
        assert pixels[:, 0, 0, 0].tolist() == [shade + len(split) for shade in (0, 100, 200)]
        assert labels.tolist() == [3, 1, 9]


def test_images_may_be_in_parquet_files_that_other_programs_wrote(tmp_path: Path) -> None:
    """The same columns without the note, which only `datasets` leaves in a file, that img holds images."""
    folder = write(pictures, tmp_path / "images", "parquet", ("train", "test"))
    for file in folder.iterdir():
        pyarrow.parquet.write_table(pyarrow.parquet.read_table(file).replace_schema_metadata(None), file)
    assert source("cifar10", folder, tmp_path).images("test").pixels[:, 0, 0, 0].tolist() == [4, 104, 204]


@pytest.mark.parametrize(("data", "make"), [("pg19", books), ("booksum", chapters), ("cifar10", pictures)])
def test_what_a_folder_lacks_is_named(data: str, make: Callable[[str], Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.path=.*nowhere is not a folder"):
        source(data, tmp_path / "nowhere", tmp_path)
    with pytest.raises(DataError, match="names say train and test or validation; found train"):
        source(data, write(make, tmp_path / "half", "parquet", ("train",)), tmp_path)
    column = {"pg19": "text", "booksum": "summary", "cifar10": "label"}[data]
    others = write(lambda split: make(split).rename_column(column, "misnamed"), tmp_path / "other", "parquet")
    with pytest.raises(DataError, match=f"lacks the column {column}; it has .*misnamed"):
        source(data, others, tmp_path)


def test_a_run_on_data_that_is_not_there_ends_with_that_error_alone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is not a folder"):
        resolve(composed("data=pg19", f"data.path={tmp_path}/nowhere", f"cache={tmp_path}", f"outputs={tmp_path}"))


def test_a_hub_set_without_a_network_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match=r"HF_HUB_OFFLINE=0 .* data\.path=<folder>"):
        HubText("emozilla/pg19", "text", str(tmp_path))


def test_a_fingerprint_tells_contents_apart(tmp_path: Path) -> None:
    folder = write(books, tmp_path / "books", "jsonl")
    first, again = (source("pg19", folder, tmp_path).fingerprint for _ in range(2))
    (folder / "test.jsonl").write_text(json.dumps({"text": "another book"}))
    assert first == again != source("pg19", folder, tmp_path).fingerprint


@pytest.mark.parametrize("folder", ["extracts", "latest/abstracts", "interval"])
def test_splits_are_told_by_words_and_not_by_letters(folder: str, tmp_path: Path) -> None:
    """The name of a folder may hold the letters of a split: ex-tra-cts, la-tes-t, in-ter-val."""
    write(books, tmp_path / "books" / folder, "jsonl")
    read = source("pg19", tmp_path / "books", tmp_path)
    for split in SPLITS:
        assert [document.text for document in read.documents(split)] == [f"{split} book one", f"{split} book three"]


@pytest.mark.parametrize(("data", "folder"), [("pg19", "books"), ("cifar10", "cifar10")])
def test_samples_of_the_hub_are_read(data: str, folder: str, tmp_path: Path) -> None:
    if not (DATA / folder).is_dir():
        pytest.skip(f"no sample of {data} beside the repository")
    for file in (DATA / folder).rglob("*.parquet"):
        few = pyarrow.parquet.ParquetFile(file).read_row_group(0).slice(0, 20)
        pyarrow.parquet.write_table(few, tmp_path / file.name)
    read = source(data, tmp_path, tmp_path)
    if data == "pg19":
        assert all(len(document.text) > 100 for split in SPLITS for document in read.documents(split))
    else:
        assert all(read.images(split).pixels.shape == (20, 3, 32, 32) for split in ("train", "test"))
