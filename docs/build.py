"""Builds the documentation site: `python docs/build.py` writes build/site, ready to be served as static files.

The pages of this folder are copied; the references of settings, commands and Python are made from the code. Then
Zensical builds them, strictly, and every link and picture of the built pages is followed within the site. Needs the
extra `docs`. Anything wrong is printed and ends with exit code 1.

Zensical is the successor of Material for MkDocs, by the same people: MkDocs 1 has had no release since 2024, and the
end of Material for MkDocs is announced for May 2027. Both read mkdocs.yml.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click

import metaformer_ablate
from metaformer_ablate.cli.main import GROUPS, HELP_OPTIONS, ablate
from metaformer_ablate.spec.reference import SettingLine, settings_reference
from metaformer_ablate.spec.run_spec import SECTION_NAMES

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
PAGES, SITE = ROOT / "build" / "docs", ROOT / "build" / "site"

# Files of the repository that are pages too.
BESIDE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md"}


# Pages that the site has and this folder has not.
MADE = {*BESIDE.values(), "reference/settings.md", "reference/commands.md", "reference/python.md"}


def main() -> int:
    shutil.rmtree(ROOT / "build" / "docs", ignore_errors=True)
    write_pages()
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", "--strict"], cwd=ROOT, capture_output=True, text=True
    )
    print(done.stdout + done.stderr, end="")
    # What mkdocstrings cannot find or read is a line of the output and no failure of Zensical's.
    output = (done.stdout + done.stderr).splitlines()
    wrong = [line for line in output if re.search(r"\b(ERROR|WARNING)\b|^griffe: ", line)]
    if done.returncode or wrong:
        return 1
    broken = list(broken_links(SITE))
    print(
        "\n".join(broken)
        or f"{len(list(SITE.rglob('*.html')))} pages in {SITE.relative_to(ROOT)}, all links lead somewhere"
    )
    return 1 if broken else 0


def write_pages() -> None:
    """Fills build/docs: copies, and what is made from the code."""
    shutil.copytree(DOCS, PAGES, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for name, page in BESIDE.items():
        shutil.copy(ROOT / name, PAGES / page)
    for path in PAGES.glob("*.md"):
        path.write_text(with_links_of_the_site(path.read_text(encoding="utf-8")), encoding="utf-8")
    reference = PAGES / "reference"
    reference.mkdir()
    (reference / "settings.md").write_text(settings_page(), encoding="utf-8")
    (reference / "commands.md").write_text(commands_page(), encoding="utf-8")
    (reference / "python.md").write_text(python_page(), encoding="utf-8")


def with_links_of_the_site(text: str) -> str:
    """A page whose links to files beside `docs` lead to their pages, and text in place of links to what has none."""
    for name, page in BESIDE.items():
        text = re.sub(rf"\]\((?:\.\./)?{re.escape(name)}(#[^)]*)?\)", rf"]({page}\1)", text)
    text = re.sub(r"\]\(docs/([^)]+)\)", r"](\1)", text)  # of CONTRIBUTING.md, which stands above
    return re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", text)


def settings_page() -> str:
    """The reference of `ablate list settings` as a page."""
    lines = [
        "# Settings",
        "",
        "What an experiment, a recipe or the command line may set, made by the code of `ablate list settings`. "
        "A setting that nothing in a row reads is an error there, and null in a resolved spec; "
        "`ablate explain EXPERIMENT ROW --all` shows where each value of a row came from.",
        "",
        "A setting is part of a run's id unless its line says otherwise: with another value it is another run.",
    ]
    found = settings_reference()
    for section in SECTION_NAMES:
        lines += ["", f"## {section}"]
        for line in found:
            if line.path.startswith(f"{section}."):
                lines += setting_lines(line)
    return "\n".join(lines) + "\n"


def setting_lines(line: SettingLine) -> list[str]:
    anchor = re.sub(r"\W", "-", f"{line.path} {line.task or ''}".strip())
    of = f" of {line.task}" if line.task else ""
    default = "No default: the recipe sets it" if line.required else f"Default `{shown(line.default)}`"
    outside = "" if line.in_id else "not part of a run's id; "
    readers = "in every run" if line.readers == "always" else line.readers
    allowed = line.allowed[:1].upper() + line.allowed[1:] + "."
    facts = f"{default}; read {readers}; {outside}since {line.since}."
    return ["", f"### `{line.path}`{of} {{ #{anchor} }}", "", allowed, "", facts]


def shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def commands_page() -> str:
    """The help of every command, as a terminal of 80 columns has it."""
    lines = ["# Commands", "", "`ablate COMMAND --help` prints the same."]
    parent = click.Context(ablate, info_name="ablate", help_option_names=HELP_OPTIONS)
    for group, names in GROUPS.items():
        lines += ["", f"## {group}"]
        for name in names:
            command = ablate.get_command(parent, name)
            assert command is not None
            context = click.Context(command, parent, name, terminal_width=80, max_content_width=80)
            lines += ["", f"### {name}", "", "```text", command.get_help(context), "```"]
    return "\n".join(lines) + "\n"


def python_page() -> str:
    """Everything that `import metaformer_ablate as ma` offers."""
    names = [name for name in metaformer_ablate.__all__ if not name.startswith("__")]
    return "\n".join(
        [
            "# Python API",
            "",
            "```python",
            "import metaformer_ablate as ma",
            "```",
            *(line for name in names for line in ("", f"::: metaformer_ablate.{name}")),
            "",
        ]
    )


class _Page(HTMLParser):
    """The links and pictures of a built page, and the names that links to it may have."""

    def __init__(self, path: Path):
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.targets += [found[key] or "" for key in ("href", "src") if key in found and tag != "base"]
        self.anchors |= {found[key] or "" for key in ("id", "name") if key in found}


def broken_links(site: Path) -> Iterator[str]:
    """`page: link` of each link within the site that leads nowhere. Links to elsewhere are not followed."""
    pages = {path.resolve(): _Page(path) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        if path.name == "404.html":  # its links are those of a server's root
            continue
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = pages.get(there)
            missing_anchor = parts.fragment and known and unquote(parts.fragment) not in known.anchors
            if not there.exists() or (missing_anchor and not parts.fragment.startswith("__")):
                yield f"{path.relative_to(site.resolve())}: {target}"


if __name__ == "__main__":
    sys.exit(main())
