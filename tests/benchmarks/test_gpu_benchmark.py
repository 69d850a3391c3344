"""The benchmark of the GPU where there is none: its floor by hand, and each of its parts small, on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import gpu
from benchmarks.floor import BACKWARD, FORWARD, Rates, Work, block
from benchmarks.training import Case, Setting
from metaformer_ablate.cost.cost import count

TINY = Case("t5", "digits", 4)
CPU = Setting()


def test_a_small_block_by_hand() -> None:
    """A map of 2 images, 3 positions, 5 channels: 30 numbers of 4 bytes; hidden maps of 60 numbers of 2 bytes."""
    forward = block(FORWARD, batch=2, tokens=3, channels=5, ratio=2)
    product = 2 * (2 * 3) * 5 * 10  # each of 6 positions: 5 x 10 multiply-adds, two operations each
    assert forward == [
        Work("pooling", 120 + 120, 0),  # x, u
        Work("fc1", 120 + 120, product),  # u, p
        Work("fc2", 120 + 120 + 120, product),  # p, u, y
    ]
    backward = block(BACKWARD, batch=2, tokens=3, channels=5, ratio=2)
    assert backward == [
        Work("fc2 input", 120 + 120 + 120, product),  # dy, p, dp
        Work("fc2 weights", 120 + 120, product),  # dy, p
        Work("fc1 input", 120 + 120 + 60, product),  # dp, u, dn
        Work("fc1 weights", 120 + 120, product),  # dp, u
        Work("norm", 120 + 60 + 120 + 120 + 120, 0),  # dy, dn, u, x, du
        Work("pooling", 120 + 120 + 120, 0),  # du, x, dx
    ]
    narrow = block(FORWARD, batch=2, tokens=3, channels=5, ratio=2, stream_bytes=2)
    assert [work.bytes for work in narrow] == [120, 180, 240]


def test_a_pass_takes_the_longer_of_memory_and_operations() -> None:
    work = Work("pass", bytes=600, operations=1000)
    assert work.seconds(Rates(bytes=100, operations=1000)) == 6
    assert work.seconds(Rates(bytes=100, operations=100)) == 10


def test_the_floor_has_the_products_of_the_whole_model() -> None:
    """Operations of the blocks of S12 against fvcore's count of its linear layers, and the sum of blocks by hand."""
    case = Case("s12", "imagenet", 2)
    depths = case.spec().model.depths or ()
    stages = gpu.work_of(case, FORWARD)
    operations = sum(d * sum(work.operations for work in stage) for d, stage in zip(depths, stages, strict=True))
    cost = count(case.spec())
    head = 512 * 1000
    assert operations == 2 * case.batch * (cost.macs_by_operator["linear"] - head)
    able = Rates(1e9, 1e15)
    expected = sum(d * sum(work.bytes for work in stage) for d, stage in zip(depths, stages, strict=True)) / 1e9
    assert gpu.floor_of(case, able, "inference") == pytest.approx(expected)
    assert gpu.floor_of(case, able, "training") > 3 * expected
    lines = gpu.floors(case, able)
    assert len(lines) == 8
    assert sum(d * line["ms"] for d, line in zip(depths, lines, strict=False)) == pytest.approx(1e3 * expected, 1e-3)


def test_rates_are_what_a_copy_and_a_product_take() -> None:
    able = gpu.rates("cpu", numbers=2**16, side=64, least=0.0)
    assert 1e6 < able.bytes < 1e13 and 1e5 < able.operations < 1e15


def test_ways_are_compared_and_their_kernels_named() -> None:
    chosen = [way for way in gpu.ways() if not way.compiled and "Triton" not in way.name]
    for work in ("training", "inference"):
        lines = list(gpu.compare(TINY, CPU, work, chosen, floor=1e-6, least=0.0))
        assert [line["side"] for line in lines] == [way.name for way in chosen]
        for line in lines:
            assert line["ms"] > 0 and line["images_per_second"] > 0  # type: ignore[operator]
            assert line["faster_than_compiled_timm"] is None and 0 <= line["share_of_floor"] < 1  # type: ignore[operator]
    spent = gpu.kernels(TINY, CPU, chosen[-1])
    assert any("conv" in line["kernel"] for line in spent)
    assert 0.3 < sum(line["share"] for line in spent) <= 1.01


def test_parts_come_in_the_order_of_their_worth_until_the_time_is_over() -> None:
    """A clock of the test's own: each line takes ten seconds of it."""
    assert tuple(gpu.parts(CPU)) == gpu.PARTS and gpu.PARTS[:2] == ("rates", "training")

    class Clocked(gpu.Budget):
        def __init__(self, lines: int):
            super().__init__(None)
            self.left = lines

        def allows(self) -> bool:
            self.left -= 1
            return self.left >= 0

    def broken() -> gpu.Lines:
        yield {"at": "broken"}
        raise MemoryError("no  room")

    named = {"first": lambda: iter([{"at": 1}, {"at": 2}]), "broken": broken, "last": lambda: iter([{"at": 3}])}
    failed = {"benchmark": "gpu", "part": "broken", "failed": "MemoryError: no room"}
    assert list(gpu.within(named, Clocked(99))) == [{"at": 1}, {"at": 2}, {"at": "broken"}, failed, {"at": 3}]
    stopped = {"benchmark": "gpu", "part": "stopped", "before": "first", "why": "the time is over"}
    assert list(gpu.within(named, Clocked(1))) == [{"at": 1}, stopped]
    assert list(gpu.within(named, Clocked(99), "last")) == [{"at": 3}]


def test_a_budget_leaves_time_for_as_much_as_the_longest_took(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(gpu.time, "monotonic", lambda: now[0])
    budget = gpu.Budget(minutes=1)
    assert budget.allows()
    now[0] = 25.0  # the first took 25 s
    assert budget.allows()
    now[0] = 30.0
    assert budget.allows()
    now[0] = 40.0
    assert not budget.allows()
    assert gpu.Budget(None).allows()


def test_each_line_is_written_as_it_comes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    results, seen = tmp_path / "results.json", []
    results.write_text(json.dumps({"startup": "as it was"}))

    def lines(minutes: float | None, part: str | None) -> gpu.Lines:
        assert (minutes, part) == (4.0, "training")
        for ms in (3, 2):
            yield {"ms": ms}
            seen.append(len(json.loads(results.read_text())["gpu"]["results"]))

    monkeypatch.setattr(command, "RESULTS", results)
    monkeypatch.setitem(command.BENCHMARKS, "gpu", lines)
    monkeypatch.setattr("sys.argv", ["benchmarks", "gpu", "--minutes", "4", "--part", "training"])
    command.main()
    assert seen == [1, 2]
    assert json.loads(results.read_text())["startup"] == "as it was"


def test_the_triton_way_has_triton_blocks() -> None:
    pytest.importorskip("triton")
    blocks = {}
    for way in gpu.ways():
        net = way.side(TINY.spec()).net
        blocks[way.name] = sum(type(module).__name__ == "PoolingBlock" for module in net.modules())
    assert blocks.pop("ours with Triton kernels") == 5
    assert set(blocks.values()) == {0}


@pytest.mark.slow
def test_processes_at_once_add_up_and_a_table_is_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    way = next(way for way in gpu.ways() if way.name == "ours")
    line = gpu.at_once(TINY, CPU, way, 2, least=0.1)
    assert line["processes"] == 2 and line["steps_per_second"] > 0  # type: ignore[operator]
    assert gpu.at_once(TINY, CPU, way, 1, least=0.1, graphs=True)["cuda_graphs"] is True
    monkeypatch.chdir(tmp_path)
    words = ("train.epochs=1", "train.warmup_epochs=0", "model.depths=[1,1,1,1]", "model.dims=[8,8,16,16]")
    line = gpu.table("digits", 1, *words, experiment="pooling_size")
    assert line["seconds"] > 1  # type: ignore[operator]
    with pytest.raises(RuntimeError, match="ended with 2"):
        gpu.table("digits", 1, "train.epochs=none", experiment="pooling_size")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"gpu": "as it was"}))
    monkeypatch.setattr(command, "RESULTS", results)
    monkeypatch.setattr("sys.argv", ["benchmarks", "gpu", "cifar10"])
    command.main()
    assert capsys.readouterr().out == "gpu: not measured: no GPU\ncifar10: not measured: no GPU\n"
    assert json.loads(results.read_text()) == {"gpu": "as it was"}
