"""A net of the user's own from `ablate init` to the table, its errors and its export, as a user types it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Result, command
from disturbed import StopAfter, content, runner
from own_net import WORDS, edit, write_net
from specs import spec_of

from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.options import RunOptions
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system.signals import Interrupted

RUNNING = re.compile("^running code of .*$", re.MULTILINE)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_net(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ablate_here(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_two_workers_train_it_and_the_rest_works(home: Path, ablate: Callable[..., Result]) -> None:
    done = ablate_here("run", "gate", *WORDS, "--seeds", "2", "--workers", "2", "--keep-checkpoints")
    assert done.returncode == 0, done.stderr
    assert RUNNING.findall(done.stderr) == [f"running code of {home / 'my_net.py'}, which model.class names"]
    records = list(Store(home / "results"))
    assert [record.status for record in records] == ["ok"] * 4
    assert {record.spec()["model"]["args"]["use_gate"] for record in records} == {True, False}
    assert str(home) not in "".join((record.folder / "spec.yaml").read_text() for record in records)
    again = ablate("run", "gate", *WORDS, "--seeds", "2", "--json")
    assert again.json["to_run"] == 0 and not RUNNING.search(again.err), "a command that only reads runs no code"
    table = ablate("table", "gate", *WORDS, "--json").json
    gated, plain = table["rows"]
    assert (gated["n"], plain["n"]) == (2, 2) and gated["params"] == plain["params"] + 8 * 8 + 8
    assert gated["macs"] > plain["macs"] > 0 and not [note for note in plain["notes"] if "besides" in note]
    assert "model.args.use_gate" in ablate("explain", "gate", "plain", *WORDS).out
    shown = ablate("show", "gate", *WORDS, "--json").json
    assert [row["params"] for row in shown["rows"]] == [gated["params"], plain["params"]]
    assert "multiply-adds" in ablate("cost", "gate", *WORDS, "--no-speed").out
    run = records[0].run_id
    analysed = ablate("errors", run, "--gradcam", "--layer", "norm", "--json")
    assert analysed.code == 0, analysed.err
    assert analysed.json["model"] == "MyNet" and "gradcam.png" in " ".join(analysed.json["figures"])
    check_export(home, run, ablate)
    assert ablate("reproduce", run).out.startswith(f"run {run}: identical")


def check_export(home: Path, run: str, ablate: Callable[..., Result]) -> None:
    """The ONNX file gives torch's logits; an edited class is named, and another file of the same content is taken."""
    import onnxruntime

    exported = ablate("export", run, "--json")
    assert exported.code == 0, exported.err
    held = exported.json["weights"]
    assert exported.json["timm"] is None and held["predictions_repeated"] == held["images"] > 300
    session = onnxruntime.InferenceSession(f"export-{run}/model.onnx")
    assert session.run(None, {"images": np.zeros((2, 1, 8, 8), np.float32)})[0].shape == (2, 10)
    for file in ("my_net.py", "blocks.py", "scales.py"):
        (home / "kept").mkdir(exist_ok=True)
        (home / "kept" / file).write_text((home / file).read_text())
    edit(home / "scales.py", "0.5", "0.6")
    refused = ablate("export", run).sentence
    assert re.search(
        r"is MyNet@\w{12}, and no experiment here names a class of that digest \(my_net.py:MyNet is", refused
    )
    assert "allowed: --class FILE.py:MyNet" in refused
    assert ablate("export", run, "--class", "kept/my_net.py:MyNet").code == 0
    edit(home / "scales.py", "0.6", "0.5")


def stochastic(seed: int = 0) -> RunSpec:
    words = [word for word in WORDS if "epochs=" not in word]
    return spec_of(words=[*words, "train.epochs=2", "train.warmup_epochs=0", "model.class=my_net.py:MyNet"], seed=seed)


@pytest.mark.parametrize("steps", [9, 22, 30])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(home: Path, steps: int) -> None:
    undisturbed = runner(home / "a").run(stochastic())
    with pytest.raises(Interrupted):
        runner(home / "b").run(stochastic(), RunOptions(stop=StopAfter(steps)))
    assert content(runner(home / "b").run(stochastic())) == content(undisturbed)


def test_init_writes_an_experiment_that_runs_as_it_is(home: Path, ablate: Callable[..., Result]) -> None:
    made = ablate("init", "my_study", "--model", "my_net.py:MyNet")
    assert made.code == 0, made.err
    text = (home / "experiments" / "my_study.yaml").read_text()
    assert "# model.args.width: 8    # int" in text and "# model.args.use_gate: true    # bool" in text
    assert "model.class: my_net.py:MyNet" in text
    assert "num_classes:" not in text and "in_chans:" not in text
    assert ablate("run", "my_study", *WORDS).code == 0
    edit(home / "experiments" / "my_study.yaml", "  # other:", "  other:")
    for line in ("label: MyNet, use", "set: {model.args.use_gate: false}"):
        edit(home / "experiments" / "my_study.yaml", f"  #   {line}", f"    {line}")
    assert [row["name"] for row in ablate("show", "my_study", *WORDS, "--json").json["rows"]] == ["as_it_is", "other"]
    assert RUNNING.search(ablate("cost", "my_study", *WORDS, "--no-speed").err) is None, "said once, by `run`"


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("MyNet(", "MyNets(", r"--model: my_net.py has no class 'MyNet' \(did you mean 'MyNets'\?\)"),
        ("num_classes: int = 10, ", "", "--model: MyNet takes no num_classes .it takes: width, depth, use_gate"),
        ("my_net.py:MyNet", "", ""),
    ],
)
def test_init_of_what_is_no_net(
    home: Path, ablate: Callable[..., Result], before: str, after: str, sentence: str
) -> None:
    if not sentence:
        refused = ablate("init", "my_study", "--model", "my_net").sentence
        assert refused == "--model is 'my_net'; allowed: FILE.py:Class or package.module:Class"
        return
    edit(home / "my_net.py", before, after)
    assert re.search(sentence, ablate("init", "my_study", "--model", "my_net.py:MyNet").sentence)
    assert not (home / "experiments" / "my_study.yaml").exists()


def test_an_argument_without_a_default_is_to_be_set_first(home: Path, ablate: Callable[..., Result]) -> None:
    edit(home / "my_net.py", "width: int = 8", "width: int")
    edit(home / "my_net.py", "depth: int = 1", "depth: int = 1, kernel=(3, 3), act=nn.ReLU")
    made = ablate("init", "my_study", "--model", "my_net.py:MyNet")
    assert "Next: set model.args.width in it, then ablate show" in made.out
    text = (home / "experiments" / "my_study.yaml").read_text()
    assert "# model.args.width: ...    # int, it has no default: set it" in text
    assert "# model.args.kernel: [3, 3]" in text and "# model.args.act: ...    # its default is nn.ReLU" in text
    assert "model.args.width is not set, and MyNet has no default for it" in ablate("show", "my_study", *WORDS).sentence


TIMM = """
title: Stochastic depth
baseline: without
set: {model.timm: resnet10t}
rows:
  without: {}
  depth: {set: {model.args.drop_path_rate: 0.1}}
  narrow: {set: {model.args: {stem_width: 8, block_args: {attn_layer: eca}}}}
"""


def test_models_of_timm_with_their_own_arguments(home: Path, ablate: Callable[..., Result]) -> None:
    (home / "experiments" / "depth.yaml").write_text(TIMM)
    words = [word for word in WORDS if "image_size" not in word] + ["data.image_size=32"]
    shown = ablate("show", "depth", *words, "--json")
    assert shown.code == 0, shown.err
    without, depth, narrow = (row["params"] for row in shown.json["rows"])
    assert without == depth > narrow
    assert ablate("trial", "depth", *words, "--row", "depth").code == 0
    (record,) = list(Store(home / "results"))
    assert record.spec()["model"]["args"] == {"drop_path_rate": 0.1} and record.spec()["model"]["drop_path"] is None
    for word, sentence in (
        (
            "model.args.drop_pat_rate=0.1",
            r"model.args.drop_pat_rate: unknown argument of timm's resnet10t \(did you me",
        ),
        ("model.args.num_classes=3", "model.args.num_classes follows from the data; leave it out"),
        ("model.args.pretrained=true", "model.args.pretrained: weights come from model.init_from, whose"),
        ("model.args.stem_width=null", "model.args.stem_width is null, which timm leaves out; allowed: a value"),
        ("model.timm=resnet10tt", "unknown timm model 'resnet10tt'"),
        ("model.args.stem_width=wide", "model.timm is 'resnet10t', which cannot be built with"),
    ):
        refused = ablate("show", "depth", *words, word).sentence
        assert re.search(sentence, refused), refused
