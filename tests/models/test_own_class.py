"""`model.class`: a net of the user's own, named by the digest of all that it is made of, and refused in plain words."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Result
from own_net import WORDS, edit, write_net
from specs import build_net, spec_of

from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.class_arguments import of_class, of_source
from metaformer_ablate.models.class_source import find_source
from metaformer_ablate.spec.run_spec import RunSpec


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_net(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def own(*words: str, target: str = "my_net.py:MyNet") -> RunSpec:
    return spec_of(words=[*WORDS, f"model.class={target}", *words])


def test_the_spec_names_the_class_by_its_digest_and_no_path(home: Path) -> None:
    spec = own("model.args.width=4")
    model = spec.to_dict()["model"]
    assert re.fullmatch("MyNet@[0-9a-f]{12}", model["class"]) and model["args"] == {"width": 4}
    assert str(home) not in str(spec.to_dict())
    assert len({spec.run_id, own("model.args.width=5").run_id, own("model.args.depth=4").run_id, own().run_id}) == 4
    assert {value for key, value in model.items() if key not in ("class", "args")} == {None}
    assert RunSpec.model_validate(spec.to_dict()).run_id == spec.run_id, "out of a record"
    net = build_net(RunSpec.model_validate(spec.with_execution()))
    assert net.stem.weight.shape == (4, 1, 3, 3) and net.head.weight.shape == (10, 4)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), build_net(spec).parameters(), strict=True))
    assert not torch.equal(net.head.weight, build_net(spec.with_seed(1)).head.weight)


def test_the_digest_is_over_the_file_and_its_neighbours(home: Path) -> None:
    first = own().run_id
    for file, before, after in (
        ("my_net.py", "Dropout(0.1)", "Dropout(0.2)"),
        ("blocks.py", "torch.sigmoid", "torch.tanh"),
        ("scales.py", "0.5", "0.7"),
    ):
        edit(home / file, before, after)
        assert own().run_id != first, file
        edit(home / file, after, before)
        assert own().run_id == first, file
    (home / "unrelated.py").write_text("x = 1\n")
    (home / "sub").mkdir()
    for name in ("my_net.py", "blocks.py", "scales.py"):
        (home / name).rename(home / "sub" / name)
    assert own(target="sub/my_net.py:MyNet").run_id == first, "the folder is in the id"
    assert own(target="sub/my_net.py:Wider").run_id != first


def test_what_is_run_is_what_was_digested(home: Path) -> None:
    """Two versions of a neighbour live beside each other, and no module of the same name is taken for one."""
    sys.modules["scales"] = type(sys)("scales")  # somebody else's, without what ours has
    try:
        x = torch.rand(2, 1, 8, 8)
        before = build_net(own()).eval()
        logits = before(x)
        edit(home / "scales.py", "0.5", "0.0")
        after = build_net(own()).eval()
        assert not torch.equal(after(x), logits)
        assert torch.equal(before(x), logits), "an import in a function sees another version"
        assert torch.equal(before.blocks[0].conv.weight, after.blocks[0].conv.weight)
    finally:
        del sys.modules["scales"]
    assert "blocks" not in sys.modules


def test_a_package_a_module_and_relative_imports(home: Path) -> None:
    package = home / "nets"
    package.mkdir()
    text = (home / "my_net.py").read_text()
    (package / "my_net.py").write_text(text.replace("from blocks", "from .parts.blocks"))
    (package / "parts").mkdir()
    blocks = (home / "blocks.py").read_text().replace("import scales", "from nets import scales")
    (package / "parts" / "blocks.py").write_text(blocks.replace("from scales", "from ..scales"))
    (package / "scales.py").write_text((home / "scales.py").read_text())
    for without in ("blocks.py", "scales.py"):
        (home / without).unlink()
    by_module = own(target="nets.my_net:MyNet")
    net = build_net(RunSpec.model_validate(by_module.with_execution()))
    assert type(net.blocks[0]).__name__ == "Gated" and net(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    (package / "__init__.py").write_text("")
    (package / "parts" / "__init__.py").write_text("")
    assert own(target="nets.my_net:MyNet").run_id == by_module.run_id, "empty files are in the digest"
    assert own(target="nets/my_net.py:MyNet").run_id == by_module.run_id
    build_net(own(target="nets/my_net.py:MyNet"))
    edit(package / "scales.py", "0.5", "0.7")
    assert own(target="nets.my_net:MyNet").run_id != by_module.run_id


def test_an_installed_package_is_imported_as_it_is(home: Path) -> None:
    spec = own(
        "model.args={growth_rate: 4, block_config: [1, 1], num_init_features: 8}",
        target="torchvision.models.densenet:DenseNet",
    )
    source = find_source("torchvision.models.densenet", "test")
    assert source.installed and {"torchvision.utils", "torchvision.models._utils"} <= source.modules.keys()
    assert all(name.partition(".")[0] == "torchvision" for name in source.modules)
    # It has three channels in its code, and takes no in_chans.
    with pytest.raises(RequestError, match=r"DenseNet cannot run: .*images have 1 channels, and DenseNet takes no in_"):
        build_net(spec)


@pytest.mark.parametrize("name", ["MyNet", "Wider", "Open"])
def test_the_source_tells_what_the_class_tells(home: Path, name: str) -> None:
    from metaformer_ablate.models.class_file import load_class

    source = find_source("my_net.py", "test")
    told, real = of_source(source, name), of_class(load_class(f"my_net.py:{name}", source.digest(name), "test"))
    assert told is not None and told.whole and real.whole
    assert told.names == real.names
    assert [a.default for a in told.arguments] == [a.default for a in real.arguments]
    assert told.names[-5:] == ["width", "depth", "use_gate", "num_classes", "in_chans"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("model.args.widht=4",),
            r"model.args.widht: unknown argument of MyNet \(did you mean 'width'\?\); all",
        ),
        (("model.args.num_classes=4",), "model.args.num_classes follows from the data; leave it out"),
        (("model.args=4",), "model.args is 4 .a number.; allowed: a mapping of arguments"),
        (("model.args.width.x=4",), "model.args.width is set as a whole, to a value, which may be a mapping"),
        (("model.args.width=.inf",), "model.args is .*allowed: finite numbers, text"),
        (("model.class=my_net.py:MyNte",), r"model.class: my_net.py has no class 'MyNte' \(did you mean 'MyNet'\?\)"),
        (("model.class=mine.py:MyNet",), "model.class: mine.py cannot be read: No such file or directory"),
        (
            ("model.class=mine:MyNet",),
            r"model.class: no module 'mine' in .* nor among those installed; allowed",
        ),
        (("model.class=my_net",), "model.class is 'my_net' .a string.; allowed: FILE.py:Class or package.module:Class"),
        (("model.class=MyNet@0123456789ab",), "model.class is 'MyNet@0123456789ab' .a string.; allowed: FILE.py:Class"),
        (("model.pool_size=5",), "model.pool_size is 5, but nothing reads it: the model is MyNet"),
        (("model.drop_path=0.1",), "model.drop_path is 0.1, but nothing reads it: the model is MyNet"),
        (("model.size=s12",), "model.size is 's12', but nothing reads it: the model is MyNet"),
        (
            ("model.timm=resnet18",),
            "model.timm is 'resnet18' and model.class is 'my_net.py:MyNet'; allowed: one",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_while_it_is_planned(
    home: Path, ablate: Callable[..., Result], words: tuple[str, ...], sentence: str
) -> None:
    done = ablate("show", "gate", *words) if words != ("model.timm=resnet18",) else None
    if done is None:
        done = ablate("show", "gate", "model.class=my_net.py:MyNet", *words)
    assert re.search(sentence, done.sentence), done.sentence


EXPECTED = "expected: images .B, C, H, W. to logits .B, num_classes., one tensor"


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("return self.head(", "return x, self.head(", f"MyNet returns a tuple of 2 in evaluation; {EXPECTED}"),
        (
            "return self.head(",
            "self.head(",
            r"MyNet returns nothing \(is there a return\?\) in evaluation; expected",
        ),
        (
            "        x = self.blocks",
            "        if self.training:\n            return [x]\n        x = self.blocks",
            "in training",
        ),
        (".mean((2, 3))", ".mean(3)", r"MyNet cannot run: RuntimeError: .*\(my_net.py, line 22\)"),
        (
            ".mean((2, 3))",
            ".mean((0, 2, 3))[None]",
            r"MyNet returns a tensor \[1, 10\] of torch.float32 in ev",
        ),
        (".mean((2, 3))", ".mean((2, 3)).roll(1, 0)", "MyNet gives an image other logits alone than beside another"),
        (".mean((2, 3))", ".mean((2, 3)) / 0", "MyNet gives logits that are not finite"),
        (
            "num_classes: int = 10, ",
            "",
            r"model.class: MyNet takes no num_classes \(it takes: width, depth, ",
        ),
        ("width: int = 8", "width: int", "model.args.width is not set, and MyNet has no default for it"),
        (
            "super().__init__()",
            "super().__init__(); self.x = width.y",
            r"MyNet cannot be built: AttributeError: .*line 13",
        ),
        ("class MyNet(nn.Module)", "class MyNet", r"my_net.py: MyNet is no torch module; allowed: class MyNet\(torch"),
        (
            "from blocks",
            "from block",
            r"cannot be loaded: ModuleNotFoundError: No module named 'block' \(my_net",
        ),
        ("class MyNet", "import sys; sys.exit(3)\nclass MyNet", "my_net.py cannot be loaded: SystemExit: 3"),
        ("class MyNet(nn.Module):", "class MyNet(nn.Module:", "my_net.py cannot be loaded: SyntaxError"),
    ],
)
def test_a_class_that_is_no_net_is_refused(home: Path, before: str, after: str, sentence: str) -> None:
    edit(home / "my_net.py", before, after)
    with pytest.raises(RequestError, match=sentence) as raised:
        build_net(own())
    assert "metaformer_ablate_own" not in str(raised.value)


def test_a_constructor_that_the_source_does_not_show_is_asked_of_the_class(home: Path) -> None:
    text = """
import dataclasses
from torch import nn

@dataclasses.dataclass(eq=False)
class Data(nn.Module):
    width: int = 4
    num_classes: int = 10

    def __post_init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(self.width), nn.Linear(self.width, self.num_classes))

    def forward(self, x):
        return self.layers(x)
"""
    (home / "data_net.py").write_text(text)
    spec = own("model.args.wdith=3", target="data_net.py:Data")
    with pytest.raises(RequestError, match=r"model.args.wdith: unknown argument of Data \(did you mean 'width'\?\)"):
        build_net(spec)
    assert build_net(own("model.args.width=3", target="data_net.py:Data")).layers[2].in_features == 3


def test_weights_drawn_with_numpy_follow_the_seed(home: Path) -> None:
    edit(home / "my_net.py", "import torch\n", "import random\nimport numpy\nimport torch\n")
    edit(home / "my_net.py", "self.drop =", "self.drawn = numpy.random.rand() + random.random()\n        self.drop =")
    assert build_net(own()).drawn == build_net(own()).drawn != build_net(own().with_seed(1)).drawn


def test_what_the_check_measures_is_put_back(home: Path) -> None:
    norm = build_net(own()).norm
    assert torch.equal(norm.running_mean, torch.zeros(8)) and int(norm.num_batches_tracked) == 0


def test_args_of_another_kind_of_model_are_not_kept(home: Path) -> None:
    spec = own("model.args.width=4")
    rows = Path("experiments/gate.yaml")
    edit(rows, "  plain:", "  pool: {label: Ours, set: {model.name: poolformer_s12}}\n  plain:")
    from metaformer_ablate.spec.plan import plan

    specs = plan("gate").specs
    assert specs["pool"].model.own_class is None and specs["pool"].model.args is None
    assert specs["gated"].model.own_class == spec.model.own_class
    (Path("v2.py")).write_text((home / "my_net.py").read_text().replace("0.1", "0.2"))
    other = plan("gate", overrides=["model.class=v2.py:MyNet"]).specs["plain"]
    assert other.model.args == {"width": 8, "use_gate": False}, "another version of the class keeps the rows' arguments"


def test_a_constructor_may_change_what_it_is_given(home: Path) -> None:
    """The arguments are part of the id, and one net is built more than once before it is trained."""
    (home / "lists.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Sequential):\n"
        "    def __init__(self, widths, *, num_classes, in_chans):\n"
        "        widths.insert(0, in_chans)\n"
        "        pairs = zip(widths, [*widths[1:], num_classes])\n"
        "        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *[nn.Linear(a, b) for a, b in pairs])\n"
    )
    spec = own("model.args={widths: [8, 16]}", target="lists.py:Net")
    before = spec.run_id
    nets = [build_net(spec) for _ in range(2)]
    assert spec.run_id == before and spec.with_seed(1).to_dict()["model"]["args"] == {"widths": [8, 16]}
    assert [[m.in_features for m in net if isinstance(m, torch.nn.Linear)] for net in nets] == [[1, 8, 16]] * 2
