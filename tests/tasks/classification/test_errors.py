"""The mistakes of a run from its predictions: numbers against other people's, sentences, files and their bytes."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY
from loaded_modules import MAIN, loaded
from prepared import PREPARED, needs_data
from scipy.stats import binomtest
from specs import fake_record, spec_of

from metaformer_ablate.data.datasets import DATASETS
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.names import with_names
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.tasks.classification.error_analysis import figures as error_figures
from metaformer_ablate.tasks.classification.error_analysis.accuracy import accuracy, by_object_size, wilson
from metaformer_ablate.tasks.classification.error_analysis.calibration import calibration
from metaformer_ablate.tasks.classification.error_analysis.comparison import comparison
from metaformer_ablate.tasks.classification.error_analysis.object_size import share_before_background
from metaformer_ablate.tasks.classification.error_analysis.summary import summary
from metaformer_ablate.tasks.classification.error_analysis.text import describe

SUMMARY = "metaformer_ablate.tasks.classification.error_analysis.summary"


def predictions_of(labels: Any, predicted: Any, confidence: Any) -> dict[str, np.ndarray]:
    small = np.uint8
    return {
        "label": np.asarray(labels, small),
        "predicted": np.asarray(predicted, small),
        "confidence": np.asarray(confidence, np.float32),
    }


def drawn(classes: int, n: int = 600, seed: int = 0, wrong: float = 0.3) -> dict[str, np.ndarray]:
    """Predictions at random, of which about a share `wrong` are mistakes."""
    generator = np.random.default_rng(seed)
    labels = np.random.default_rng(99).integers(0, classes, n)
    predicted = np.where(generator.random(n) < wrong, generator.integers(0, classes, n), labels)
    return predictions_of(labels, predicted, generator.uniform(0.2, 1.0, n))


def record_of(
    store: Store, predictions: dict[str, np.ndarray], recipe: str = "fashion_mnist", **options: Any
) -> Record:
    settings = options.pop("settings", {})
    top1 = 100 * float((predictions["label"] == predictions["predicted"]).mean())
    options.setdefault("fingerprint", "0123456789abcdef")
    return fake_record(store, spec_of(settings, recipe=recipe), top1, predictions=predictions, **options)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


# ---------------------------------------------------------------------------------------------------------------------
# Numbers


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 40), (40, 40), (7, 40), (9_731, 10_000), (1, 1000)])
def test_wilson_is_scipys(right, n):
    theirs = binomtest(right, n).proportion_ci(method="wilson")
    assert wilson(right, n) == pytest.approx([100 * theirs.low, 100 * theirs.high], abs=1e-9)


def test_no_images_have_no_interval():
    assert wilson(0, 0) is None
    assert accuracy(np.zeros(0, bool)) == {"images": 0, "correct": 0, "accuracy": None, "ci95": None}


@pytest.mark.parametrize("recipe", ["fashion_mnist", "cifar100"])
def test_confusion_is_sklearns(store, recipe):
    from sklearn.metrics import confusion_matrix

    classes = DATASETS[spec_of(recipe=recipe).data.name].num_classes
    given = drawn(classes)
    found = summary(record_of(store, given, recipe))
    theirs = confusion_matrix(given["label"], given["predicted"], labels=range(classes))
    assert np.array_equal(found["confusion"], theirs)
    assert [c["correct"] for c in found["classes"]] == np.diag(theirs).tolist()
    assert [c["images"] for c in found["classes"]] == theirs.sum(axis=1).tolist()
    assert [c["predicted"] for c in found["classes"]] == theirs.sum(axis=0).tolist()
    assert found["correct"] == np.trace(theirs) and found["images"] == 600
    assert found["accuracy"] == pytest.approx(100 * np.trace(theirs) / 600)
    assert found["warnings"] == []


def test_pairs_and_mistakes_by_hand(store):
    # shirts (6) taken twice for coats (4) and once for bags (8), a coat for a shirt; the rest is right
    labels = [6, 6, 6, 6, 4, 4, 8]
    given = predictions_of(labels, [4, 8, 4, 6, 6, 4, 8], [0.5, 0.75, 0.875, 1, 0.75, 0.5, 0.25])
    found = summary(record_of(store, given), worst=3)
    pairs = [(p["label_name"], p["predicted_name"], p["count"], p["of"], p["share"]) for p in found["pairs"]]
    assert pairs == [("shirt", "coat", 2, 4, 50.0), ("coat", "shirt", 1, 2, 50.0), ("shirt", "bag", 1, 4, 25.0)]
    # the surest first; of two as sure, the first in the data set
    assert [(m["index"], m["confidence"]) for m in found["mistakes"]] == [(2, 87.5), (1, 75.0), (4, 75.0)]
    assert found["mistakes"][1]["label_name"] == "shirt" and found["mistakes"][1]["predicted_name"] == "bag"
    assert found["classes"][0]["accuracy"] is None and found["classes"][6]["accuracy"] == 25.0


def test_ece_is_torchmetrics():
    import torch
    from torchmetrics.functional.classification import binary_calibration_error

    generator = np.random.default_rng(3)
    confidence = generator.uniform(0.5, 1, 3000)
    right = generator.random(3000) < confidence**2
    # Of two classes the top confidence is that of class 1 where it is above a half.
    theirs = binary_calibration_error(torch.tensor(confidence), torch.tensor(right.astype(int)), n_bins=15, norm="l1")
    found = calibration(confidence, right)
    assert found["ece"] == pytest.approx(100 * float(theirs), abs=1e-6)
    assert found["ece"] > found["ece_if_calibrated"]["q95"]
    assert sum(b["images"] for b in found["bins"]) == 3000


def test_a_confidence_on_an_edge_belongs_below_it():
    found = calibration(np.array([0.5, 1.0, 0.50001]), np.array([True, False, True]), bins=2)
    assert [b["images"] for b in found["bins"]] == [1, 2]
    # half an image too few in the first bin; one of two right at a mean confidence of 0.750005 in the second
    assert found["ece"] == pytest.approx(100 * (0.5 + 0.50001) / 3)


def test_what_exact_confidences_would_show():
    # Two answers with a chance of a half: none, one or both are right, and the error is 50, 0 or 50 points.
    found = calibration(np.array([0.5, 0.5]), np.array([True, True]))["ece_if_calibrated"]
    assert found["mean"] == pytest.approx(25, abs=5) and found["q95"] == 50
    generator = np.random.default_rng(5)
    drawn = []
    for _ in range(40):
        confidence = generator.uniform(0.1, 1, 500)
        drawn.append(calibration(confidence, generator.random(500) < confidence))
    below = sum(found["ece"] <= found["ece_if_calibrated"]["q95"] for found in drawn)
    assert 33 <= below <= 40  # 38 of 40 expected
    told = [found["ece_if_calibrated"]["mean"] for found in drawn]
    assert np.mean([found["ece"] for found in drawn]) == pytest.approx(np.mean(told), rel=0.1)


def test_softened_targets_are_named(store):
    assert summary(record_of(store, drawn(10)))["calibration"]["trained_with"] == ["label smoothing 0.1"]
    mixed = summary(record_of(store, drawn(10), "cifar10_long"))["calibration"]["trained_with"]
    assert mixed == ["label smoothing 0.1", "mixed images"]


def test_predictions_of_another_accuracy_are_warned_of(store):
    record = fake_record(store, spec_of(), 97.5)  # its predictions are all right
    (warning,) = summary(record)["warnings"]
    assert "its predictions are 100.00% right, its record says 97.50%" in warning


def test_object_size_by_hand():
    """Class 0 has squares of side 1 to 10 on black, class 1 of side 2 to 11 on white: a fifth has two of each."""
    images = np.zeros((20, 14, 14), np.uint8)
    images[10:] = 255
    for i in range(10):
        images[i, 1 : i + 2, 1 : i + 2] = 200
        images[10 + i, 1 : i + 3, 1 : i + 3] = 10
    labels = np.repeat([0, 1], 10)
    right = np.array([0, 0, 1, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 0, 1, 1], bool)
    order = np.random.default_rng(0).permutation(20)  # the order of the images must not matter
    shares = share_before_background(images[order][:, None])
    found = by_object_size(shares, labels[order], right[order])
    assert [line["images"] for line in found] == [4] * 5
    assert [line["correct"] for line in found] == [0, 2, 4, 3, 4]
    assert found[0]["size"] == pytest.approx(100 * (1 + 4 + 4 + 9) / 4 / 196)
    assert np.array_equal(share_before_background(np.repeat(images[order][:, None], 3, axis=1)), shares)


# ---------------------------------------------------------------------------------------------------------------------
# Two runs


def test_comparison_by_hand(store):
    labels = [0, 0, 1, 1, 2, 2, 3]
    first = record_of(store, predictions_of(labels, [0, 5, 1, 5, 2, 5, 3], [0.5] * 7), settings={"train.lr": 0.001})
    confidence = [0.3, 0.4, 0.6, 0.5, 0.9, 0.9, 0.2]
    second = record_of(store, predictions_of(labels, [0, 5, 5, 6, 5, 2, 3], confidence), settings={"train.lr": 0.01})
    found = comparison(first, second)
    counts = ("both_right", "only_first", "only_second", "both_wrong", "both_wrong_alike")
    assert [found[key] for key in counts] == [2, 2, 1, 2, 1]
    assert found["difference"] == pytest.approx(100 / 7)
    assert found["differ_in"] == {"train.lr": [0.001, 0.01]}
    assert [(c["only_first"], c["only_second"]) for c in found["classes"][:4]] == [(0, 0), (1, 0), (1, 1), (0, 0)]
    # the mistakes of the one that is wrong, its surest first
    assert [(e["index"], e["confidence"]) for e in found["examples"]["only_first"]] == [
        (4, pytest.approx(90)),
        (2, pytest.approx(60)),
    ]
    assert [(e["index"], e["predicted"]) for e in found["examples"]["only_second"]] == [(5, 5)]
    back = comparison(second, first)
    assert (back["only_first"], back["only_second"], back["p"]) == (1, 2, found["p"])


def test_no_discordant_image_tests_nothing(store):
    given = drawn(10)
    first, second = (record_of(store, given, settings={"train.lr": lr}) for lr in (0.001, 0.002))
    found = summary(first) | {"against": comparison(first, second)}
    assert "no image where only one of them is right: nothing to test" in describe(found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fingerprint": "f" * 16}, "data fingerprint ffffffffffffffff"),
        ({"settings": {"data.evaluate_on": "holdout"}}, "fashion_mnist (holdout)"),
        ({"recipe": "cifar10"}, "on cifar10 (test)"),
        ({"predictions": drawn(10, n=599)}, "hold other labels (600 and 599 images)"),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_runs_on_other_images_are_not_compared(store, ablate, change, words):
    first = record_of(store, drawn(10))
    options = {"predictions": drawn(10), "recipe": "fashion_mnist", "settings": {}} | change
    options["settings"] = {"train.lr": 0.01} | options["settings"]
    second = record_of(store, **options)
    sentence = ablate("errors", first.run_id, "--against", second.run_id, "--results", store.path).sentence
    assert words in sentence and first.run_id in sentence and second.run_id in sentence


def test_runs_on_unknown_data_and_a_run_with_itself_are_not_compared(store):
    first, second = (record_of(store, drawn(10), fingerprint=None, settings={"train.lr": lr}) for lr in (0.01, 0.02))
    with pytest.raises(RequestError, match="data fingerprint unknown"):
        comparison(first, second)
    with pytest.raises(RequestError, match="against itself"):
        comparison(first, first)


# ---------------------------------------------------------------------------------------------------------------------
# What is no evidence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"predicted": np.full(600, 10, np.uint8)}, "predicted goes from 10 to 10; allowed: 0 to 9"),
        ({"label": np.zeros(599, np.uint8)}, "label uint8 [599]"),
        ({"confidence": np.full(600, np.nan, np.float32)}, "confidence holds nan to nan; allowed: 0 to 1"),
        ({"confidence": np.full(600, 97.5, np.float32)}, "confidence holds 97.5 to 97.5; allowed: 0 to 1"),
        ({"label": np.zeros(600, np.float32)}, "found label float32 [600]"),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_predictions_that_cannot_be(store, ablate, change, words):
    record = fake_record(store, spec_of(recipe="fashion_mnist"), 70.0, predictions=drawn(10) | change)
    sentence = ablate("errors", record.run_id, "--results", store.path).sentence
    assert words in sentence and "predictions.npz" in sentence


def test_predictions_that_lack_a_part(store):
    given = drawn(10)
    del given["confidence"]
    with pytest.raises(RequestError, match="lacks confidence; allowed: label, predicted and confidence"):
        summary(fake_record(store, spec_of(recipe="fashion_mnist"), 70.0, predictions=given))


@pytest.mark.usefixtures("undrawn")
def test_a_run_without_predictions(store, ablate):
    record = fake_record(store, spec_of(), status="diverged")
    sentence = ablate("errors", record.run_id[:6], "--results", store.path).sentence
    assert sentence.startswith(f"run {record.run_id} diverged (it diverged): it has no predictions")


# ---------------------------------------------------------------------------------------------------------------------
# Names


def test_class_names():
    from torchvision.datasets import FashionMNIST

    ours = [name.lower() for name in DATASETS["fashion_mnist"].classes]
    assert ours == [name.lower() for name in FashionMNIST.classes]
    for name, facts in DATASETS.items():
        assert len(facts.classes) in (facts.num_classes, 0), name
        assert len(set(facts.classes)) == len(facts.classes)
    names = DATASETS["cifar100"].classes  # the file `meta` has them in alphabetical order, with underscores
    assert [n.replace(" ", "_") for n in names] == sorted(n.replace(" ", "_") for n in names)
    assert (names[0], names[54], names[99]) == ("apple", "orchid", "worm")
    assert DATASETS["imagenet"].class_name(12) == "class 12"


@needs_data
def test_cifar10_names_are_those_of_its_files():
    with (Path(str(PREPARED)) / "cifar-10-batches-py" / "batches.meta").open("rb") as stream:
        meta = pickle.load(stream)
    assert list(DATASETS["cifar10"].classes) == meta["label_names"]


# ---------------------------------------------------------------------------------------------------------------------
# The command


def test_numbers_and_figures_without_data(store, ablate, tmp_path):
    record = record_of(store, drawn(10))
    empty = tmp_path / "empty"
    empty.mkdir()
    done = ablate("errors", record.run_id[:8], "--results", store.path, "--data", empty)
    assert done.code == 0
    assert f"no pictures: fashion_mnist is not in {empty}" in done.err
    folder = tmp_path / f"errors-{record.run_id}"
    written = json.loads((folder / "errors.json").read_text())
    assert written["figures"] == ["confusion.png", "classes.png", "calibration.png"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*written["figures"], "errors.json"])
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in written["figures"])
    whole = summary(record)
    assert {key: written[key] for key in whole} == whole
    assert f"{whole['correct']} of 600: {whole['accuracy']:.2f}% [{whole['ci95'][0]:.2f}, " in done.out
    assert str(tmp_path) not in (folder / "errors.json").read_text()  # nothing of this machine


@pytest.mark.usefixtures("undrawn")
def test_json_is_what_is_written(store, ablate, tmp_path):
    first, second = (record_of(store, drawn(10, seed=i), settings={"train.lr": 0.001 + i}) for i in range(2))
    done = ablate(
        "errors", first.run_id, "--against", second.run_id, "--results", store.path, "--out", "here", "--json"
    )
    assert done.code == 0
    assert done.out == (tmp_path / "here" / "errors.json").read_text()
    assert done.json["against"] == comparison(*with_names([first, second]))
    assert "against.png" in done.json["figures"]


def test_the_same_bytes_whatever_the_users_settings(store, ablate, tmp_path):
    import matplotlib

    first, second = (record_of(store, drawn(10, seed=i), settings={"train.lr": 0.001 + i}) for i in range(2))
    words = ("errors", first.run_id, "--against", second.run_id, "--results", store.path, "--out")
    ablate(*words, "one")
    with matplotlib.rc_context(
        {"font.size": 20, "axes.titlelocation": "right", "savefig.dpi": 31, "lines.marker": "x"}
    ):
        ablate(*words, "two")
        assert matplotlib.rcParams["font.size"] == 20
    one, two = ({p.name: p.read_bytes() for p in sorted((tmp_path / name).iterdir())} for name in ("one", "two"))
    assert len(one) == 5 and one == two


def test_classes_without_images_and_many_classes_are_drawn(store, ablate):
    few = record_of(store, predictions_of([1, 1], [1, 1], [0.5, 1.0]))  # no mistake, and nine classes without images
    assert ablate("errors", few.run_id, "--results", store.path).code == 0
    many = record_of(store, drawn(100), "cifar100")
    done = ablate("errors", many.run_id, "--results", store.path)
    assert done.code == 0 and "The 20 worst classes" in done.out


def test_a_thousand_classes_fit_on_a_page(store):
    labels = np.arange(2000, dtype=np.uint16) % 1000
    given = {"label": labels, "predicted": labels // 2, "confidence": np.full(2000, 0.5, np.float32)}
    first, second = (record_of(store, given, "imagenet", settings={"train.lr": lr}) for lr in (0.001, 0.002))
    found = summary(first) | {"against": comparison(first, second)}
    assert found["mistakes"][0]["label_name"] == "class 1"
    drawn = {**error_figures.figures(found), "against": error_figures.against_classes(found)}
    for name, figure in drawn.items():
        assert max(figure.get_size_inches()) <= 16, name


@pytest.mark.usefixtures("undrawn")
def test_data_that_is_not_the_records_makes_no_pictures(store, ablate):
    """The embedded digits are at hand, but the record is of others: a fingerprint or labels that differ."""
    fingerprint = DataFolder(Path("nowhere"), given=True).fingerprint("digits")
    others = record_of(store, drawn(10), "digits", fingerprint="f" * 16)
    done = ablate("errors", others.run_id, "--results", store.path)
    assert done.code == 0
    assert f"has the data fingerprint {fingerprint}, run {others.run_id} was evaluated on {'f' * 16}" in done.err
    shuffled = record_of(store, drawn(10), "digits", fingerprint=fingerprint, settings={"train.lr": 0.01})
    done = ablate("errors", shuffled.run_id, "--results", store.path, "--json")
    assert done.code == 0 and "are not those of run" in done.err
    assert "mistakes.png" not in done.json["figures"]


@pytest.mark.usefixtures("undrawn")
def test_what_needs_weights_is_exit_code_1_where_it_was_asked_for(store, ablate, tmp_path):
    record = record_of(store, drawn(10))
    (tmp_path / "empty").mkdir()
    words = ("errors", record.run_id, "--results", store.path, "--data", tmp_path / "empty")
    assert ablate(*words).code == 0
    for extra in (["--probe", "scale"], ["--gradcam"], ["--layer", "stages.0"]):
        done = ablate(*words, *extra)
        assert done.code == 1 and "no pictures" in done.err and "Accuracy " in done.out


@pytest.mark.usefixtures("undrawn")
def test_requests_that_are_wrong(store, ablate, tmp_path):
    record = record_of(store, drawn(10))
    words = ("errors", record.run_id, "--results", store.path)
    sentence = ablate(*words, "--probe", "scael").sentence
    assert sentence.startswith("--probe: unknown probe 'scael' (did you mean 'scale'?); allowed: scale, resolution")
    assert "is no run in" in ablate("errors", "0" * 12, "--results", store.path).sentence
    assert "is no run in" in ablate(*words, "--against", "0" * 12).sentence
    (tmp_path / "file").write_text("")
    assert "--out file: cannot be written" in ablate(*words, "--out", "file").sentence


def test_numbers_load_no_torch(store, tmp_path):
    """And the figures neither: torch comes with the pictures."""
    first, second = (record_of(store, drawn(10, seed=i), settings={"train.lr": 0.001 + i}) for i in range(2))
    (tmp_path / "empty").mkdir()
    words = ("errors", first.run_id, "--against", second.run_id, "--results", store.path, "--data", tmp_path / "empty")
    assert loaded(MAIN, *words, cwd=tmp_path) == []
    assert loaded(f"import json, sys\nimport {SUMMARY}\n", cwd=tmp_path) == []
    program = f"import json, sys\nimport {SUMMARY}\nassert 'matplotlib' not in sys.modules\n"
    assert loaded(program, cwd=REPOSITORY) == []
