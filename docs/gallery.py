"""Makes the gallery again: `python docs/gallery.py` runs its commands on the committed study.

It writes docs/gallery.md, and into docs/gallery/ pictures of 1,400 pixels and 128 colours, some 50 kB each. Needs the
extra `test`, LaTeX, poppler and Chromium, and in $ABLATE_DATA the images of CIFAR-10 for the page of mistakes.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from metaformer_ablate.spec.plan import plan

DOCS = Path(__file__).resolve().parent
PICTURES = DOCS / "gallery"
STUDY = "table5 --recipe cifar10_small"
WIDEST, COLOURS = 1400, 128

LATEX = r"""\documentclass{article}
\usepackage[a4paper,margin=2cm]{geometry}
%s
\pagestyle{empty}
\begin{document}
%s
\end{document}
"""


@dataclass(frozen=True)
class Item:
    """A part of the page: commands that are shown and run, and what makes a picture of what they write."""

    name: str
    title: str
    about: str
    commands: tuple[str, ...]
    picture: Callable[[Path, Path], None] | None = None  # (folder the commands ran in, picture to write)


def from_file(name: str) -> Callable[[Path, Path], None]:
    return lambda folder, picture: reduce(folder / name, picture)


def from_latex(folder: Path, picture: Path) -> None:
    """The table on a page, cut out of it."""
    table = (folder / "table5.tex").read_text(encoding="utf-8")
    packages = "\n".join(re.findall(r"\\usepackage(?:\[[^]]*\])?\{[^}]*\}", table))
    (folder / "page.tex").write_text(LATEX % (packages, table), encoding="utf-8")
    run("pdflatex -interaction=nonstopmode page.tex", folder)
    run("pdftoppm -r 150 -png -singlefile page.pdf page", folder)
    page = Image.open(folder / "page.png").convert("L")
    left, top, right, bottom = page.point(lambda level: 255 * (level < 250)).getbbox() or (0, 0, *page.size)
    Image.open(folder / "page.png").crop((left - 20, top - 20, right + 20, bottom + 20)).save(folder / "page.png")
    reduce(folder / "page.png", picture)


def from_page(folder: Path, picture: Path) -> None:
    """The first screen of the report, 1280 pixels wide."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as program:
        browser = program.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1100})
        page.goto((folder / "study.html").as_uri())
        page.screenshot(path=folder / "page.png")
        browser.close()
    reduce(folder / "page.png", picture)


def items() -> list[Item]:
    run_id = plan("table5", "cifar10_small").spec("depthwise_conv", 0).run_id[:6]

    def plot(kind: str, about: str) -> Item:
        command = f"ablate plot {STUDY} --kind {kind} --out {kind}.png"
        return Item(kind, f"Figure: {kind}", about, (command,), from_file(f"{kind}.png"))

    return [
        Item(
            "table",
            "Table in a terminal",
            "80 columns wide. What found no room is named below it.",
            ("ablate table token_mixers --recipe cifar10_small",),
        ),
        Item(
            "latex",
            "Table in LaTeX",
            "Fits a column; `--fit page` gives it more columns, `--bold` the best mean in bold.",
            (f"ablate table {STUDY} --format latex --fit page --out table5.tex",),
            from_latex,
        ),
        plot("rows", "Means, and differences to the baseline with 95% intervals, paired by seed."),
        plot("cost", "What a row costs against what it reaches."),
        plot("paper", "Our differences against the paper's."),
        Item(
            "agreement",
            "Figure: agreement with the paper",
            "Of each recipe: the order of the rows and the pairs that the paper has apart, with 95% intervals.",
            ("ablate compare cifar10_small cifar10_mixing paper table5 --kind agreement --plot agreement.png",),
            from_file("agreement.png"),
        ),
        plot("seeds", "Every run, seed by seed."),
        plot("curves", "The metric over the epochs."),
        Item(
            "report",
            "Report",
            "One HTML file of every table, figure and run; it loads nothing from a network.",
            ("ablate report --recipe cifar10_small --out study.html",),
            from_page,
        ),
        Item(
            "confusion",
            "What a run gets wrong: confusion",
            "Each run has its own; `--against RUN` compares two.",
            (f"ablate errors {run_id} --out mistakes",),
            from_file("mistakes/confusion.png"),
        ),
        Item(
            "mistakes",
            "What a run gets wrong: pictures",
            "The mistakes the model is most confident in, written by the same command.",
            (f"ablate errors {run_id} --out mistakes",),
            from_file("mistakes/mistakes.png"),
        ),
    ]


def reduce(source: Path, picture: Path) -> None:
    """A small copy of a picture."""
    image = Image.open(source).convert("RGB")
    image.thumbnail((WIDEST, 3 * WIDEST), Image.Resampling.LANCZOS)
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(picture, optimize=True)


def run(command: str, folder: Path) -> str:
    environment = {**os.environ, "COLUMNS": "80", "ABLATE_RESULTS": str(DOCS.parent / "results")}
    words = shlex.split(command)
    if words[0] == "ablate":
        words = [sys.executable, "-m", "metaformer_ablate", *words[1:]]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command}: exit code {done.returncode}\n{done.stderr or done.stdout}")
    return done.stdout


def in_terminal(command: str, folder: Path) -> str:
    """What a command prints in a terminal of 80 columns, made by `script`."""
    words = shlex.split(command)
    typed = shlex.join([sys.executable, "-m", "metaformer_ablate", *words[1:]])
    text = run(shlex.join(["script", "-qec", f"stty cols 80; {typed}", "/dev/null"]), folder)
    return text.replace("\r\n", "\n")


def page_of(items: list[Item], made: Callable[[Item], str]) -> str:
    lines = [
        "# Gallery",
        "",
        "Made by the commands shown, from the records in `results`: the paper's table 5 on CIFAR-10 with small "
        "models and few epochs. `python docs/gallery.py` makes this page again.",
    ]
    for item in items:
        lines += ["", f"## {item.title}", "", item.about, "", "```bash", *item.commands, "```", "", made(item)]
    return "\n".join(lines) + "\n"


def main() -> None:
    if "ABLATE_DATA" not in os.environ:
        raise SystemExit("ABLATE_DATA is not set; allowed: the folder of the images of CIFAR-10")
    PICTURES.mkdir(exist_ok=True)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)

        def make(item: Item) -> str:
            if item.picture is None:
                return f"```text\n{in_terminal(item.commands[0], folder).rstrip()}\n```"
            for command in item.commands:
                run(command, folder)
            item.picture(folder, PICTURES / f"{item.name}.png")
            return f"![{item.title}](gallery/{item.name}.png)"

        (DOCS / "gallery.md").write_text(page_of(items(), make), encoding="utf-8")


if __name__ == "__main__":
    main()
