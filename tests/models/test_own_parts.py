"""Mixers, norms and activations from outside the package: found by every process, and never mistaken for another."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Result
from own_components import CLASSES, GLOBAL_FILTER, PARTS, WORDS
from specs import build_net, spec_of

from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.registry import COMPONENTS
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.spec.run_spec import RunSpec

ROLL_LAST = "model.token_mixer=[pooling, pooling, pooling, roll]"
EXPERIMENT = """
title: Rolling
baseline: pooling
rows:
  pooling: {label: Pooling}
  roll: {label: Roll at the end, set: {model.token_mixer: [pooling, pooling, pooling, roll]}}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The folder one stands in, with parts and an experiment of one's own; nothing of them is left behind."""
    (tmp_path / "my_parts.py").write_text(CLASSES)
    (tmp_path / "parts.yaml").write_text(PARTS)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "rolling.yaml").write_text(EXPERIMENT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ABLATE_PARTS", raising=False)
    yield tmp_path
    monkeypatch.chdir("/")
    monkeypatch.delenv("ABLATE_PARTS", raising=False)
    COMPONENTS.read_own()
    assert not [name for name in COMPONENTS.mixers if "@" in name]


def roll_spec(*words: str) -> RunSpec:
    mixer = () if any(word.startswith("model.token_mixer") for word in words) else (ROLL_LAST,)
    return spec_of(words=[*WORDS, *mixer, *words])


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_a_class_of_ones_own_is_in_the_model(home: Path) -> None:
    spec = roll_spec("model.norm=scale", "model.activation=halved")
    mixer = spec.model.token_mixer[-1]
    assert re.fullmatch("roll@[0-9a-f]{12}", mixer) and spec.model.token_mixer[:3] == ("pooling",) * 3
    assert re.fullmatch("scale@[0-9a-f]{12}", str(spec.model.norm))
    assert re.fullmatch("halved@[0-9a-f]{12}", str(spec.model.activation))
    net = build_net(spec)
    block = net.get_submodule("stages.3.blocks.0")
    assert type(block.token_mixer).__name__ == "Roll"
    assert (type(block.norm1).__name__, type(block.mlp.act).__name__) == ("Scale", "Halved")
    x = torch.rand(1, 4, 3, 5)
    assert torch.equal(block.token_mixer(x), x.roll(1, dims=3))
    assert net.training


def test_the_id_follows_the_class_and_nothing_else(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    first = roll_spec().run_id
    assert roll_spec().run_id == first
    edit(home / "parts.yaml", "moved by a token", "described in other words")
    assert roll_spec().run_id == first
    edit(home / "my_parts.py", "site.kernel_size or 1", "site.kernel_size or 2")
    changed = roll_spec().run_id
    assert changed != first
    edit(home / "my_parts.py", "site.kernel_size or 2", "site.kernel_size or 1")
    assert roll_spec().run_id == first
    edit(home / "parts.yaml", "my_parts.py:Roll", "my_parts.py:Halved")
    assert roll_spec().run_id not in (first, changed), "another class of the same file"
    pooling = plan("rolling").specs["pooling"].run_id  # with parts.yaml there
    (home / "parts.yaml").unlink()
    assert plan("pooling_size").specs["pool3"].run_id == pooling, "a part that a run does not use is in its id"


def test_options_that_it_reads_reach_it_and_others_are_refused(home: Path) -> None:
    with pytest.raises(RequestError, match="nothing reads it"):
        roll_spec("model.token_mixer=roll", "model.kernel_size=3")
    edit(home / "parts.yaml", "about:", "reads: [kernel_size], about:")
    spec = roll_spec("model.token_mixer=roll", "model.kernel_size=3")
    assert build_net(spec).get_submodule("stages.0.blocks.0.token_mixer").by == 3


def test_a_spec_outlives_neither_its_class_nor_the_file(home: Path) -> None:
    spec = roll_spec()
    assert RunSpec.model_validate(spec.to_dict()) == spec, "out of a record"
    edit(home / "my_parts.py", "or 1", "or 2")
    with pytest.raises(
        RequestError, match=r"roll@[0-9a-f]{12}: parts.yaml names no such part, or its class is another"
    ):
        build_net(spec)
    with pytest.raises(ValueError, match="the class of roll is another by now"):
        RunSpec.model_validate(spec.to_dict())


SPAWN = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from metaformer_ablate.spec.plan import plan

def build(spec):
    from metaformer_ablate.models.build import build_model
    net = build_model(spec.model, *spec.data.net_shape, seed=spec.seed)
    return type(net.get_submodule("stages.3.blocks.0.token_mixer")).__name__

if __name__ == "__main__":
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        print(pool.submit(build, plan("rolling").specs["roll"]).result(timeout=100))
"""


def test_a_spawned_process_finds_it(home: Path) -> None:
    """As workers are started: it gets a resolved spec and has read nothing itself."""
    (home / "spawn.py").write_text(SPAWN)
    done = subprocess.run([sys.executable, "spawn.py"], capture_output=True, text=True, timeout=120)
    assert done.stdout == "Roll\n", done.stderr


def test_ablate_parts_names_another_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = roll_spec().run_id
    (home / "elsewhere").mkdir()
    (home / "parts.yaml").rename(home / "elsewhere" / "ours.yaml")
    (home / "my_parts.py").rename(home / "elsewhere" / "my_parts.py")
    with pytest.raises(RequestError, match=r"unknown token mixer 'roll'; allowed: pooling, .*; those of your own"):
        roll_spec()
    monkeypatch.setenv("ABLATE_PARTS", str(home / "elsewhere" / "ours.yaml"))
    assert roll_spec().run_id == here, "the id depends on where the file lies"
    monkeypatch.setenv("ABLATE_PARTS", "nowhere.yaml")
    with pytest.raises(RequestError, match=r"ABLATE_PARTS is 'nowhere.yaml', which cannot be read"):
        roll_spec()


def test_list_shows_it_without_torch(home: Path, ablate_process: Callable[..., Result]) -> None:
    listed = ablate_process("list", "--json", cwd=home).json
    assert listed["token_mixers"]["roll"]["class"] == "my_parts.py:Roll"
    assert {"scale", "mln"} <= listed["norms"].keys() and "halved" in listed["activations"]
    assert "moved by a token  (my_parts.py:Roll)" in ablate_process("list", cwd=home).out


def test_it_is_trained_once_a_class(home: Path, ablate: Callable[..., Result]) -> None:
    words = ("rolling", *WORDS)
    assert ablate("run", *words).code == 0
    mixers = {record.spec()["model"]["token_mixer"][-1] for record in Store(home / "results")}
    assert len(mixers) == 2 and "pooling" in mixers
    assert ablate("run", *words, "--json").json["to_run"] == 0
    assert "2 have a record, 0 to train" in ablate("run", *words, "--dry-run").err
    edit(home / "my_parts.py", "or 1", "or 2")
    assert "1 have a record, 1 to train" in ablate("run", *words, "--dry-run").err


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        (
            "token_mixers:",
            "mixers:",
            r"parts.yaml:2: unknown key 'mixers'.*; allowed: token_mixers, norms, activations",
        ),
        (
            "roll:",
            "pooling:",
            "parts.yaml:3: token_mixers.pooling: the package has a part of this name; choose another",
        ),
        ("roll:", "Roll:", "parts.yaml:3: token_mixers.Roll: a name is of small letters, digits and _"),
        ("class: my_parts.py:Roll, ", "", "token_mixers.roll: must be a mapping with the key 'class': file.py:Class"),
        ("about:", "abuot:", r"token_mixers.roll.abuot: unknown key \(did you mean 'about'\?\); allowed: class, about"),
        ("about:", "mixes: 1, about:", "token_mixers.roll.mixes is 1 .a number.; allowed: true or false"),
        (
            "about:",
            "reads: [pool_siz], about:",
            "unknown field 'pool_siz' .did you mean 'pool_size'.*allowed: pool_size",
        ),
        ("about:", "window: pool_size, about:", "window is 'pool_size' .a string.; allowed: a name of reads"),
        ("my_parts.py:Roll", "my_parts:Roll", "class is 'my_parts:Roll' .a string.; allowed: file.py:Class"),
        ("my_parts.py:Roll", "mine.py:Roll", "token_mixers.roll: mine.py cannot be read: No such file or directory"),
        ("my_parts.py:Roll", "my_parts.py:Rol", "my_parts.py has no class 'Rol' .did you mean 'Roll'"),
    ],
)
def test_mistakes_in_the_file(home: Path, before: str, after: str, sentence: str) -> None:
    edit(home / "parts.yaml", before, after)
    with pytest.raises(RequestError, match=sentence):
        build_net(roll_spec())


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("x.mean(3, keepdim=True)", r"roll: maps \[2, 16, 2, 2\] to \[2, 16, 2, 1\]; allowed: the same shape"),
        ("x.roll(1, dims=0)", "the model with roll gives an image other logits alone than beside another"),
        ("x / 0", "the model with roll gives logits that are not finite"),
        ("x.rol(1)", r"the model with roll cannot run: AttributeError: .* no attribute 'rol' \(my_parts.py, line 12\)"),
        ("x.roll(", r"my_parts.py cannot be loaded: SyntaxError.*\(my_parts.py, line 12\)"),
        ("x, 1", r"roll: maps \[2, 16, 2, 2\] to a tuple; allowed: a tensor of the same shape"),
        ("None", r"roll: maps \[2, 16, 2, 2\] to nothing \(is there a return\?\); allowed: a tensor of the same shape"),
    ],
)
def test_a_class_that_would_not_be_a_mixer_is_refused(home: Path, body: str, sentence: str) -> None:
    edit(home / "my_parts.py", "x.roll(self.by, dims=3)", body)
    with pytest.raises(RequestError, match=sentence):
        build_net(roll_spec())


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        (
            "__init__(self, site: Site)",
            "__init__(self, dim, factor)",
            "the model with roll cannot be built: TypeError: .* missing 1 required positional argument: 'factor'; "
            r"a token mixer is built as Mixer\(site\), a norm as Norm\(dim, eps, bias\), an activation as",
        ),
        (
            "self.by = site.kernel_size or 1",
            "self.by = site.dims",
            r"cannot be built: AttributeError: 'Site' object has no attribute 'dims' \(my_parts.py, line 9\)$",
        ),
        (
            "self.by = site.kernel_size or 1",
            "raise ValueError",
            r"cannot be built: ValueError \(my_parts.py, line 9\)$",
        ),
        ("class Roll(nn.Module)", "class Roll", r"my_parts.py: Roll is no torch module; allowed: class Roll\(torch.nn"),
        ("class Scale", "1 / 0\n\nclass Scale", "my_parts.py cannot be loaded: ZeroDivisionError: .*py, line 14"),
    ],
)
def test_a_class_that_cannot_be_built_is_refused(
    home: Path, ablate: Callable[..., Result], before: str, after: str, sentence: str
) -> None:
    edit(home / "my_parts.py", before, after)
    assert re.search(sentence, refused(ablate("show", "rolling", *WORDS)))


def refused(shown: Result) -> str:
    """What `show` says of the row `roll`, which cannot be trained; the others are shown."""
    lines = [line for line in shown.err.splitlines() if not line.startswith(LOADED)]
    assert (shown.code, len(lines)) == (1, 1), shown.err
    assert "Traceback" not in shown.err and re.search("pooling .* Pooling .* 0.0", shown.out)
    return lines[0].removeprefix("error: row 'roll': ")


def test_macs_without_an_operator_that_nobody_counts_are_a_lower_bound(
    home: Path, ablate: Callable[..., Result]
) -> None:
    edit(home / "my_parts.py", "x.roll(self.by, dims=3)", "x.cumsum(3)")
    words = ("show", "rolling", *WORDS)
    note = "MACs are a lower bound: nobody counts aten::cumsum"
    pooling, roll = ablate(*words, "--json").json["rows"]
    assert roll["macs"] == pooling["macs"] and roll["uncounted"]["aten::cumsum"] == 1
    assert note in roll["notes"] and note not in pooling["notes"]
    assert re.search(r"roll .* ≥ 0\.0", ablate(*words).out)
    assert "at least" in ablate("cost", "rolling", "--no-speed", *WORDS).out
    assert ablate("run", "rolling", *WORDS).code == 0
    for style, more in {"text": (), "markdown": (), "latex": ("--columns", "row,macs,top1"), "html": ()}.items():
        table = ablate("table", "rolling", *WORDS, "--format", style, *more).out
        assert "lower bound" in table and re.search(r"(≥|\\ge\}) 0\.0", table), style
    edit(home / "parts.yaml", "about:", "uncounted: [aten::cumsum], about:")
    assert note not in ablate(*words).out and "≥" not in ablate("table", "rolling", *WORDS).out


def test_a_function_counts_a_part(home: Path, ablate: Callable[..., Result]) -> None:
    """Inside it nothing else is counted, and its word stands over a record's lower bound."""
    count = "\n\ndef moves(mixer, shape):\n    return 1000 * mixer.by + shape[0] * shape[1]\n"
    edit(home / "my_parts.py", "x.roll(self.by, dims=3)", "torch.fft.fft2(x).real @ x")
    (home / "my_parts.py").write_text((home / "my_parts.py").read_text() + count)
    assert ablate("run", "rolling", *WORDS).code == 0
    pooling, roll = ablate("table", "rolling", *WORDS, "--json").json["rows"]
    assert roll["macs"] == pooling["macs"] + 16 * 2 * 2 * 2, "16 products of 2 x 2 matrices"
    edit(home / "parts.yaml", "about:", "macs: moves, about:")
    shown = ablate("show", "rolling", *WORDS, "--json").json["rows"][1]
    assert shown["macs"] == pooling["macs"] + 1000 + 16 * 2 and "aten::fft_fft2" not in shown["uncounted"]
    assert not any("lower bound" in note for note in shown["notes"])
    assert ablate("table", "rolling", *WORDS, "--json").json["rows"][1]["macs"] == shown["macs"]
    edit(home / "my_parts.py", "return 1000 * mixer.by", "return 0.5 * mixer.by")
    sentence = refused(ablate("show", "rolling", *WORDS))
    assert "its function moves gives 32.5 for [16, 2, 2]; allowed: the multiply-adds of one image" in sentence
    edit(home / "my_parts.py", "return 0.5 * mixer.by", "return mixer.bye")
    sentence = refused(ablate("show", "rolling", *WORDS))
    assert re.search(r"moves cannot count .* no attribute 'bye' \(my_parts.py, line \d+\)", sentence)
    edit(home / "parts.yaml", "macs: moves", "macs: move")
    assert "has no function 'move' (did you mean 'moves'?)" in refused(ablate("show", "rolling", *WORDS))


@pytest.mark.parametrize("name", ["aten::fft_rfft2", "aten::linalg_inv", "aten::bmm", "aten::convolution"])
def test_a_product_cannot_be_declared_as_free(home: Path, name: str) -> None:
    edit(home / "parts.yaml", "about:", f"uncounted: [{name}], about:")
    with pytest.raises(RequestError, match=f"uncounted: {name} multiplies; allowed: operators that only move"):
        COMPONENTS.read_own()


def test_a_parameter_of_four_dimensions_keeps_its_layout(home: Path, ablate: Callable[..., Result]) -> None:
    """GFNet's global filter (github.com/raoyongming/GFNet), its lines as they are, under digits as it is."""
    (home / "my_parts.py").write_text(CLASSES + GLOBAL_FILTER)
    edit(home / "parts.yaml", "my_parts.py:Roll", "my_parts.py:GlobalFilter")
    edit(home / "experiments" / "rolling.yaml", "[pooling, pooling, pooling, roll]", "roll")
    done = ablate("run", "rolling", *WORDS, "--json")
    assert done.code == 0, done.err
    row = done.json["tables"][0]["rows"][1]
    assert row["status"] == "ok" and {"aten::fft_rfft2", "aten::fft_irfft2"} <= row["uncounted"].keys()
    assert "MACs are a lower bound: nobody counts aten::fft_irfft2, aten::fft_rfft2" in row["notes"]


def test_a_part_that_fits_no_map_of_224_is_trained_all_the_same(home: Path, ablate: Callable[..., Result]) -> None:
    edit(home / "my_parts.py", "x.roll(self.by, dims=3)", "self.rolled(x)")
    refuses = """
    def rolled(self, x):
        if x.shape[2] & (x.shape[2] - 1):
            raise ValueError("a power of two, please")
        return x.roll(self.by, dims=3)
"""
    text = (home / "my_parts.py").read_text()
    at = text.index("self.rolled(x)") + len("self.rolled(x)\n")
    (home / "my_parts.py").write_text(text[:at] + refuses + text[at:])
    done = ablate("run", "rolling", *WORDS, "--json")
    assert done.code == 0, done.err
    assert done.json["tables"][0]["rows"][1]["status"] == "ok"


def test_a_part_of_one_size_of_map_is_refused_where_images_vary_unless_it_says_so(
    home: Path, ablate: Callable[..., Result]
) -> None:
    (home / "my_parts.py").write_text(CLASSES + GLOBAL_FILTER)
    edit(home / "parts.yaml", "my_parts.py:Roll", "my_parts.py:GlobalFilter")
    done = ablate("show", "rolling", "--recipe", "coco_retinanet")
    assert done.code == 1
    said = " ".join(done.err.split())
    assert "the model with roll cannot run: RuntimeError: " in said
    assert "images vary in size here: a part that fits one size of map says fixed_resolution: true" in said
    edit(home / "parts.yaml", "about:", "fixed_resolution: true, about:")
    done = ablate("show", "rolling", "--recipe", "coco_retinanet")
    assert done.code == 0 and "not applicable" in done.out, done.err


FLAT = "x.view(len(x), -1).view(x.shape)"  # fits no image in channels_last


def test_a_part_is_tried_as_the_run_computes(home: Path, ablate: Callable[..., Result]) -> None:
    """The row is named, with line and way out, and the others are trained."""
    edit(home / "my_parts.py", "x.roll(self.by, dims=3)", FLAT)
    words = ("rolling", *WORDS, "model.norm=affine")
    line = (home / "my_parts.py").read_text().split(FLAT)[0].count("\n") + 1
    place = rf"view size is not compatible.* \(my_parts.py, line {line}\); allowed: train.memory_format=contiguous"
    assert re.search(f"the model with roll cannot run: RuntimeError: {place}", refused(ablate("show", *words)))
    done = ablate("run", *words, "--json")
    assert done.code == 1 and re.search(f"error: rolling/roll: the model with roll cannot run.*{place}", done.err)
    assert [row["status"] for row in done.json["tables"][0]["rows"]] == ["ok", "missing"]
    assert re.search(f"rolling/roll: .*{place}", ablate("run", *words).sentence), "nothing else is left"
    assert ablate("run", *words, "train.memory_format=contiguous").code == 0


def test_the_precision_and_the_way_back_are_tried(home: Path, ablate: Callable[..., Result]) -> None:
    words = ("show", "rolling", *WORDS)
    product = "kernel(x @ x.mT) @ x"
    kernel = (
        "\n\ndef kernel(x):\n    if x.dtype != torch.float32:\n        raise TypeError('fp32 alone')\n    return x\n"
    )
    (home / "my_parts.py").write_text((home / "my_parts.py").read_text() + kernel)
    edit(home / "my_parts.py", "x.roll(self.by, dims=3)", product)
    sentence = refused(ablate(*words, "train.precision=bf16"))
    assert "TypeError: fp32 alone" in sentence and sentence.endswith("allowed: train.precision=fp32")
    edit(home / "my_parts.py", product, "x.exp().mul_(2)")
    sentence = refused(ablate(*words))
    assert re.search(r"in its backward pass RuntimeError: .* inplace operation.* \(my_parts.py, line 12\)$", sentence)


def test_a_worker_records_what_it_cannot_build(home: Path, ablate: Callable[..., Result]) -> None:
    """Where nothing was tried beforehand the run fails, and the others go on."""
    edit(home / "my_parts.py", "x.roll(self.by, dims=3)", FLAT)
    words = ("rolling", "row=roll", *WORDS, "model.norm=affine")
    done = ablate("trial", *words)
    assert done.code == 1 and "allowed: train.memory_format=contiguous" in done.err, done.err


def test_drawing_the_check_changes_no_weights(home: Path) -> None:
    """The check of one's own parts draws images, never from the generator that draws weights."""
    own = build_net(roll_spec("model.token_mixer=roll")).state_dict()
    ours = build_net(roll_spec("model.token_mixer=identity")).state_dict()
    assert own.keys() == ours.keys() and all(torch.equal(own[key], ours[key]) for key in own)


LOADED = "running code of "


@pytest.mark.slow
def test_a_command_says_once_whose_code_it_runs(home: Path, ablate_process: Callable[..., Result]) -> None:
    edit(home / "my_parts.py", "import torch\n", "import torch  # a class that nothing has counted before\n")
    for words in (["show", "rolling"], ["cost", "rolling", "--no-speed"], ["run", "rolling", "--workers", "2"]):
        done = ablate_process(*words, *WORDS)
        assert done.code == 0, done.err
        told = [line for line in done.err.splitlines() if line.startswith(LOADED)]
        assert told == [f"{LOADED}{home / 'my_parts.py'}, which parts.yaml names"], (words, done.err)


def test_commands_that_only_read_records_run_no_code(home: Path, ablate: Callable[..., Result]) -> None:
    """A cloned repository's parts.yaml is not run by who looks at its results."""
    assert ablate("run", "rolling", *WORDS).code == 0
    edit(home / "my_parts.py", "import torch\n", f"import torch\nopen({str(home / 'ran')!r}, 'w')\n")
    for words in (["table", "rolling"], ["plot", "rolling"], ["status", "rolling"], ["explain", "rolling", "roll"]):
        done = ablate(*words, *WORDS)
        assert done.code == 0 and LOADED not in done.err, (words, done.err)
    for words in (["list"], ["status"], ["report"], ["merge", "results"], ["show", "pooling_size"]):
        assert LOADED not in ablate(*words).err
    assert not (home / "ran").exists()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("class Scale", "raise SystemExit(0)\n\nclass Scale"),
        ("self.by = site.kernel_size or 1", "raise SystemExit(0)"),
        ("return x.roll(self.by, dims=3)", "raise SystemExit(0)"),
    ],
)
def test_code_that_exits_is_an_error(home: Path, ablate: Callable[..., Result], before: str, after: str) -> None:
    edit(home / "my_parts.py", before, after)
    sentence = refused(ablate("show", "rolling", *WORDS))
    assert re.search(r"cannot be (loaded|built)|cannot run", sentence) and "SystemExit: 0 (my_parts.py" in sentence


def test_a_part_may_draw_from_any_generator(home: Path) -> None:
    """From NumPy's or Python's as from torch's: the seed decides, and nobody else's draws are moved."""
    edit(
        home / "my_parts.py",
        "self.by = site.kernel_size or 1",
        "import random\n        import numpy\n"
        "        self.drawn = numpy.random.permutation(99).tolist() + random.sample(range(99), 99)",
    )
    edit(home / "my_parts.py", "x.roll(self.by, dims=3)", "x.roll(1, dims=3)")

    def drawn(seed: int) -> list[int]:
        found: list[int] = build_net(roll_spec().with_seed(seed)).get_submodule("stages.3.blocks.0.token_mixer").drawn
        return found

    random.seed(5)
    np.random.seed(5)
    first = drawn(0)
    after = random.random(), np.random.random()
    assert drawn(0) == first != drawn(1)
    random.seed(5)
    np.random.seed(5)
    assert after == (random.random(), np.random.random())


def test_linear_layers_are_drawn_as_all_others_unless_the_part_keeps_its_own(home: Path) -> None:
    edit(
        home / "my_parts.py",
        "self.by = site.kernel_size or 1",
        "self.gate = nn.Linear(2, 2)\n        nn.init.ones_(self.gate.weight)",
    )
    edit(home / "my_parts.py", "x.roll(self.by, dims=3)", "x.roll(1, dims=3) * self.gate.weight.sum()")
    gate = "stages.3.blocks.0.token_mixer.gate"
    assert build_net(roll_spec()).get_submodule(gate).weight.abs().max() < 0.1
    edit(
        home / "my_parts.py", "class Roll(nn.Module):\n", "class Roll(nn.Module):\n    keeps_initialisation = True\n\n"
    )
    net = build_net(roll_spec())
    assert (net.get_submodule(gate).weight == 1).all()
    assert net.get_submodule("head.fc").weight.abs().max() < 0.1
