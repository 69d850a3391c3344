"""Text as each format has to hold it, so that no label, title or reason is taken for an instruction."""

# ruff: noqa: RUF001 (letters and signs that look like others are what this file is about)

from __future__ import annotations

import html
import re
import unicodedata
from typing import Any

from metaformer_ablate.errors import visible

# ---------------------------------------------------------------------------------------------------------------------
# CSV


def csv_cell(value: Any) -> Any:
    """A cell of a CSV file: text that a spreadsheet would take for a formula begins with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


# OWASP, CSV injection: these begin a formula, also in their full-width forms and after white space.
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r]")


# ---------------------------------------------------------------------------------------------------------------------
# Markdown


def escape_markdown(text: str) -> str:
    """Text on one line of markdown that opens no tag and no link, and is no other character than it shows.

    A `<` before a number and brackets by themselves stay: they mean nothing there, and tables are read as text too.
    """
    text = visible(" ".join(text.split()))
    text = re.sub(r"\\(?=[!-/:-@\[-`{-~])", r"\\\\", text)
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text)
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)
    return re.sub(r"\](?=[(\[:])", r"]\\", text)


# ---------------------------------------------------------------------------------------------------------------------
# HTML

# What HTML cannot hold, control characters and halves of surrogate pairs; and what turns the order of letters around.
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


def html_text(text: str) -> str:
    """Text that HTML can hold, not yet escaped: what it cannot becomes U+FFFD."""
    return _NOT_TEXT.sub("\ufffd", text)


def escape_html(text: str) -> str:
    """Text of an element or of a quoted attribute."""
    return html.escape(html_text(text))


# ---------------------------------------------------------------------------------------------------------------------
# LaTeX

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "`": r"\textasciigrave{}", "*": r"\textasteriskcentered{}", '"': "''",
    "->": r"$\rightarrow$", "--": "-{}-", "±": r"$\pm$",
    "[": "{[}", "]": "{]}",  # at the start of a line LaTeX takes them for the options of \\
}  # fmt: skip
_NAMES = {
    "\u00a0": "~", "–": "--", "—": "---", "‘": "`", "’": "'", "“": "``", "”": "''", "…": r"\ldots{}",
    "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ø": r"\o{}", "Ø": r"\O{}",
    "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}", "¡": r"\textexclamdown{}", "¿": r"\textquestiondown{}",
    "§": r"\S{}", "¶": r"\P{}", "©": r"\copyright{}", "£": r"\pounds{}",
}  # fmt: skip
_MATHEMATICS = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "µ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho",
    "ς": "varsigma", "σ": "sigma", "τ": "tau", "υ": "upsilon", "φ": "varphi", "χ": "chi", "ψ": "psi", "ω": "omega",
    "ϵ": "epsilon", "ϑ": "vartheta", "ϕ": "phi", "ϖ": "varpi", "ϱ": "varrho",
    "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Υ": "Upsilon",
    "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega",
    "←": "leftarrow", "→": "rightarrow", "↑": "uparrow", "↓": "downarrow", "↔": "leftrightarrow",
    "⇐": "Leftarrow", "⇒": "Rightarrow", "⇔": "Leftrightarrow", "↦": "mapsto", "⟶": "longrightarrow",
    "≤": "le", "≥": "ge", "⩽": "le", "⩾": "ge", "≪": "ll", "≫": "gg", "≠": "ne", "≈": "approx", "≡": "equiv",
    "∼": "sim", "≃": "simeq", "∝": "propto", "×": "times", "÷": "div", "·": "cdot", "⋅": "cdot", "∘": "circ",
    "∗": "ast", "⊕": "oplus", "⊗": "otimes", "⊙": "odot", "∞": "infty", "∂": "partial", "∇": "nabla", "√": "surd",
    "∑": "sum", "∏": "prod", "∫": "int", "∈": "in", "∉": "notin", "∅": "emptyset", "∪": "cup", "∩": "cap",
    "⊂": "subset", "⊆": "subseteq", "∀": "forall", "∃": "exists", "¬": "neg", "∧": "wedge", "∨": "vee", "ℓ": "ell",
    "⋯": "cdots", "∥": "parallel", "†": "dagger", "‡": "ddagger", "•": "bullet", "′": "prime",
}  # fmt: skip
_MATHEMATICS = {char: f"\\{name}" for char, name in _MATHEMATICS.items()} | {"−": "-", "°": r"^{\circ}"}
# Greek capitals that are Latin ones, and digits above and below the line.
_MATHEMATICS |= {char: rf"\mathrm{{{letter}}}" for char, letter in zip("ΑΒΕΖΗΙΚΜΝΟΡΤΧο", "ABEZHIKMNOPTXo", strict=True)}
_MATHEMATICS |= {char: f"^{{{digit}}}" for char, digit in zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-", strict=True)}
_MATHEMATICS |= {char: f"_{{{digit}}}" for char, digit in zip("₀₁₂₃₄₅₆₇₈₉₊₋", "0123456789+-", strict=True)}
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0323": "d", "\u0327": "c", "\u0331": "b",
}  # fmt: skip
_LATEX_SPECIAL = re.compile("|".join(map(re.escape, sorted(_LATEX, key=len, reverse=True))) + "|[^\\x00-\\x7f]")


def escape_latex(text: str) -> str:
    """Text as LaTeX prints it. A character that pdflatex cannot set stays as it is (`beyond_pdflatex` names it)."""
    return _LATEX_SPECIAL.sub(lambda found: _latex_of(found[0]) or found[0], visible(_one_line(text)))


def beyond_pdflatex(text: str) -> str:
    """The characters of a LaTeX source that pdflatex cannot set, each once."""
    return "".join(sorted({char for char in text if not char.isascii()}))


def _one_line(text: str) -> str:
    """With line breaks as spaces, and each letter in one character with its accent."""
    return unicodedata.normalize("NFC", text.replace("\r\n", " ").replace("\n", " "))


def _latex_of(found: str) -> str | None:
    if (known := _LATEX.get(found) or _NAMES.get(found)) is not None:
        return known
    if found in _MATHEMATICS:
        return f"\\ensuremath{{{_MATHEMATICS[found]}}}"
    letter, accent = (*unicodedata.normalize("NFD", found), "")[:2]
    if len(unicodedata.normalize("NFD", found)) == 2 and letter.isascii() and accent in _ACCENTS:
        return f"\\{_ACCENTS[accent]}{{{letter}}}"
    return None
