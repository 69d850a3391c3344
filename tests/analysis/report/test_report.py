"""The report as a file: whole, closed to the network, escaped, and with the numbers of `ablate table`."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import tarfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import jinja2
import numpy as np
import pytest
from conftest import REPOSITORY, Result, call, forget_files
from PIL import Image
from report_page import IMAGE, MARKUP, SCRIPT, Node, fill, read
from specs import fake_record, seal, spec_of

from metaformer_ablate.analysis.escapes import escape_html
from metaformer_ablate.analysis.report.cells import anchor, number, settings_text, words
from metaformer_ablate.analysis.report.collect import collect
from metaformer_ablate.analysis.report.figures import inline_svg
from metaformer_ablate.analysis.report.page import _templates, write
from metaformer_ablate.analysis.report.runs import curve
from metaformer_ablate.analysis.report.spec_runs import _spec
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.records.store import Store
from metaformer_ablate.records.writing import _yaml
from metaformer_ablate.settings.layers import digest
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.tasks.registry import get_task


@pytest.fixture(scope="module")
def folder(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    fill(folder)
    return folder


@pytest.fixture(scope="module")
def made(folder: Path) -> Result:
    return call("report", cwd=folder)


@pytest.fixture(scope="module")
def text(made: Result, folder: Path) -> str:
    assert made.code == 0, made.err
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Node:
    return read(text)


def table_of(page: Node, experiment: str, recipe: str) -> list[list[str]]:
    (results,) = (t for t in page.find(anchor(experiment, recipe)).all("table") if "results" in t.attributes["class"])
    return results.rows()


# The file


def test_it_says_what_it_wrote_and_what_is_wrong(made: Result) -> None:
    assert made.out.startswith("report.html: 14 runs in 5 tables, ")
    assert "history.csv was changed" in made.err
    assert "broken.yaml" in made.err and "torn.yaml" in made.err
    assert "Traceback" not in made.err


def test_ids_are_unique_and_every_link_leads_somewhere(page: Node) -> None:
    ids = [node.attributes["id"] for node in page.all() if "id" in node.attributes]
    assert len(set(ids)) == len(ids)
    targets = [node.attributes["href"] for node in page.all("a")]
    assert len(targets) > 30
    assert {target[1:] for target in targets} <= set(ids)
    assert all(target[0] == "#" for target in targets)


def test_nothing_is_loaded_and_the_policy_forbids_it(page: Node, text: str) -> None:
    for node in page.all():
        assert not {"src", "srcset", "data", "poster", "action", "background", "ping"} & node.attributes.keys(), node
        assert node.tag not in ("link", "img", "iframe", "object", "embed", "base", "form"), node
        assert not [name for name in node.attributes if name.startswith("on")], node
        for value in node.attributes.values():
            assert not re.search(r"https?:|//|javascript:|url\((?!#)", value or ""), node
    (style,) = page.all("style")
    assert not re.search(r"@import|url\(|https?:", style.text)
    (policy,) = (n.attributes["content"] for n in page.all("meta") if "http-equiv" in n.attributes)
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy and "unsafe-eval" not in policy
    (script,) = (node for node in page.all("script") if "type" not in node.attributes)
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy


def test_no_string_of_a_spec_or_record_becomes_markup(page: Node, text: str) -> None:
    assert len(list(page.all("script"))) == 2
    assert not list(page.all("img", "b", "u", "i", "s"))
    words = page.find(anchor("hostile", "digits")).text
    for hostile in (IMAGE, MARKUP, "<i>group", "<s>a note</s>", "<u>"):
        assert hostile.replace("\u202e", "\ufffd") in words, hostile
    assert any(SCRIPT in heading.text for heading in page.all("h2"))
    assert any(SCRIPT in status.text for status in page.find("runs").all("td"))
    assert "<b>digits" in page.find("machines").text
    json.loads(page.find("curves").text)


def test_the_same_records_are_the_same_bytes_wherever_they_lie(folder: Path, text: str, tmp_path: Path) -> None:
    shutil.copytree(folder / "results", tmp_path / "elsewhere" / "records")
    shutil.copytree(folder / "experiments", tmp_path / "experiments")
    other = call("report", "--results", tmp_path / "elsewhere" / "records", "--out", "other.html", cwd=tmp_path)
    assert other.code == 0
    assert (tmp_path / "other.html").read_text(encoding="utf-8") == text
    assert str(folder) not in text and str(tmp_path) not in text


def test_what_this_machine_remembers_is_not_in_it(folder: Path, text: str, tmp_path: Path) -> None:
    """`ablate show` remembers counts; a row without a record has none in the report."""
    rows = table_of(read(text), "pooling_size", "digits")
    assert [row[2] for row in rows] == ["0.119", "0.119", "0.119", "-"]
    assert call("show", "pooling_size", cwd=tmp_path).code == 0
    assert call("report", "--out", tmp_path / "again.html", cwd=folder).code == 0
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == text


# The numbers


@pytest.mark.parametrize(
    "experiment, recipe", [("pooling_size", "digits"), ("pooling_size", "fashion_mnist"), ("hostile", "digits")]
)
def test_tables_say_what_the_table_command_says(experiment: str, recipe: str, folder: Path, page: Node) -> None:
    table = call("table", experiment, "--recipe", recipe, "--json", cwd=folder).json
    printed = call("table", experiment, "--recipe", recipe, "--format", "markdown", cwd=folder).out
    rows = table_of(page, experiment, recipe)
    assert len(rows) == len(table["rows"])
    for cells, row in zip(rows, table["rows"], strict=True):
        assert cells[0] == row["group"]
        assert cells[1].startswith(row["label"].replace("\u202e", "\ufffd"))
        assert cells[5] == str(row["n"])
        if row["mean"] is not None:
            assert cells[4].startswith(f"{row['mean']:.2f}")
            assert cells[4] in printed
        else:
            assert cells[4] == row["status"]
        if row["delta"]:
            assert cells[6].startswith(f"{row['delta']['mean']:+.2f}") and cells[6] in printed
        else:
            assert cells[6] == ""


def test_a_comparison_with_two_p_says_why(tmp_path: Path) -> None:
    """Pool size 5 against 3 is one of two comparisons of table5, and the only one of pooling_size."""
    store, specs = Store(tmp_path), plan("table5").specs
    for name, values in {"baseline": (97.0, 96.5), "pool5": (97.5, 96.75), "relu": (95.0, 95.5)}.items():
        for seed, top1 in enumerate(values):
            fake_record(store, specs[name].with_seed(seed), top1)
    page = read(write(collect(store, DataFolder.choose(None), ("digits",))))
    shown = {}
    for experiment, name in (("table5", "Pooling size 3 -> 5"), ("pooling_size", "Pooling size 3 -> 5")):
        article = page.find(f"{experiment}.digits")
        row = next(line for line in article.all("tr") if name in line.text)
        places = [str(a.attributes["href"])[1:] for a in list(row.all("td"))[-2].all("a")]
        shown[experiment] = [page.find(place).text for place in places]
        assert len(places) == 1
    (whole,), (alone,) = shown["table5"], shown["pooling_size"]
    assert "its p is corrected by Holm over the 2 comparisons of this table" in page.find("table5.digits").text
    assert whole.startswith("p: the same runs are compared in pooling_size, where p is another one")
    assert "its p is not corrected, for it is the only comparison" in page.find("pooling_size.digits").text
    assert alone.startswith("p: the same runs are compared in table5") and "over the 2 comparisons" in alone


def test_each_number_leads_to_its_runs(folder: Path, page: Node) -> None:
    table = call("table", "pooling_size", "--json", cwd=folder).json
    numbers = 0
    for line, row in zip(page.find("pooling_size.digits").all("tr"), [None, *table["rows"]], strict=False):
        if row is None:
            continue
        runs = {run["run_id"]: run for run in row["runs"] if run["status"] != "missing"}
        for link in (a for c in list(line.all("td")) for a in c.all("a") if "marks" not in str(c.children[-1])):
            target = page.find(str(link.attributes["href"])[1:])
            if target.tag == "li":  # a footnote
                continue
            numbers += 1
            assert target.tag == "details"
            shown = {str(line.attributes["id"])[4:]: line for body in target.all("tbody") for line in body.all("tr")}
            assert shown.keys() == runs.keys()
            for run_id, run in runs.items():
                cells = [c.text for c in shown[run_id].all("td", "th")]
                assert cells[:3] == [run_id, str(run["seed"]), run["status"] + (f": {SCRIPT}" * (not run["top1"]))]
                assert cells[3] == ("·" if run["top1"] is None else f"{run['top1']:.2f}")
                assert page.find(str(next(shown[run_id].all("a")).attributes["href"])[1:]).text.count("torch 2.15.0")
    assert numbers == 3 + 3 + 2  # means, counts and differences of three rows


def test_runs_have_their_spec_environment_and_curve(folder: Path, page: Node) -> None:
    spec = plan("pooling_size").spec("pool3", 0)
    details = next(
        d for d in page.all("details") if any(n.attributes.get("id") == f"run-{spec.run_id}" for n in d.all())
    )
    full = next(details.all("pre")).text
    assert "train.epochs: 12\n" in full and 'model.norm: "mln"\n' in full and "seed" not in full
    other = plan("pooling_size").spec("pool5", 0)
    row = page.find(f"run-{other.run_id}")
    assert "1:\xa040.0, 2:\xa097.0" in row.text
    details = next(d for d in page.all("details") if row in d.all())
    assert "model.pool_size [5, 5, 5, 5] (not [3, 3, 3, 3])" in details.text
    curves = json.loads(page.find("curves").text)
    assert curves["metrics"] == {"val_top1": "Top-1 (%)"}
    drawn = {"epoch": [1, 2], "train_loss": [2.1, 2.1], "val_loss": [1.9, 1.9], "val_top1": [40, 97]}
    assert curves["runs"][other.run_id] == drawn
    assert "c0ffee" in page.find("machines").text


def test_overrides_are_in_no_table_and_listed_by_what_differs(folder: Path, page: Node) -> None:
    over = plan("pooling_size", "digits", ("train.epochs=3",)).spec("pool5", 0)
    ((differs, nearest, top1, n),) = page.find("other").rows()
    assert differs == "train.epochs 3 (not 12)"
    assert nearest.startswith("pooling_size/pool5")
    assert top1.startswith("50.50 ± 0.71") and n == "2"
    for article in page.find("tables").all("article"):
        assert "50.50" not in article.text
    assert page.find(f"run-{over.run_id}")


def test_what_is_left_out_is_named(page: Node) -> None:
    words = page.find("left-out").text
    assert re.search(r"runs/[0-9a-f]{12}: history\.csv was changed after it was written", words)
    assert "experiments/broken.yaml" in words and "experiments/recipes/torn.yaml" in words
    assert "12.50" not in page.find("tables").text


def test_only_the_baseline_is_one_line(page: Node) -> None:
    lines = [row for row in page.find("overview").rows() if row[0] == "normalization"]
    assert [line[:3] + line[4:] for line in lines] == [
        ["normalization", recipe, "Modified Layer Normalization", "3"] for recipe in ("digits", "fashion_mnist")
    ]
    assert not [n for n in page.all() if n.attributes.get("id") == "normalization.digits"]


def test_diverged_and_failed_runs_are_shown_as_such(page: Node) -> None:
    rows = {row[1].split("[")[0]: row for row in table_of(page, "pooling_size", "digits")}
    assert "(partial)" in rows["Pooling size 3 -> 7"][4]
    assert "failed: seed 1" in page.find("pooling_size.digits").text
    other = table_of(page, "hostile", "digits")[1]
    assert other[4:7] == ["partial", "0", ""]
    assert "12 ok, 1 diverged, 1 failed" in next(page.all("header")).text


def test_figures_are_in_the_page(page: Node) -> None:
    article = page.find("pooling_size.digits")
    figures = [node for node in article.all("svg") if node.attributes.get("role") == "img"]
    kinds = [str(node.attributes["aria-label"]) for node in figures]
    assert {kind.rpartition(": ")[2] for kind in kinds} == {"pooling_size under digits"}
    assert len(set(kinds)) == 5 and len(kinds) == 10, "each kind, for a wide screen and for a phone"
    assert all(node.text.strip().endswith(".") for node in article.all("figcaption"))
    for figure in figures:
        assert len(list(figure.all("path"))) > 10
        assert not re.search(r"#(000000|ffffff)\b", str([node.attributes for node in figure.all()]))


def test_of_many_tables_only_the_first_kind_of_figure_is_drawn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaformer_ablate.analysis.report.page.MOST_FIGURES", 3)
    page = read(write(collect(Store(folder / "results"), DataFolder.choose(None))))
    figures = list(page.find("tables").all("figure"))
    whole = [article for article in page.find("tables").all("article") if not part(article)]
    assert 0 < len(figures) == len(whole)


def part(article: Node) -> bool:
    """Whether a table is closed behind a larger one."""
    return any("part" == node.attributes.get("class") for node in article.all("details"))


def test_tables_come_before_their_parts_which_are_closed_and_have_no_figures(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for i, spec in enumerate(plan("table5").specs.values()):
        fake_record(store, spec, 90 + i / 10)
    page = read(write(collect(store, DataFolder.choose(None), ("digits",))))
    articles = list(page.find("tables").all("article"))
    assert articles[0].attributes["id"] == "table5.digits" and not part(articles[0])
    assert {str(a.attributes["id"]) for a in articles[1:]} >= {"pooling_size.digits", "hybrid_stages.digits"}
    assert all(part(article) and not list(article.all("figure")) for article in articles[1:])
    assert page.find("overview").rows()[0][0] == "table5"


def test_mistakes_are_those_of_the_predictions(tmp_path: Path) -> None:
    pytest.importorskip(
        "metaformer_ablate.tasks.classification.error_analysis.summary", reason="mistakes are not told yet"
    )
    store = Store(tmp_path)
    labels = np.repeat(np.arange(10, dtype=np.uint8), 4)
    predicted = labels.copy()
    predicted[[12, 13, 14, 20]] = [8, 8, 5, 6]  # three of the four 3 and one 5
    predictions = {"label": labels, "predicted": predicted, "confidence": np.full(40, 0.9, dtype=np.float32)}
    specs = plan("pooling_size").specs
    for row in ("pool3", "pool7", "pool9"):
        record = fake_record(store, specs[row], 90.0)
    data = {key: value for key, value in record.data.items() if key not in ("format", "run_id", "checksums")}
    store.write(specs["pool5"], data, record.history(), predictions)
    page = read(write(collect(store, DataFolder.choose(None))))
    (details,) = (
        d for d in page.find("pooling_size.digits").all("details") if "get wrong" in next(d.all("summary")).text
    )
    rows = details.rows()
    assert rows[0][2] == "none"
    assert rows[1][:3] == [
        "Pooling size 3 -> 5",
        "0",
        "takes 3 for 8: 2 of 4; takes 3 for 5: 1 of 4; takes 5 for 6: 1 of 4",
    ]
    assert rows[1][3].startswith("3: 25.0 [")
    assert rows[1][4] == "0.0"  # 36 of 40 right, confidence 0.9


def test_a_stale_run_is_shown_and_not_counted(tmp_path: Path) -> None:
    """Nowhere in the page, as in the table."""
    store, folder = Store(tmp_path), DataFolder.choose(None)
    today = folder.fingerprint("digits", None)
    for row, spec in plan("pooling_size").specs.items():
        fake_record(store, spec, 90.0, fingerprint=today)
        fake_record(store, spec.with_seed(1), 70.0, fingerprint=today if row == "pool3" else "0" * 16)
    page = read(write(collect(store, folder)))
    assert "8 runs (5 ok, 3 stale)" in next(page.all("header")).text
    key = digest({k: v for k, v in plan("pooling_size").specs["pool5"].to_dict().items() if k != "seed"})[:12]
    told = page.find(key).text
    assert "2 runs: 90.00 (partial)" in told and "80.00" not in told
    (runs,) = page.find(key).all("table")
    assert [line[2] for line in runs.rows()] == ["ok", "stale"]


def test_a_run_is_stale_by_the_files_that_its_reader_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder may have a set twice: a spec does not say which of the two was read, a recipe does."""
    images, recipes = tmp_path / "data" / "imagenet", tmp_path / "experiments" / "recipes"
    for split in ("train", "val"):
        (images / split / "n0").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(images / split / "n0" / "a.png")
        with tarfile.open(images / f"{split}-0.tar", "w") as archive:
            archive.add(images / split / "n0" / "a.png", "n0/a.png")
    text = (REPOSITORY / "experiments" / "recipes" / "imagenet.yaml").read_text(encoding="utf-8")
    assert text.count("\ndata:\n") == 1
    recipes.mkdir(parents=True)
    (recipes / "tars.yaml").write_text(text.replace("\ndata:\n", "\ndata:\n  reader: tar\n"))
    monkeypatch.chdir(tmp_path)
    forget_files()
    store, folder = Store(tmp_path / "results"), DataFolder.choose(str(tmp_path / "data"))
    assert folder.fingerprint("imagenet", None) is None  # nothing says which
    fake_record(store, plan("pooling_size", "tars").specs["pool3"], 90.0, fingerprint="0" * 16)
    (variant,) = collect(store, folder, ["tars"]).variants["tars"]
    assert variant.stale == {0}


# The command


def test_a_recipe_alone(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "one.html"
    assert call("report", "--recipe", "fashion_mnist", "--out", out, cwd=folder).code == 0
    page = read(out.read_text(encoding="utf-8"))
    recipes = {node.attributes["data-recipe"] for node in page.all() if "data-recipe" in node.attributes}
    assert recipes == {"fashion_mnist"}
    assert "4 runs" in next(page.all("header")).text


def test_without_records_there_is_no_page(ablate: Callable[..., Result], folder: Path, tmp_path: Path) -> None:
    result = ablate("report")
    assert (result.code, result.out) == (1, "")
    assert result.err == "nothing to show: there are no records in results; `ablate run pooling_size` trains some\n"
    other = ablate("report", "--recipe", "imagenet", "--results", folder / "results")
    assert (other.code, other.out) == (1, "")
    assert re.search(r"none of the \d+ runs in \S+ is under imagenet; without --recipe", other.err)
    assert not (tmp_path / "report.html").exists()


def test_bad_requests(ablate: Callable[..., Result], folder: Path, tmp_path: Path) -> None:
    assert "unknown recipe 'digit' (did you mean 'digits'?)" in ablate("report", "--recipe", "digit").sentence
    result = ablate("report", "--results", folder / "results", "--out", tmp_path / "no" / "r.html")
    assert result.sentence.endswith("No such file or directory")


def test_records_are_found_where_no_experiment_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "results")
    record = fake_record(store, spec_of())
    monkeypatch.setattr("metaformer_ablate.analysis.report.collect.find_all", lambda kind: {})
    report = collect(store, DataFolder.choose(None))
    (variant,) = report.variants["no recipe"]
    assert variant.records == {0: record}
    assert not report.sections


# The parts


def test_specs_are_read_as_the_yaml_reader_reads_them(tmp_path: Path) -> None:
    store = Store(tmp_path)
    lines: dict[str, dict[str, object]] = {}
    for experiment in ("table5", "imagenet_models"):
        for spec in plan(experiment, "imagenet").specs.values():
            record = fake_record(store, spec)
            assert _spec(record, lines) == record.spec() == spec.to_dict()
    assert lines  # it did go line by line


def test_a_spec_in_another_style_is_read_too_and_a_wrong_one_is_no_result(tmp_path: Path) -> None:
    store = Store(tmp_path)
    spec = spec_of()
    record = fake_record(store, spec)
    (record.folder / "spec.yaml").write_text(json.dumps(spec.to_dict(), indent=3))
    assert _spec(record, {}) == spec.to_dict()
    wrong = fake_record(store, spec.with_seed(1))
    (wrong.folder / "spec.yaml").write_text(_yaml(spec.to_dict()))
    for folder in (record.folder, wrong.folder):  # as another program writes them
        seal(folder)
    report = collect(store, DataFolder.choose(None))
    (variant,) = report.variants["digits"]
    assert list(variant.records) == [0]
    assert [problem.partition(":")[0] for problem in report.problems] == [f"runs/{wrong.run_id}"]


def test_long_curves_keep_their_ends_and_gaps(tmp_path: Path) -> None:
    record = fake_record(Store(tmp_path), spec_of())
    lines = ["epoch,step,lr,train_loss,val_loss,val_top1,val_top5,seconds"]
    lines += [f"{i},1,1,{'nan' if i == 300 else 2 / i},inf,{i / 3},1,1" for i in range(1, 301)]
    (record.folder / "history.csv").write_text("\n".join(lines))
    metric = get_task().reported
    epochs, train_loss, val_loss, top1 = curve(record, 12, metric).values()
    assert len(epochs) == 12
    assert (epochs[0], epochs[-1]) == (1, 300)
    assert all(25 < b - a < 30 for a, b in pairwise(epochs))
    assert train_loss[0] == 2 and train_loss[-1] is None and set(val_loss) == {None}
    assert top1[0] == 0.3333 and top1[-1] == 100
    (record.folder / "history.csv").write_text("")
    assert list(curve(record, 12, metric).values()) == [[], [], [], []]


def test_templates_escape_every_string() -> None:
    assert escape_html('a\x00b\ud800c\x85d<&"') == "a\ufffdb\ufffdc\ufffdd&lt;&amp;&quot;"
    templates = _templates()
    shown = templates.from_string('<p title="{{ x }}">{{ x }}</p>').render(x='<&>"\x00\u202e')
    assert shown == '<p title="&lt;&amp;&gt;&#34;\ufffd\ufffd">&lt;&amp;&gt;&#34;\ufffd\ufffd</p>'
    island = templates.from_string("{{ x|tojson }}").render(x={"x": "</script><!--", "y": "\u2028"})
    assert "<" not in island and json.loads(island) == {"x": "</script><!--", "y": "\u2028"}
    with pytest.raises(jinja2.UndefinedError):
        templates.from_string("{{ nothing }}").render()


def test_cells_sort_by_their_number_where_the_text_is_another() -> None:
    assert number(1234, "1,234").sorts_by is None and number(1.25, "1.2").sorts_by == "1.25"
    assert number(None, "-").sorts_by == "" and words("a").sorts_by is None


def test_anchors_differ_where_names_do() -> None:
    names = [("a", "b"), ("a-b", "c"), ("a", "b-c"), ("a.b", "c"), ("a", "b.c"), ("a b", "c"), ("ä", "b")]
    anchors = [anchor(*name) for name in names]
    assert anchors[0] == "a.b"
    assert len(set(anchors)) == len(names)
    assert all(re.fullmatch(r"[\w.-]+", name, re.ASCII) for name in anchors)


def test_figures_of_a_page_share_no_ids_and_take_its_greys() -> None:
    svg = b"""<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"
    width="10pt" height="5pt" viewBox="0 0 10 5"><metadata>x</metadata><defs><style>*{fill: red}</style>
    <clipPath id="c1"><path id="p1" d="M580.000562 -0.00000004L0.0625 5"/></clipPath></defs>
    <script>1</script><!-- <b>note</b> -->
    <use xlink:href="#p1" style="fill: #ffffff; stroke: #0072b2" clip-path="url(#c1)"/>
    <text fill="#000000">a &lt; b</text></svg>"""
    shown = inline_svg(svg, "t.rows.", 'a "figure"')
    (root,) = read(shown).all("svg")
    assert root.attributes["aria-label"] == 'a "figure"' and root.attributes["role"] == "img"
    assert "width" not in root.attributes and "viewBox" in shown
    assert not list(root.all("style", "metadata", "script")) and "note" not in shown
    (use,) = root.all("use")
    assert use.attributes["href"] == "#t.rows.1" and use.attributes["clip-path"] == "url(#t.rows.0)"
    assert [node.attributes["id"] for node in root.all("clipPath", "clippath", "path")] == ["t.rows.0", "t.rows.1"]
    assert use.attributes["style"] == "fill: color-mix(in srgb, var(--ink) 0%, var(--paper)); stroke: #0072b2"
    assert next(root.all("path")).attributes["d"] == "M580.0006 0.0L0.0625 5"
    (words,) = root.all("text")
    assert words.text == "a < b" and "100%" in str(words.attributes["fill"])


def test_differences_in_words() -> None:
    assert settings_text([("train.epochs", "3", "12"), ("model.x", None, "1")]) == (
        "train.epochs 3 (not 12), model.x absent (not 1)"
    )
    assert settings_text([]) == "nothing"
