"""Figures from made-up records: the numbers are the table's, nothing is silently absent, the bytes are the same."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import matplotlib
import pytest
import scipy.stats
from conftest import Result, command
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.path import Path as Line
from matplotlib.text import Text
from PIL import Image
from specs import fake_record

from metaformer_ablate.analysis.figures.data import COSTS, FigureData
from metaformer_ablate.analysis.figures.kinds import KINDS, caption, draw, figure, figure_data
from metaformer_ablate.analysis.figures.labels import spread_apart
from metaformer_ablate.analysis.figures.look import Look, inches
from metaformer_ablate.analysis.figures.scale import Scale
from metaformer_ablate.analysis.figures.style import MARKERS, row_styles
from metaformer_ablate.analysis.tables.table import build_table
from metaformer_ablate.analysis.tables.types import Table
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.drawing.canvas import FORMATS, to_bytes
from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.plan import Plan, plan
from metaformer_ablate.tasks.registry import get_task

TOP1 = get_task().reported

# What becomes of each row of table5; the other rows have three seeds near 97.
MISSING, DIVERGED, PARTIAL, AT_CHANCE, ONE_SEED, FAILED = "ppff", "batch_norm", "no_norm", "no_residual", "silu", "pppf"


@dataclass(frozen=True)
class Study:
    plan: Plan
    store: Store
    folder: DataFolder
    known: dict[str, FigureData] = field(default_factory=dict)

    def data(self, kind: str, **options: str) -> FigureData:
        key = repr((kind, options))
        if key not in self.known:
            self.known[key] = figure_data(kind, self.table(), **options)
        return self.known[key]

    def table(self) -> Table:
        return build_table(self.plan, self.store, self.folder)

    @property
    def arguments(self) -> tuple[str, ...]:
        return (self.plan.experiment.name, "--results", str(self.store.path))


def top1_of(place: int, seed: int) -> float:
    """Different for every run, by no rule that a mistake would share."""
    return round(96.2 + 0.13 * place + (0.31, -0.2, 0.05)[seed] * (1 + place % 3), 4)


@pytest.fixture(scope="module")
def study(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """table5 with three seeds, and a row for each thing that can go wrong."""
    chosen, store = plan("table5"), Store(tmp_path_factory.mktemp("study") / "results")
    folder = DataFolder.choose(None)
    of = {"fingerprint": folder.fingerprint("digits"), "images_seen": 17_000}
    for place, (row, spec) in enumerate(chosen.specs.items()):
        for seed in range(3):
            run = spec.with_seed(seed)
            costs = {"macs": 3_600_000 + 400_000 * (row in ("ppaa", "random")), "seconds": 10.0 + seed + place / 10}
            if row == MISSING or (row == ONE_SEED and seed):
                continue
            if row == DIVERGED or (row == PARTIAL and seed == 1):
                fake_record(store, run, 60.0, "diverged", **of, **costs)
            elif row == FAILED and seed == 2:
                fake_record(store, run, 60.0, "failed", **of, **costs)
            elif row == AT_CHANCE:
                fake_record(store, run, 10.5 + seed / 10, at_chance=True, **of, **costs)
            else:
                fake_record(store, run, top1_of(place, seed), **of, **costs)
    return Study(chosen, store, folder)


@pytest.fixture(scope="module")
def small(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """pooling_size with two seeds: for what does not need eighteen rows."""
    chosen, store = plan("pooling_size"), Store(tmp_path_factory.mktemp("small") / "results")
    folder = DataFolder.choose(None)
    for place, spec in enumerate(chosen.specs.values()):
        for seed in range(2):
            fake_record(store, spec.with_seed(seed), top1_of(place, seed), fingerprint=folder.fingerprint("digits"))
    return Study(chosen, store, folder)


PAGE, COLUMN, SLIDE = Look(caption=True), Look(width=3.3, caption=True), Look(width=10, font=14, caption=True)
FULL = Look(caption=True, full_labels=True)
CURVES = ("train_loss", "val_loss", "val_top5")
ALL = [(kind, {}) for kind in KINDS]
ALL += [("cost", {"x": x}) for x in list(COSTS)[1:]] + [
    ("curves", {"y": y}) for y in ("train_loss", "val_loss", "val_top5")
]
each = pytest.mark.parametrize(("kind", "options"), ALL, ids=["-".join([k, *o.values()]) for k, o in ALL])


def by_name(data: FigureData) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in data.to_json()["rows"]}


def texts(drawn: Figure) -> list[Text]:
    """Every text that is drawn: tick labels beyond the ends of an axis, for one, are not."""
    found = []
    draw_text = Text.draw

    def watch(text: Text, renderer: Any) -> None:
        if text.get_visible() and text.get_text().strip():
            found.append(text)
        draw_text(text, renderer)

    with mock.patch.object(Text, "draw", watch):
        FigureCanvasAgg(drawn).draw()
    return found


def joined(seen: list[Text]) -> str:
    return " ".join(" ".join(text.get_text() for text in seen).split())


def said(drawn: Figure) -> str:
    return joined(texts(drawn))


# ---------------------------------------------------------------------------------------------------------------------
# The numbers


def test_rows_are_the_numbers_of_the_table(study: Study) -> None:
    rows = by_name(study.data("rows"))
    table = study.table().to_json()
    assert list(rows) == [row["name"] for row in table["rows"]]
    for row in table["rows"]:
        drawn = rows[row["name"]]
        assert {key: drawn[key] for key in ("label", "group", "n", "mean", "ci95")} == {
            key: row[key] for key in ("label", "group", "n", "mean", "ci95")
        }
        assert (drawn["delta"] is None) == (row["delta"] is None)
    places = {name: place for place, name in enumerate(rows)}
    ours, base = ([top1_of(places[name], seed) for seed in range(3)] for name in ("identity", "baseline"))
    theirs = scipy.stats.ttest_rel(ours, base)
    assert rows["identity"]["delta"]["ci95"] == pytest.approx(list(theirs.confidence_interval()))
    assert rows["baseline"]["delta"] is None


def test_how_the_runs_of_a_row_ended(study: Study) -> None:
    rows = by_name(study.data("rows"))
    assert rows[MISSING]["seeds"] == {"missing": [0, 1, 2]}
    assert rows[DIVERGED]["seeds"] == {"diverged": [0, 1, 2]}
    assert rows[PARTIAL]["seeds"] == {"ok": [0, 2], "diverged": [1]}
    assert rows[FAILED]["seeds"] == {"ok": [0, 1], "failed": [2]}
    assert rows[ONE_SEED]["seeds"] == {"ok": [0], "missing": [1, 2]}
    assert {name: row["at_chance"] for name, row in rows.items() if row["at_chance"]} == {AT_CHANCE: [0, 1, 2]}
    assert (rows[ONE_SEED]["n"], rows[ONE_SEED]["ci95"]) == (1, None)


def test_seeds_are_the_runs(study: Study) -> None:
    rows = by_name(study.data("seeds"))
    for place, name in enumerate(rows):
        expected = {seed: top1_of(place, seed) for seed in rows[name]["seeds"].get("ok", [])}
        if name != AT_CHANCE:
            assert {run["seed"]: run["top1"] for run in rows[name]["runs"]} == expected
    assert [run["seed"] for run in rows[PARTIAL]["runs"]] == [0, 2]


def test_the_band_is_over_the_seeds_that_ended_ok(study: Study) -> None:
    rows = by_name(study.data("curves"))
    tops = [top1_of(0, seed) for seed in range(3)]
    assert rows["baseline"]["band"] == [
        {"epoch": 1.0, "mean": pytest.approx(40.0), "low": 40.0, "high": 40.0},
        {"epoch": 2.0, "mean": pytest.approx(sum(tops) / 3), "low": min(tops), "high": max(tops)},
    ]
    assert [(run["seed"], run["status"]) for run in rows[PARTIAL]["runs"]] == [(0, "ok"), (1, "diverged"), (2, "ok")]
    assert rows[PARTIAL]["band"][-1]["high"] < 100, "the diverged seed is in the band"
    place = list(rows).index(PARTIAL)
    assert rows[PARTIAL]["band"][-1]["low"] == min(top1_of(place, seed) for seed in (0, 2))
    assert rows[DIVERGED]["band"] == [] and len(rows[DIVERGED]["runs"]) == 3
    losses = by_name(study.data("curves", y="train_loss"))["baseline"]["band"]
    assert [point["mean"] for point in losses] == [pytest.approx(2.1)] * 2


def test_cost_has_counts_or_measured_speed(study: Study) -> None:
    rows = by_name(study.data("cost"))
    assert {name: row["x"] for name, row in rows.items() if row["x"] == 4_000_000}.keys() == {"random", "ppaa"}
    assert by_name(study.data("cost", x="params"))["baseline"]["x"] == 119_000
    fast = study.data("cost", x="images_per_second")
    assert fast.to_json()["devices"] == ["a CPU"]
    base = by_name(fast)["baseline"]
    assert (base["x_low"], base["x"], base["x_high"]) == (17_000 / 12, 17_000 / 11, 17_000 / 10)


def test_paper_has_differences_as_printed(study: Study) -> None:
    data = study.data("paper")
    rows = by_name(data)
    assert rows["identity"]["paper_delta"] == pytest.approx(74.3 - 77.2)
    assert rows["no_residual"]["paper_delta"] == pytest.approx(0.1 - 77.2)
    assert rows["baseline"]["paper_delta"] == 0 and rows["baseline"]["delta"] is None
    table = study.table().to_json()
    for row in table["rows"]:
        assert (rows[row["name"]]["delta"] or {}).get("mean") == (row["delta"] or {}).get("mean")


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        ("row", {}, "unknown kind of figure 'row' (did you mean 'rows'?); allowed: rows, curves, cost, paper, seeds"),
        ("cost", {"x": "mac"}, "--x: unknown quantity 'mac' (did you mean 'macs'?); allowed: macs, params, images_per"),
        ("rows", {"x": "macs"}, "a figure of kind 'rows' has no option 'x'"),
    ],
)
def test_what_a_figure_cannot_be(study: Study, kind: str, options: dict[str, str], sentence: str) -> None:
    with pytest.raises(RequestError) as caught:
        study.data(kind, **options)
    assert str(caught.value).startswith(sentence)


# ---------------------------------------------------------------------------------------------------------------------
# What is seen


@pytest.mark.parametrize("look", [PAGE, COLUMN, SLIDE, FULL], ids=["page", "column", "slide", "full"])
@each
def test_every_row_is_said_and_no_text_overlaps_another_or_leaves_the_page(
    study: Study, kind: str, options: dict[str, str], look: Look
) -> None:
    drawn = draw(study.data(kind, **options), look)
    seen = texts(drawn)
    boxes = [(text.get_text(), text.get_window_extent()) for text in seen]
    width, height = drawn.canvas.get_width_height()
    saved = Image.open(io.BytesIO(to_bytes(drawn, "png")))
    assert saved.width == width, "laid out in other dots an inch than it is saved with"
    for text, box in boxes:
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, f"{text!r} is cut"
    for (text, box), (other, there) in combinations(boxes, 2):
        across = min(box.x1, there.x1) - max(box.x0, there.x0)
        along = min(box.y1, there.y1) - max(box.y0, there.y0)
        # Boxes of text have a line's height, whatever letters are in it: two pixels of air may be shared.
        assert across <= 1 or along <= 2, f"{text!r} overlaps {other!r}"
    words = joined(seen)
    assert "table5 under digits" in words
    for ending in ("missing", "diverged", "1 of 3 diverged", "at chance", "1 of 3 failed", "2 of 3 missing"):
        assert ending in words, ending
    for row in study.plan.experiment.rows.values():
        if not (kind == "paper" and row.name == "baseline"):  # it is the origin
            label = row.label if look.full_labels else row.short or row.label
            assert label.replace("->", "\N{RIGHTWARDS ARROW}") in words, label
    if kind in ("rows", "cost", "paper"):
        assert "Hollow: no interval (one seed" in words


def points(axes: Any) -> dict[tuple[float, float], Any]:
    """The markers of rows by their place in data."""
    return {(x, y): line for line in axes.lines if line.get_marker() in MARKERS for x, y in [line.get_xydata()[0]]}


@pytest.mark.parametrize("look", [PAGE, COLUMN], ids=["page", "column"])
def test_every_number_and_its_whole_interval_stand_on_the_axes(study: Study, look: Look) -> None:
    data = study.data("rows")
    rows, drawn = by_name(data), draw(data, look)
    parts = [lambda row: row, lambda row: row["delta"]]
    assert len(drawn.axes) == (1 if look is COLUMN else 2)
    for axes, part in zip(drawn.axes, parts[-len(drawn.axes) :], strict=True):
        expected = {of["mean"]: of for row in rows.values() if (of := part(row)) and of["mean"] is not None}
        dots = {x: line for (x, _), line in points(axes).items()}
        bars = [tuple(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2]
        assert dots.keys() == expected.keys() and len(expected) > 10
        box = axes.get_window_extent()
        for value, of in expected.items():
            assert (dots[value].get_markerfacecolor() == "white") == (of["ci95"] is None)
            ends = tuple(max(-100.0, min(100.0, end)) for end in of["ci95"] or ())
            assert not ends or ends in bars, "an interval is cut where no value can be, and nowhere else"
            for x in (value, *ends):
                assert box.x0 - 0.5 <= axes.transData.transform((x, 0))[0] <= box.x1 + 0.5
    axes = drawn.axes[-1]
    collapsed = rows[AT_CHANCE]["delta"]["mean"]
    assert collapsed < -80 and min(axes.get_xticks()) < -80, "the row that collapsed, beyond a break"


def test_points_of_equal_cost_stand_at_one_place(study: Study) -> None:
    data = study.data("cost")
    (axes,) = draw(data).axes
    expected = {(row["x"] / 1e6, row["mean"]) for row in by_name(data).values() if row["mean"] is not None}
    assert points(axes).keys() == expected


@pytest.mark.parametrize("look", [PAGE, COLUMN, SLIDE, FULL], ids=["page", "column", "slide", "full"])
@pytest.mark.parametrize("kind", ["cost", "paper"])
def test_no_leader_crosses_another_or_a_label(study: Study, kind: str, look: Look) -> None:
    drawn = draw(study.data(kind), look)
    (axes,) = drawn.axes
    ends = [line.get_transform().transform(line.get_xydata()) for line in axes.lines if line.get_gid()]
    # Two points may lie on each other, and their leaders begin there.
    leaders = [Line([start + 0.02 * (end - start), end]) for start, end in ends]
    assert len(leaders) > 3
    assert not any(one.intersects_path(other, filled=False) for one, other in combinations(leaders, 2))
    labels = [text.get_window_extent().padded(-1) for text in drawn.texts]
    assert not any(one.intersects_bbox(label, filled=False) for one in leaders for label in labels)


def test_rows_are_told_apart_by_colour_and_marker(study: Study) -> None:
    styles = row_styles(study.data("rows"))
    groups = {row.name: row.group for row in study.plan.experiment.rows.values()}
    for first, second in combinations(groups, 2):
        same = groups[first] == groups[second]
        assert (styles[first]["marker"] == styles[second]["marker"]) == same
        assert (styles[first]["color"] == styles[second]["color"]) == same


def test_a_dollar_in_a_label_is_no_formula(tmp_path: Path) -> None:
    (tmp_path / "dollars.yaml").write_text(
        "title: T\nbaseline: a\nrows:\n  a: {label: 'cost $x_1 and $y_2^3', set: {}}\n"
        "  b: {label: 'C:\\a_b % & #', set: {model.pool_size: 5}}\n"
    )
    store, chosen, folder = Store(tmp_path / "results"), plan(str(tmp_path / "dollars.yaml")), DataFolder.choose(None)
    for spec in chosen.specs.values():
        fake_record(store, spec, fingerprint=folder.fingerprint("digits"))
    for kind in KINDS:
        drawn = figure(kind, chosen, store, folder)
        assert to_bytes(drawn, "svg")
        seen = texts(drawn)
        assert not any(text.get_parse_math() for text in seen)
        if kind != "paper":
            assert "cost $x_1 and $y_2^3" in joined(seen)


@pytest.mark.parametrize("kind", KINDS)
def test_an_experiment_without_records_says_so(tmp_path: Path, kind: str) -> None:
    chosen = plan("pooling_size")
    drawn = figure(kind, chosen, Store(tmp_path), DataFolder.choose(None))
    assert "No run has a result yet." in said(drawn)
    assert said(drawn).count("missing") == 4


def test_a_scale_holds_all_and_breaks_before_what_is_far() -> None:
    near = [97.0, 97.5, 98.0, 98.2, 96.9, 97.1]
    scale = Scale.of(TOP1, [*near, 10.0])
    assert scale.low < 96.9 and scale.high > 98.2 and len(scale.breaks) == 1
    places = [scale.place(value) for value in (10.0, 96.9, 97.0, 97.1, 98.2)]
    assert places == sorted(places) and 0 < places[0] < 0.2 < places[1] and places[-1] < 1
    assert places[3] - places[2] == pytest.approx(places[2] - places[1]), "linear within the main stretch"
    best = Scale.of(TOP1, [66.4, 66.5, 66.6, 67.2, 69.1, 70.8, 72.3])
    assert not best.breaks, "the best row of a table is not far"
    three = Scale.of(TOP1, [0.1, 5.7, 46.1, 74.3, 75.8, 76.4, 76.5, 77.2, 77.5, 77.9, 78.1, 81.0])
    assert three.low > 70 and three.ends[0] < 0.1, "the paper's own table"
    assert not Scale.of(TOP1, [10.0, 98.0]).breaks, "two values say nothing of what is usual"
    assert Scale.of(TOP1, [3.0, 4.0], zero=True).ends[0] < 0


def test_a_wide_interval_goes_through_the_break() -> None:
    near = [97.0, 97.5, 98.0, 98.2]
    scale = Scale.of(TOP1, near, [[96.5, 97.5], [97.0, 98.0], [97.5, 98.5], [60.0, 100.0]])
    assert scale.low > 90, "one wide interval does not squeeze the others"
    assert scale.ends[0] < 60 and scale.ends[1] > 100 and 0 < scale.place(60.0) < 0.1
    steps = [scale.place(60 + i * (scale.low - 60) / 10) for i in range(11)]
    assert all(b > a for a, b in pairwise(steps)), "nothing is left out in between"
    narrow = [[value - 0.1, value + 0.1] for value in near]
    far = Scale.of(TOP1, [*near, 40.0], [*narrow, [20.0, 60.0]])
    assert far.ends[0] < 20 and far.place(60.0) < 0.2, "the whole interval of a row that is far"


_VALUES = st.lists(
    st.tuples(st.one_of(st.floats(-90, 90), st.floats(-3, 3)), st.floats(0, 40)), min_size=1, max_size=12
)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(_VALUES, _VALUES)
@example(
    [(-2.9, 0), (-1.4, 0), (0.9, 0), (0.0, 0), (-0.8, 0), (-31.1, 0), (-77.1, 0), (-71.5, 0), (1.1, 0), (3.8, 0)],
    [(-6.1, 0.7), (-2.7, 1.6), (-1.8, 2.9), (-1.1, 0.7), (-2, 1.2), (-20.2, 2.5), (-23.5, 4), (-22.9, 3), (0.9, 0.3)],
)
def test_every_scale_gives_each_value_one_place(
    ours: list[tuple[float, float]], theirs: list[tuple[float, float]]
) -> None:
    """In order, within the axis, and as matplotlib draws it: also where one axis has a break and the other has none."""
    scales = [
        Scale.of(TOP1, [value for value, _ in side], [(value - half, value + half) for value, half in side], zero)
        for side, zero in ((ours, True), (theirs, True), (ours, False))
    ]
    ends = [end for value, half in ours for end in (value - half, value + half)]
    for scale in (*scales, Scale.around(*scales[:2]), Scale.around(*scales[1::-1])):
        values, places = zip(*scale.knots, strict=True)
        assert all(a < b for a, b in pairwise(values)) and all(a < b for a, b in pairwise(places)), scale
        assert (places[0], places[-1]) == (0, 1)
        if scale is not scales[1]:
            assert scale.ends[0] <= min(ends) and max(ends) <= scale.ends[1]


@pytest.mark.parametrize(
    ("text", "value"), [("3.3in", 3.3), ("84 mm", 84 / 25.4), ("8.4cm", 8.4 / 2.54), ("240pt", 240 / 72.27)]
)
def test_lengths(text: str, value: float) -> None:
    assert inches(text, "--width") == pytest.approx(value)


def test_labels_are_moved_apart_as_little_as_need_be() -> None:
    assert spread_apart([9.0, 5.0, 1.0], [1.0, 1.0, 1.0], 0.0, 10.0) == [9.0, 5.0, 1.0]
    assert spread_apart([5.0, 5.0], [1.0, 1.0], 0.0, 10.0) == [5.5, 4.5]
    assert spread_apart([10.0, 9.9, 2.0], [1.0, 1.0, 2.0], 0.0, 10.0) == [9.5, 8.5, 2.0]
    assert spread_apart([0.2, 0.1], [1.0, 1.0], 1.5, 10.0) == [3.0, 2.0]


# ---------------------------------------------------------------------------------------------------------------------
# The same bytes


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_numbers_give_the_same_bytes(small: Study, kind: str, format: str) -> None:
    """Twice, and whatever the user has told matplotlib."""
    data = small.data(kind)
    first = to_bytes(draw(data), format)
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 9, "svg.hashsalt": "x", "axes.grid": True}):
        assert to_bytes(draw(small.data(kind)), format) == first
    for date in (b"CreationDate", b"ModDate", b"dc:date", b"tIME"):
        assert date not in first
    assert first.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[format])


def test_another_process_draws_the_same_bytes(small: Study, tmp_path: Path) -> None:
    files = []
    for seed in ("1", "2"):
        files.append(tmp_path / f"{seed}.svg")
        done = subprocess.run(
            command("plot", *small.arguments, "--kind", "cost", "--out", files[-1]),
            env={**os.environ, "PYTHONHASHSEED": seed, "MPLBACKEND": "svg" if seed == "1" else "agg"},
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
    assert files[0].read_bytes() == files[1].read_bytes() == to_bytes(draw(small.data("cost")), "svg")


# ---------------------------------------------------------------------------------------------------------------------
# The command


def test_plot_writes_a_figure_of_each_kind_beside_the_records(ablate: Callable[..., Result], small: Study) -> None:
    result = ablate("plot", *small.arguments)
    assert result.code == 0, result.err
    files = [Path(line) for line in result.out.splitlines()]
    assert files == [small.store.path / "figures" / f"pooling_size-digits-{kind}.png" for kind in KINDS]
    for kind, file in zip(KINDS, files, strict=True):
        assert file.read_bytes() == to_bytes(draw(small.data(kind)), "png")
        with Image.open(file) as picture:
            assert picture.width == 6.9 * 200


def test_plot_names_what_is_not_the_default(ablate: Callable[..., Result], small: Study, tmp_path: Path) -> None:
    (line,) = ablate("plot", *small.arguments, "--kind", "cost", "--x", "params", "--format", "pdf").out.splitlines()
    assert Path(line).name == "pooling_size-digits-cost-params.pdf"
    other = plan("pooling_size", overrides=["train.epochs=3"])
    fake_record(Store(tmp_path / "results"), other.spec("pool3", 0))
    (line,) = ablate("plot", "pooling_size", "--kind", "rows", "train.epochs=3").out.splitlines()
    assert Path(line).name != "pooling_size-digits-rows.png", "other runs under the name of the recipe's own"


def test_plot_json_is_the_numbers_and_writes_nothing(
    ablate: Callable[..., Result], small: Study, tmp_path: Path
) -> None:
    before = sorted(small.store.path.rglob("*"))
    tree = ablate("plot", *small.arguments, "--json").json
    assert (tree["experiment"], tree["recipe"], list(tree["figures"])) == ("pooling_size", "digits", list(KINDS))
    data = small.data("paper")
    assert tree["figures"]["paper"] == {**data.to_json(), "caption": caption(data)}
    assert sorted(small.store.path.rglob("*")) == before
    out = tmp_path / "one.svg"
    result = ablate("plot", *small.arguments, "--kind", "rows", "--json", "--out", out)
    assert list(result.json["figures"]) == ["rows"] and out.read_bytes() == to_bytes(draw(small.data("rows")), "svg")


def test_overrides_are_said_in_the_figure(small: Study) -> None:
    chosen = plan("pooling_size", overrides=["train.epochs=3"])
    data = figure_data("rows", build_table(chosen, small.store, small.folder))
    assert data.to_json()["overrides"] == ["train.epochs=3"]
    assert "pooling_size under digits train.epochs=3." in said(draw(data, PAGE))
    assert "train.epochs" not in said(draw(data)), "the caption stands in a figure where it is asked for alone"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--kind", "lines"], "--kind: unknown kind of figure 'lines'; allowed: rows, curves, cost, paper, seeds"),
        (["--kind", "rows", "--x", "params"], "--x is not read by a figure of kind rows; it is for cost"),
        (["--kind", "cost", "--x", "speed"], "--x: unknown quantity 'speed'; allowed: macs, params, images_per_second"),
        (["--out", "a.png"], "--out a.png is one file; say which figure with --kind: rows, curves, cost, paper, seeds"),
        (["--kind", "rows", "--out", "a.jpg"], "--out a.jpg: the ending says the format; allowed: .png, .svg, .pdf"),
        (
            ["--kind", "rows", "--out", "a.png", "--format", "pdf"],
            "--out a.png: the ending says the format; allowed: .pdf",
        ),
        (["--width", "3.3"], "--width: '3.3' is not a length; allowed: a number with in, cm, mm or pt, as 3.3in"),
        (["--width", "1in"], "the width is 1 in; allowed: 2 to 20 in"),
        (["--font-size", "99"], "the font size is 99 pt; allowed: 4 to 40 pt"),
        (["--labels", "long"], "--labels: unknown kind of label 'long'; allowed: short, full"),
        (["--format", "jpg"], "--format: unknown format 'jpg' (did you mean 'png'?); allowed: png, svg, pdf"),
    ],
)
def test_plot_says_what_is_wrong(ablate: Callable[..., Result], words: list[str], sentence: str) -> None:
    assert ablate("plot", "pooling_size", *words).sentence == sentence


def test_plot_into_a_folder_that_is_not_there(ablate: Callable[..., Result], small: Study) -> None:
    sentence = ablate("plot", *small.arguments, "--kind", "rows", "--out", "no/a.png").sentence
    assert sentence == "--out no/a.png: cannot be written: No such file or directory"


def test_plot_loads_no_torch_and_no_pyplot(small: Study, tmp_path: Path) -> None:
    program = (
        "import sys; from metaformer_ablate.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "assert not {'torch', 'pandas', 'matplotlib.pyplot'} & set(sys.modules), sorted(sys.modules)\n"
        "assert ('matplotlib' in sys.modules) == ('--json' not in sys.argv)\n"
    )
    for extra in ([], ["--json"]):
        words = ["plot", *small.arguments, "--kind", "rows", "--recipe", "digits", *extra]
        done = subprocess.run(
            [sys.executable, "-c", program, *words], cwd=tmp_path, capture_output=True, text=True, env={**os.environ}
        )
        assert done.returncode == 0, done.stderr
