"""Several recipes or lengths side by side: what is compared, what is refused, and the slope chart."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import scipy.stats
from committed_study import FIRST, RESULTS
from conftest import Result
from PIL import Image
from specs import fake_record

from metaformer_ablate.analysis.figures.agreement import agreement_caption, agreement_data
from metaformer_ablate.analysis.figures.slope import slope_data
from metaformer_ablate.analysis.tables.columns import LEFT, RIGHT
from metaformer_ablate.analysis.tables.comparison import build_comparison, split_recipe
from metaformer_ablate.analysis.tables.comparison_sheet import render_comparison
from metaformer_ablate.analysis.tables.text import draw
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.plan import plan

Ablate = Callable[..., Result]

EXPERIMENT = """
title: Made up
baseline: pool3
rows:
  pool3: {label: Pooling 3, paper: {top1: 77.2}}
  pool5: {label: Pooling 5, set: {model.pool_size: 5}, paper: {top1: 77.1}}
  none: {label: Identity, set: {model.token_mixer: identity}, paper: {top1: 74.3}}
"""

TOPS = {
    "digits": {"pool3": [90.0, 90.4], "pool5": [92.0, 92.5], "none": [80.0, 80.4]},
    "digits:train.epochs=30": {"pool3": [91.0, 91.4], "pool5": [95.0, 95.5], "none": [97.0, 97.4]},
    "digits:train.epochs=30,train.lr=4e-3": {"pool3": [95.0, 95.4], "pool5": [94.0, 94.5], "none": [93.0, 93.1]},
}
SIDES = [*TOPS, "paper"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.yaml").write_text(EXPERIMENT)
    store = Store(tmp_path / "results")
    for recipe, rows in TOPS.items():
        name, words = split_recipe(recipe)
        chosen = plan(str(tmp_path / "mine.yaml"), name, words)
        for row, values in rows.items():
            for seed, value in enumerate(values):
                fake_record(store, chosen.spec(row, seed), value)
    return tmp_path


def test_a_recipe_has_overrides_of_its_own() -> None:
    assert split_recipe("cifar10") == ("cifar10", [])
    assert split_recipe("a:train.epochs=30,train.lr=4e-3") == ("a", ["train.epochs=30", "train.lr=4e-3"])
    assert split_recipe("a:model.depths=[1,2,6,2],seed=1") == ("a", ["model.depths=[1,2,6,2]", "seed=1"])


def test_four_sides(folder: Path, ablate: Ablate) -> None:
    done = ablate("compare", *SIDES, "mine.yaml", "--json", cwd=folder)
    assert done.code == 0, done.err
    tree = done.json
    assert tree["recipes"] == SIDES and tree["agreement"] is None
    ranks = {row["name"]: [result["rank"] for result in row["results"]] for row in tree["rows"]}
    assert ranks == {"pool3": [2, 3, 1, 1], "pool5": [1, 2, 2, 2], "none": [3, 1, 3, 3]}
    assert [row["mean_rank"] for row in tree["rows"]] == [1.75, 1.75, 2.5]
    between = [found["between"] for found in tree["agreements"]]
    assert len(between) == 6 and between[0] == SIDES[:2]
    for found in tree["agreements"]:
        sides = [SIDES.index(name) for name in found["between"]]
        one, other = ([-ranks[row][side] for row in ranks] for side in sides)
        assert found["kendall"]["value"] == pytest.approx(scipy.stats.kendalltau(one, other).statistic)
    # pool3 and pool5 are tied over all, so that no order of theirs is a flip.
    assert [each["pairs"] for each in tree["left_out"]] == [[], [], [], []]
    text = ablate("compare", *SIDES, "mine.yaml", cwd=folder).out
    assert "without digits: none." in text and "Agreement of mine under digits, digits:train.epochs=30, " in text


def test_clear_pairs_of_each_length_stand_beside_its_correlation(
    folder: Path, ablate: Ablate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the paper's pairs identity lies a point or more below both poolings, and these are a tenth apart."""
    pairs = ablate("compare", *SIDES, "mine.yaml", "--json", cwd=folder).json["agreements"]
    clear = {each["between"][0]: each["clear_pairs"] for each in pairs if each["between"][1] == "paper"}
    assert [clear[recipe]["in_order"] for recipe in TOPS] == [2, 0, 2]
    assert {each["pairs"] for each in clear.values()} == {2}
    assert all(each["clear_pairs"] is None for each in pairs if "paper" not in each["between"])
    by_seed = next(each["by_seed"] for each in pairs if each["between"] == ["digits", "paper"])
    # Both seeds have one of three pairs reversed: all the same, so that there is no interval.
    assert by_seed["kendall"] == {"value": pytest.approx(1 / 3), "ci95": None, "values": [pytest.approx(1 / 3)] * 2}
    found = build_comparison(str(folder / "mine.yaml"), SIDES, (), Store(folder / "results"), DataFolder.choose(None))
    monkeypatch.setattr("metaformer_ablate.analysis.tables.text.text_width", lambda: 80)
    narrow = render_comparison(found, "text").partition("Agreement of")[2]
    heading = narrow.partition(" ──")[0]
    assert max(map(len, narrow.splitlines())) <= 80
    assert {"Kendall", "tau-b", "Clear", "pairs"} <= set(heading.split()) and "Spearman" not in heading
    assert "Not shown at 80 columns: Spearman rho, " in " ".join(narrow.split())
    latex = ablate("table", "mine.yaml", "--format", "latex", "--columns", "row,top1,paper", cwd=folder).out
    order = "is 0.33, and 2 of 2 pairs 1 point or more apart there are in its order."
    assert f"\\item Kendall's tau-b with the paper's order of rows {order}\n" in latex


def test_many_recipes_fit_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean and rank in one column of each recipe, and no word is broken."""
    recipes = (FIRST.recipe, "cifar10_mixing", "cifar10_mixing:train.epochs=4,train.lr=4e-3", "paper")
    found = build_comparison("table5", recipes, (), Store(RESULTS), DataFolder.choose(None))
    monkeypatch.setattr("metaformer_ablate.analysis.tables.text.text_width", lambda: 80)
    text = render_comparison(found, "text")
    assert max(map(len, text.splitlines())) <= 80
    words = set(text.partition(" ──")[0].split())
    assert words >= {"Row", "cifar10_small", "cifar10_mixing", "cifar10_mixing:", "train.epochs=4,", "train.lr=4e-3"}
    assert "MLN -> BN" in text and "whole labels" in text, "the short labels"
    assert "Mean top-1 (%) and, in brackets, its rank among the rows that all have, 1 for" in " ".join(text.split())
    assert "| Rank |" in render_comparison(found, "markdown"), "where there is room a column each"


def test_where_there_is_no_room_headings_fold_first_then_labels_and_nothing_is_broken() -> None:
    """Whatever the numbers are: at every width down to that of the longest words each word and number stays whole."""
    columns = [LEFT, RIGHT, RIGHT]
    headings = ["Row", "cifar10_mixing: train.epochs=4, train.lr=4e-3", "paper"]
    lines = [(["Pooling -> Identity", "70.65 (12.5)", "77.2 (10)"], False)]
    words = {"Row", "cifar10_mixing:", "train.epochs=4,", "train.lr=4e-3", "paper", "Pooling", "->", "Identity"}
    least = len("Identity") + len("cifar10_mixing:") + len("77.2 (10)") + 3 * 3 + 1
    tightest = least - 2 * 3
    for width in range(tightest, 100):
        drawn = draw("", headings, columns, lines, (), width)
        assert set(drawn.split()) >= words, width
        assert "70.65 (12.5)" in drawn and "77.2 (10)" in drawn, width
        assert max(map(len, drawn.splitlines())) <= width
        if width >= least:
            folds = "Pooling -> Identity" not in drawn
            assert folds == (width < least + len("Pooling -> ")), "labels fold only where headings cannot any more"
        assert ("70.65 (12.5)   77.2" in drawn) == (width >= least), "the gaps go last"
    drawn = draw("", ["Row", "top one", "a longer heading"], columns, [(["x", "1", "2"], False)], (), 34)
    assert "top one" in drawn and "a longer heading" not in drawn, "the widest first"


def test_means_stand_below_each_other_beside_their_ranks(folder: Path) -> None:
    found = build_comparison(str(folder / "mine.yaml"), SIDES, (), Store(folder / "results"), DataFolder.choose(None))
    lines = render_comparison(found, "text").splitlines()
    cells = [re.findall(r"\S+ \(\S+\)", line) for line in lines if re.search(r"Pooling [35] |Identity ", line)]
    assert cells == [
        ["90.20 (2)", "91.20 (3)", "95.20 (1)", "77.2 (1)"],
        ["92.25 (1)", "95.25 (2)", "94.25 (2)", "77.1 (2)"],
        ["80.20 (3)", "97.20 (1)", "93.05 (3)", "74.3 (3)"],
    ]


def test_how_the_agreement_changes_with_the_recipe(folder: Path, ablate: Ablate) -> None:
    changes = ablate("compare", *SIDES, "mine.yaml", "--json", cwd=folder).json["changes"]
    assert [[each["from"], each["to"]] for each in changes] == [SIDES[:2], SIDES[0:3:2], SIDES[1:3]]
    # Of digits both seeds have tau-b 1/3 and both clear pairs; with 30 epochs -1 and none of them.
    assert changes[0]["kendall"] == {"mean": pytest.approx(-4 / 3), "ci95": None, "p": None}
    assert changes[0]["clear_pairs"]["mean"] == -1 and changes[0]["seeds"] == [0, 1]
    text = " ".join(ablate("compare", *SIDES, "mine.yaml", cwd=folder).out.split())
    assert f"From {SIDES[0]} to {SIDES[1]}, paired over 2 seeds: tau-b by seed -1.33, share of clear pairs -100" in text
    assert ablate("compare", *SIDES[:3], "mine.yaml", "--json", cwd=folder).json["changes"] == []


def test_what_one_recipe_alone_decides_is_named(folder: Path, ablate: Ablate) -> None:
    sides = SIDES[:3]
    done = ablate("compare", *sides, "mine.yaml", "--json", cwd=folder)
    # Mean ranks 2, 5/3, 7/3; without the first pool3 2, pool5 2, identity 2; without the third 2.5, 1.5, 2.
    assert done.json["left_out"] == [
        {"column": sides[0], "pairs": [], "against_baseline": []},
        {"column": sides[1], "pairs": [], "against_baseline": []},
        {"column": sides[2], "pairs": [["pool3", "none"]], "against_baseline": ["none"]},
    ]
    text = " ".join(ablate("compare", *sides, "mine.yaml", cwd=folder).out.split())
    assert f"without {sides[2]}: 1, pool3 over none; on the other side of the baseline then: none." in text


def test_words_at_the_end_apply_to_all(folder: Path, ablate: Ablate) -> None:
    done = ablate("compare", "digits:train.lr=4e-3", "digits", "mine.yaml", "train.epochs=30", "--json", cwd=folder)
    means = {row["name"]: [result["mean"] for result in row["results"]] for row in done.json["rows"]}
    assert means["none"] == [pytest.approx(93.05), pytest.approx(97.2)]


def test_a_slope_chart_of_the_ranks(folder: Path, ablate: Ablate) -> None:
    done = ablate("compare", *SIDES, "mine.yaml", "--plot", "slope.png", "--format", "csv", cwd=folder)
    assert done.code == 0 and done.out.startswith("experiment,name,")
    assert Image.open(folder / "slope.png").size[0] == 1380
    ablate("compare", *SIDES, "mine.yaml", "--plot", "again.png", cwd=folder)
    assert (folder / "slope.png").read_bytes() == (folder / "again.png").read_bytes()
    experiment = str(folder / "mine.yaml")
    data = slope_data(build_comparison(experiment, SIDES, (), Store(folder / "results"), DataFolder.choose(None)))
    assert {row.name: row.ranks for row in data.rows} == {
        "pool3": (2, 3, 1, 1),
        "pool5": (1, 2, 2, 2),
        "none": (3, 1, 3, 3),
    }
    assert data.to_json()["recipes"] == SIDES and data.to_json()["left_out"] == []


def test_rows_alone_are_compared_as_if_there_were_no_others(ablate: Ablate) -> None:
    """The rows of confirmation, on the committed study: the correlation is scipy's of just these, the clear pairs and
    the pairs that p is corrected over are among them."""
    names = ["pppf", "pool5", "layer_norm", "relu", "no_channel_mlp"]
    words = ("compare", FIRST.recipe, "paper", "table5", "--results", str(RESULTS), "--json")
    everything, some = ablate(*words).json, ablate(*words, "--rows", " ,".join(names)).json
    rows = {row["name"]: row for row in everything["rows"]}
    chosen = [name for name in rows if name in names]
    assert [row["name"] for row in some["rows"]] == chosen == some["agreement"]["rows"]
    assert some["not_chosen"] == [name for name in rows if name not in names] and "not_chosen" not in everything
    ours, printed = ([rows[name]["results"][side]["mean"] for name in chosen] for side in (0, 1))
    assert some["agreement"]["kendall"]["value"] == pytest.approx(scipy.stats.kendalltau(ours, printed).statistic)
    # 77.2, 76.5, 76.4, 5.7 and 77.5: the four pairs of no_channel_mlp, and pppf above layer_norm and above relu.
    assert some["agreement"]["clear_pairs"]["pairs"] == 6
    assert [row["results"][1]["rank"] for row in some["rows"]] == [2, 3, 4, 5, 1]
    assert some["agreement"]["comparisons"][0] == 10
    text = " ".join(ablate(*words[:-1], "--rows", ",".join(names)).out.split())
    assert "5 of the 18 rows of table5, as asked for by --rows; without baseline, identity, " in text


def test_what_is_warned_of_rows_that_are_left_out_is_left_out(folder: Path) -> None:
    store, chosen = Store(folder / "results"), plan(str(folder / "mine.yaml"), "digits", [])
    for seed, value in enumerate(TOPS["digits"]["none"]):
        fake_record(store, chosen.spec("none", seed), value, device="cuda")

    def warnings(*rows: str) -> list[str]:
        asked = (str(folder / "mine.yaml"), ("digits", "paper"), (), store, DataFolder.choose(None))
        found = build_comparison(*asked, rows=rows or None).warnings
        return [warning for warning in found if "device" in warning]

    assert len(warnings()) == 1 and "(none)" in warnings()[0]
    assert warnings("pool3", "none") == warnings()
    assert warnings("pool3", "pool5") == []


def test_a_figure_of_the_agreement_with_the_paper_by_recipe(folder: Path, ablate: Ablate) -> None:
    done = ablate("compare", *SIDES, "mine.yaml", "--plot", "order.png", "--kind", "agreement", cwd=folder)
    assert done.code == 0 and Image.open(folder / "order.png").size[0] == 1380, done.err
    store = Store(folder / "results")
    found = build_comparison(str(folder / "mine.yaml"), SIDES, (), store, DataFolder.choose(None))
    data = agreement_data(found)
    assert {row.name: (row.rows, row.n, row.kendall.value, row.clear_pairs.value) for row in data.rows} == {
        SIDES[0]: (3, 2, pytest.approx(1 / 3), 100),
        SIDES[1]: (3, 2, pytest.approx(-1), 0),
        SIDES[2]: (3, 2, pytest.approx(1), 100),
    }
    assert data.rows[0].kendall_by_seed.value == pytest.approx(1 / 3) and data.left_out == ()
    some = build_comparison(
        str(folder / "mine.yaml"), SIDES, (), store, DataFolder.choose(None), rows=("pool3", "none")
    )
    five = ["pool5", "layer_norm", "relu", "no_channel_mlp", "pppf"]
    studied = build_comparison(
        "table5", (FIRST.recipe, "paper"), (), Store(RESULTS), DataFolder.choose(None), rows=five
    )
    assert agreement_caption(agreement_data(studied))[0] == "Over 5 of 18 rows, as asked for."
    with pytest.raises(RequestError, match="no recipe has three rows in common with 'paper'"):
        agreement_data(some)


def test_a_recipe_has_the_numbers_that_the_paper_prints_under_it(folder: Path, ablate: Ablate) -> None:
    """The paper's table 3 has other numbers for each detector; with one of them, a third recipe shares its numbers."""
    done = ablate("compare", "coco_retinanet", "coco_mask_rcnn", "paper", "coco_backbones", cwd=folder)
    assert done.sentence == (
        "compare: the paper prints 31.8 for resnet18 under coco_retinanet and 34 under coco_mask_rcnn; give 'paper' "
        "with one of them"
    )
    for recipes in (("coco_mask_rcnn", "scenes_detection"), ("scenes_detection", "coco_mask_rcnn")):
        found = ablate("compare", *recipes, "paper", "coco_backbones", "--json", cwd=folder)
        assert found.code == 0, found.err
        printed = {row["name"]: row["results"][2]["mean"] for row in found.json["rows"]}
        assert printed["resnet18"] == 34.0 and printed["poolformer_s12"] == 37.3


WRONG = {
    "digits paper mine.yaml --rows pool3,pool6": "--rows: unknown row 'pool6' (did you mean 'pool3'?); "
    "allowed: pool3, pool5, none",
    "digits paper mine.yaml --kind slope": "--kind: only with --plot FILE",
    "digits paper mine.yaml --plot x.png --kind slopes": "--kind: unknown kind of figure 'slopes' "
    "(did you mean 'slope'?); allowed: slope, agreement",
    "digits digits:train.epochs=30 mine.yaml --plot x.png --kind agreement": "--kind agreement: give 'paper' as one of "
    "the recipes",
    "digits mine.yaml": "give two recipes or more, then one experiment, then overrides; found digits mine.yaml",
    "digits digits mine.yaml": "compare: 'digits' twice; give two recipes, or one and 'paper'",
    "digits paper:train.lr=1 mine.yaml": "compare: 'paper:train.lr=1': the paper's printed numbers take no overrides",
    "digits digits:train.epochs=12 mine.yaml": "compare: 'digits' and 'digits:train.epochs=12' are the same runs; "
    "allowed: recipes that differ",
    "digits mine.yaml digits:train.epochs=3": "give two recipes or more, then one experiment, then overrides; "
    "found digits mine.yaml digits:train.epochs=3",
    "digits paper mine.yaml --plot x.jpg": "--plot x.jpg: the ending says the format; allowed: .png, .svg, .pdf",
    "digits:train.epochs=3 paper mine.yaml train.epochs=2": "command line: train.epochs is set twice",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_is_refused(words: str, folder: Path, ablate: Ablate) -> None:
    assert ablate("compare", *words.split(), cwd=folder).sentence == WRONG[words]


def test_without_a_common_row_the_slope_chart_says_so(folder: Path, ablate: Ablate) -> None:
    done = ablate("compare", "digits", "fashion_mnist", "mine.yaml", "--plot", "x.png", cwd=folder)
    assert done.code == 0 and (folder / "x.png").exists(), done.err
    sides = ("digits", "fashion_mnist")
    found = build_comparison(str(folder / "mine.yaml"), sides, (), Store(folder / "results"), DataFolder.choose(None))
    assert slope_data(found).left_out == ("pool3", "pool5", "none")
