"""The audit finds each thing that a row does not declare, and nothing that it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Result
from specs import fake_record

from metaformer_ablate.analysis.tables.audit import audit
from metaformer_ablate.analysis.tables.render import render
from metaformer_ablate.analysis.tables.table import build_table
from metaformer_ablate.analysis.tables.types import plain
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.records.status import run_states
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.experiment import find_all
from metaformer_ablate.spec.plan import Plan, plan
from metaformer_ablate.tasks.registry import get_task

EXPERIMENT = """
baseline: pool
rows:
  pool: {set: {}}
  none: {set: {model.token_mixer: identity}}
  bare: {set: {model.residual: false}}
  long: {set: {train.epoch_factor: 2, train.batch_size: 64}}
  wide: {set: {model.size: t12}}
"""


@pytest.fixture
def chosen(tmp_path: Path) -> Plan:
    (tmp_path / "made_up.yaml").write_text(EXPERIMENT)
    return plan(str(tmp_path / "made_up.yaml"))


@pytest.fixture
def found(chosen: Plan, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """found({(row, seed): what its record says, or its status}, seeds): the audit of records alike but for that."""

    def run(odd: dict[tuple[str, int], Any], seeds: tuple[int, ...] = (0, 1, 2)) -> list[dict[str, Any]]:
        store = Store(tmp_path / "results")
        for row, spec in chosen.specs.items():
            for seed in seeds:
                says = odd.get((row, seed), {})
                if says == "missing":
                    continue
                status, of = ("ok", says) if isinstance(says, dict) else (says, {})
                of = {"images_seen": 100 * spec.train.epochs, **of}
                fake_record(store, spec.with_seed(seed), 90.0 + seed, status, **of)
        states = {row: run_states(spec, seeds, store, None) for row, spec in chosen.specs.items()}
        return [plain(finding) for finding in audit(chosen, states, get_task().reported)]

    return run


def test_images_that_could_not_be_read_are_a_finding(found: Callable[..., Any]) -> None:
    lost = {"train": {"images": 2, "names": ["a.jpg", "b.jpg"]}, "evaluation": {"images": 1, "names": ["c.jpg"]}}
    told = found({("none", 1): {"unreadable": lost}, ("bare", 2): {"unreadable": {"train": lost["train"]}}})
    texts = [(finding["text"], finding["rows"]) for finding in told]
    assert ("train images could not be read, others stood in for them: 2 (seed 1)", ["none"]) in texts
    assert ("train images could not be read, others stood in for them: 2 (seed 2)", ["bare"]) in texts
    assert ("evaluation images could not be read, they count as wrong unless guessed: 1 (seed 1)", ["none"]) in texts
    assert len(texts) == 3


def test_what_an_image_that_could_not_be_read_counts_for_is_of_the_task() -> None:
    assert get_task("segmentation").unread_evaluated == "no pixel of them counts"
    assert get_task("detection").unread_evaluated == get_task().unread_evaluated


def test_runs_that_went_on_at_another_commit_are_a_finding(found: Callable[..., Any]) -> None:
    told = found({("none", 1): {"earlier_code": [{"commit": "a" * 40, "dirty": True}]}})
    ((text, rows),) = [(finding["text"], finding["rows"]) for finding in told]
    assert text == "seed 1 was trained in part at aaaaaaaaaa with changes, and resumed at another commit"
    assert rows == ["none"]


def test_images_that_were_read_with_a_remark_are_a_finding(found: Callable[..., Any]) -> None:
    told = found({("none", 1): {"remarks": {"orientation": {"evaluation": {"images": 3, "names": ["a.jpg"]}}}}})
    ((text, rows),) = [(finding["text"], finding["rows"]) for finding in told]
    assert text.startswith("evaluation images have an EXIF orientation: they are read as they are stored")
    assert text.endswith(": 3 (seed 1)") and rows == ["none"]


def test_what_rows_declare_is_no_finding(found: Callable[..., Any]) -> None:
    """Longer, wider and with fields that became null: all of it follows from what the rows set."""
    assert found({}) == []


TRAINING = """
baseline: pool
rows:
  pool: {set: {}}
  lion: {set: {train.optimizer: lion, train.schedule: poly}}
  sgd: {set: {train.optimizer: sgd, train.optimizer_args: {momentum: 0.5}, train.schedule: step, train.milestones: [8]}}
  steps: {set: {train.steps: 90, train.warmup_steps: 5}}
"""


def test_what_follows_from_an_optimizer_a_schedule_or_a_length_is_no_finding(tmp_path: Path) -> None:
    """`betas` and `eps` of its own, `gamma`, the epochs and images that so many steps are."""
    (tmp_path / "training.yaml").write_text(TRAINING)
    chosen, store = plan(str(tmp_path / "training.yaml")), Store(tmp_path / "results")
    for row, spec in chosen.specs.items():
        epochs = 1 if row == "steps" else 2
        fake_record(store, spec, images_seen=100 * epochs, epochs=epochs)
    states = {row: run_states(spec, (0,), store, None) for row, spec in chosen.specs.items()}
    last = "top-1 is not that of the last epoch in its history: seed 0"  # of made-up records, two lines each
    assert [(one.text, one.rows) for one in audit(chosen, states, get_task().reported)] == [(last, ("steps",))]


GPU, NEWER = {"device": "an H100"}, {"versions": {"torch": "2.16.0"}}
COMMIT = {"git": {"commit": "0123456789abcdef", "dirty": False}}
DIRTY = {"git": {"commit": None, "dirty": True}}


@pytest.mark.parametrize(
    ("says", "text"),
    [
        (GPU, "device: an H100; of the baseline: a CPU"),
        (NEWER, "torch version: 2.16.0; of the baseline: 2.15.0"),
        ({"versions": {"torch": "2.15.0", "fvcore": "1.0"}}, "fvcore version: 1.0; of the baseline: unknown"),
        (COMMIT, "code commit: 0123456789; of the baseline: unknown"),
        ({"images_seen": 50}, "images seen: 50; of the baseline: 1200"),
        ({"data_fingerprint": "feed"}, "data fingerprint: feed; of the baseline: unknown"),
        (DIRTY, "trained from a checkout with uncommitted changes: its commit does not say what ran"),
        ("failed", "0 of 3 runs count (3 failed: seed 0, 1, 2); of the baseline 3 of 3 runs count"),
        ("missing", "0 of 3 runs count (3 missing: seed 0, 1, 2); of the baseline 3 of 3 runs count"),
    ],
)
def test_what_a_row_does_not_declare(says: Any, text: str, found: Callable[..., Any]) -> None:
    odd = {("none", seed): says for seed in range(3)}
    assert found(odd) == [{"number": 1, "text": text, "rows": ["none"]}]


def test_a_package_that_older_records_do_not_name_is_no_difference(found: Callable[..., Any]) -> None:
    named, other = ({"versions": {"torch": "2.15.0", "timm": version}} for version in ("1.0", "1.1"))
    assert found({("none", seed): named for seed in range(3)}) == []
    mixed = {("none", 0): named, ("none", 1): other}
    assert [each["text"] for each in found(mixed)] == ["timm version differs between runs of one row: 1.0, 1.1"]


@pytest.mark.parametrize(("key", "then", "now"), [("precision", "fp32", "bf16"), ("compiled", False, True)])
def test_rows_that_were_computed_otherwise(key: str, then: Any, now: Any, found: Callable[..., Any]) -> None:
    """What `auto` came to. Records of before there was a choice lack it, and are no finding."""
    says = {("pool", seed): {key: then} for seed in range(3)} | {("none", seed): {key: now} for seed in range(3)}
    assert found(says) == [{"number": 1, "text": f"{key}: {now}; of the baseline: {then}", "rows": ["none"]}]


def test_epochs_that_a_row_does_not_declare(found: Callable[..., Any]) -> None:
    findings = found({("none", seed): {"epochs": 3} for seed in range(3)})
    assert findings[0]["text"] == "epochs: 3; of the baseline: 2"
    # The made-up history ends at epoch 2: the number is not that of the last epoch.
    assert findings[1]["text"] == "top-1 is not that of the last epoch in its history: seed 0, 1, 2"


def test_a_number_of_another_epoch(found: Callable[..., Any]) -> None:
    """The history says 91, 92, 93 in its last line; a record that reports its best epoch says more."""
    best = {("bare", 1): {"metrics": {"top1": 93.5, "top5": 99.0, "loss": 0.1}}}
    assert found(best) == [
        {"number": 1, "text": "top-1 is not that of the last epoch in its history: seed 1", "rows": ["bare"]}
    ]


@pytest.mark.parametrize("says", [GPU, NEWER, COMMIT])
def test_runs_of_one_row_that_differ(says: Any, found: Callable[..., Any]) -> None:
    (finding,) = found({("none", 1): says})
    assert "differs between runs of one row: " in finding["text"] and finding["rows"] == ["none"]
    findings = found({("pool", 1): says})
    assert any(f["rows"] == ["pool"] and "differs between runs of one row" in f["text"] for f in findings)
    # Every other row is unlike a baseline that is unlike itself.
    assert {row for f in findings for row in f["rows"]} == {"pool", "none", "bare", "long", "wide"}


def test_rows_with_the_same_finding_share_a_footnote(found: Callable[..., Any]) -> None:
    odd = {(row, seed): {**GPU, **DIRTY} for row in ("none", "wide") for seed in range(3)}
    findings = found(odd)
    assert [(f["number"], f["rows"]) for f in findings] == [(1, ["none", "wide"]), (2, ["none", "wide"])]


def test_a_diverged_run_is_counted_out_loud(found: Callable[..., Any]) -> None:
    (finding,) = found({("bare", 2): "diverged"})
    assert finding["text"] == "2 of 3 runs count (1 diverged: seed 2); of the baseline 3 of 3 runs count"
    assert finding["rows"] == ["bare"]


def test_other_seeds_of_the_same_number(found: Callable[..., Any]) -> None:
    (finding,) = found({("bare", 2): "missing", **{(row, 0): "missing" for row in ("pool", "none", "long", "wide")}})
    assert finding["rows"] == ["bare"]
    assert "1 missing: seed 2" in finding["text"] and "1 missing: seed 0" in finding["text"]


def test_a_spec_that_differs_where_the_row_sets_nothing(chosen: Plan) -> None:
    """No file can say this: specs come from what rows set. Whoever makes plans by other means is caught."""
    specs = dict(chosen.specs)
    train = specs["none"].train.model_copy(update={"lr": 1e-2})
    model = specs["bare"].model.model_copy(update={"norm": "batch_norm"})
    specs["none"] = specs["none"].model_copy(update={"train": train})
    specs["bare"] = specs["bare"].model_copy(update={"model": model})
    findings = audit(replace(chosen, specs=specs), {row: [] for row in specs}, get_task().reported)
    assert [(f.text, list(f.rows)) for f in findings] == [
        ("train.lr is 0.01, the baseline's 0.002, and the row does not set it", ["none"]),
        ("model.norm is batch_norm, the baseline's mln, and the row does not set it", ["bare"]),
    ]


@pytest.mark.parametrize("name", sorted(find_all("experiment")))
@pytest.mark.parametrize("recipe", ["digits", "imagenet"])
def test_the_specs_of_every_experiment_are_declared(name: str, recipe: str) -> None:
    known = plan(name, recipe)
    assert audit(known, {row: [] for row in known.experiment.rows}, get_task().reported) == ()


# ---------------------------------------------------------------------------------------------------------------------
# In a table


def test_findings_are_footnotes_and_warnings(chosen: Plan, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    for row, spec in chosen.specs.items():
        for seed in range(2):
            of: dict[str, Any] = GPU if row == "bare" else {}
            fake_record(store, spec.with_seed(seed), 90.0 + seed, images_seen=100 * spec.train.epochs, **of)
    table = build_table(chosen, store, DataFolder.choose(None))
    text = "device: an H100; of the baseline: a CPU"
    assert plain(table.audit) == [{"number": 1, "text": text, "rows": ["bare"]}]
    assert f"audit [1]: {text} (bare)" in table.warnings
    for style in ("text", "markdown", "html"):
        printed = render(table, style)
        assert f"[1] audit: {text}" in printed
        assert "bare: residual false [1" in printed
        assert "Warning: audit" not in printed, "it stands there once"
    assert r"\item[a] audit: device: an H100" in render(table, "latex")
    assert r"bare: residual false\tnote{a" in render(table, "latex")
    (line,) = [line for line in render(table, "csv").splitlines() if ",bare," in line]
    assert line.endswith(text)


def test_strict(ablate: Callable[..., Result], chosen: Plan, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    words = ["table", tmp_path / "made_up.yaml", "--seeds", "1"]
    for spec in chosen.specs.values():
        fake_record(store, spec, 90.0, images_seen=100 * spec.train.epochs)
    fair = ablate(*words, "--strict")
    assert (fair.code, fair.err) == (0, "")
    fake_record(store, chosen.specs["bare"], 90.0, images_seen=100 * chosen.specs["bare"].train.epochs, **GPU)
    unfair = ablate(*words, "--strict")
    assert unfair.code == 1
    assert "[1] audit: device" in unfair.out and "--strict: the audit has 1 finding" in unfair.err
    assert ablate(*words).code == 0
    assert ablate(*words, "--strict", "--json").json["audit"][0]["rows"] == ["bare"]
