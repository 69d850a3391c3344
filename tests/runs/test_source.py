"""A run that starts from the row's own run under another recipe: one command trains both."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from conftest import call, forget_files
from disturbed import StopAfter, content, make_request, runner

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.checkpoints import LAST
from metaformer_ablate.records.claims import Progress
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs import source as source_module
from metaformer_ablate.runs.options import RunOptions
from metaformer_ablate.runs.worker import execute
from metaformer_ablate.spec.experiment import load_recipe
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.sweep.jobs import plan_jobs
from metaformer_ablate.system.signals import Interrupted, StopRequest
from metaformer_ablate.trained.load import load_net

TINY = """title: Tiny digits
model: {depths: [1, 1, 1, 1], dims: [8, 8, 16, 16], head_dim: 8, drop_path: 0.0,
        stem: {kernel: 3, stride: 1, padding: 1}, downsample: {kernel: 3, stride: 2, padding: 1}}
data: {name: digits, image_size: 8}
train: {epochs: 1, warmup_epochs: 0, batch_size: 64, lr: 2.0e-2, ema: 0.9}
"""


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`first`, and `second`, which starts from it with other training."""
    folder = tmp_path / "experiments" / "recipes"
    folder.mkdir(parents=True)
    (folder / "first.yaml").write_text(TINY)
    (folder / "second.yaml").write_text(
        TINY.replace("model: {", "model: {init_from: 'recipe:first', ").replace("lr: 2.0e-2", "lr: 1.0e-3")
    )
    (folder / "loop.yaml").write_text(TINY.replace("model: {", "model: {init_from: 'recipe:loop', "))
    monkeypatch.chdir(tmp_path)
    forget_files()
    yield tmp_path
    forget_files()


def second(seed: int = 0, row: str = "pool5") -> RunSpec:
    return plan("pooling_size", "second").spec(row, seed)


def test_the_id_holds_the_sources_run_of_the_same_seed(recipes: Path) -> None:
    chosen = plan("pooling_size", "second")
    first = plan("pooling_size", "first")
    for row in ("pool3", "pool5"):
        for seed in (0, 3):
            spec = chosen.spec(row, seed)
            assert spec.source == first.spec(row, seed)
            assert spec.to_dict()["model"]["init_run"] == first.spec(row, seed).run_id
        spec = chosen.specs[row]
        assert list(spec.ids(range(5))) == [spec.with_seed(seed).run_id for seed in range(5)]
    # Overrides are of the outer run; of the source nothing changes.
    over = plan("pooling_size", "second", ["train.lr=2e-3"]).specs["pool5"]
    assert over.source == chosen.specs["pool5"].source and over.run_id != chosen.specs["pool5"].run_id
    # It goes on another machine as it is.
    again = RunSpec.model_validate(spec.with_execution())
    assert again == spec and again.with_seed(3).run_id == spec.with_seed(3).run_id
    assert RunSpec.model_validate(spec.to_dict()).run_id == spec.run_id
    assert "init_run" not in first.specs["pool3"].to_dict()["model"]


def test_one_command_trains_both_and_the_second_begins_where_the_first_ended(recipes: Path) -> None:
    done = call("run", "pooling_size", "--recipe", "second", "--workers", "0", cwd=recipes)
    assert done.code == 0, done.err
    store = Store(recipes / "results")
    assert len(store.ids()) == 8
    source = store.find(second().source.run_id)
    assert (source.folder / LAST).is_file() and source.status == "ok"
    record = store.find(second().run_id)
    assert record.spec()["model"]["init_run"] == source.run_id
    # What it began with are the averaged weights that the source was evaluated with.
    _, trained = load_net(source)
    request = make_request(second(), recipes / "results")
    started = source_module.with_source(request, pytest.fail, StopRequest())
    spec = RunSpec.model_validate(started.spec)
    assert spec.run_id == record.run_id
    from metaformer_ablate.tasks.classification.net import build_net

    begun = build_net(spec).state_dict()
    assert all(torch.equal(begun[name], value) for name, value in trained.state_dict().items())
    # A second call has nothing to do.
    assert "starts" not in call("run", "pooling_size", "--recipe", "second", cwd=recipes).err


def test_a_source_without_weights_is_trained_once_more_and_has_to_repeat_its_record(recipes: Path) -> None:
    results = recipes / "results"
    assert execute(make_request(second(), results), StopRequest()).outcome == "recorded"
    store = Store(results)
    undisturbed, source = store.find(second().run_id), store.find(second().source.run_id)
    before = content(undisturbed)
    (source.folder / LAST).unlink()
    shutil.rmtree(undisturbed.folder)
    assert execute(make_request(second(), results), StopRequest()).outcome == "recorded"
    assert (source.folder / LAST).is_file()
    assert content(store.find(second().run_id)) == before
    assert not [path for path in results.iterdir() if path.name.startswith(".again")]
    # Records of other numbers are not what these weights are of.
    shutil.rmtree(store.folder(second().run_id))
    (source.folder / LAST).unlink()
    data = {**source.data, "metrics": {**source.data["metrics"], "loss": 1.25}}
    del data["checksums"]
    history = [{**line, "val_loss": 1.25} for line in source.history()]
    predictions = source.predictions()
    store.set_aside(source.run_id)
    store.write(second().source, data, history, predictions)
    assert store.read(second().source.run_id) is not None, store.problems
    ended = execute(make_request(second(), results), StopRequest())
    assert ended.outcome == "request" and "did not repeat its record: loss is" in ended.text
    assert "recorded is 1.25" in ended.text


def test_weights_of_the_middle_of_a_source_are_not_those_that_it_ended_with(recipes: Path) -> None:
    """One that was stalled and taken over may have left them there."""
    results = recipes / "results"
    assert execute(make_request(second(), results), StopRequest()).outcome == "recorded"
    store = Store(results)
    source, before = store.find(second().source.run_id), content(store.find(second().run_id))
    ended = (source.folder / LAST).read_bytes()
    with pytest.raises(Interrupted):
        runner(recipes / "other").run(second().source, RunOptions(stop=StopAfter(4)))
    shutil.copy(Store(recipes / "other").folder(source.run_id) / LAST, source.folder / LAST)
    assert (source.folder / LAST).read_bytes() != ended
    shutil.rmtree(store.folder(second().run_id))
    assert execute(make_request(second(), results), StopRequest()).outcome == "recorded"
    assert content(Store(results).find(second().run_id)) == before


def test_a_source_of_other_data_is_trained_anew(recipes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = recipes / "results"
    assert execute(make_request(second(), results), StopRequest()).outcome == "recorded"
    folder = DataFolder.choose(None)
    assert source_module.missing_sources(second(), Store(results), folder) == ()
    monkeypatch.setattr(DataFolder, "fingerprint", lambda self, name, reader=None: "1" * 16)
    assert source_module.missing_sources(second(), Store(results), folder) == (second().source,)
    shutil.rmtree(Store(results).folder(second().run_id))
    assert execute(make_request(second(), results), StopRequest()).outcome == "recorded"
    assert Store(results).find(second().source.run_id).data["data_fingerprint"] == "1" * 16


def test_a_source_that_diverges_fails_the_run_that_starts_from_it(recipes: Path) -> None:
    bad = recipes / "experiments" / "recipes" / "first.yaml"
    bad.write_text(TINY.replace("lr: 2.0e-2", "lr: 1.0e+30"))
    forget_files()
    spec = second()
    assert execute(make_request(spec, recipes / "results"), StopRequest()).outcome == "recorded"
    record = Store(recipes / "results").find(spec.run_id)
    assert record.status == "failed"
    assert f"the run that it starts from, {spec.source.run_id}, has no weights (diverged: " in record.data["reason"]


def test_what_is_to_be_trained_first_is_planned_and_its_data_asked_for(recipes: Path) -> None:
    store, folder = Store(recipes / "results"), DataFolder.choose(None)
    jobs, _ = plan_jobs([plan("pooling_size", "second")], [0], store, folder)
    assert [job.first for job in jobs] == [(job.spec.source,) for job in jobs]
    imagenet = recipes / "experiments" / "recipes" / "second.yaml"
    imagenet.write_text(TINY.replace("model: {", "model: {init_from: 'recipe:imagenet', "))
    forget_files()
    done = call("run", "pooling_size", "--recipe", "second", cwd=recipes)
    assert done.code == 2 and "imagenet is not in" in done.err and "Traceback" not in done.err


def test_requests_that_cannot_be(recipes: Path) -> None:
    with pytest.raises(RequestError, match="which starts from itself: loop -> loop"):
        plan("pooling_size", "loop")
    with pytest.raises(RequestError, match="unknown recipe 'zzz'"):
        plan("pooling_size", "first", ["model.init_from=recipe:zzz"])
    with pytest.raises(RequestError, match="init_run"):
        plan("pooling_size", "first", ["model.init_run=0123456789ab"])
    assert load_recipe("first").name == "first"


def test_the_run_is_reproduced_with_what_it_starts_from(recipes: Path) -> None:
    assert execute(make_request(second(), recipes / "results"), StopRequest()).outcome == "recorded"
    done = call("reproduce", second().run_id, cwd=recipes)
    assert done.code == 0 and "identical" in done.out, done.out + done.err
    Store(recipes / "results").set_aside(second().source.run_id)
    done = call("reproduce", second().run_id, cwd=recipes)
    assert done.code == 2 and "whose record is not beside it" in done.err


@pytest.mark.parametrize("chain", [False, True])
def test_how_far_the_source_is_is_told_apart(recipes: Path, chain: bool) -> None:
    """Of a source that has a source too it only rises as well: a sweep gives up a run whose stops show no progress."""
    told: list[Progress] = []
    third = recipes / "experiments" / "recipes" / "third.yaml"
    third.write_text(TINY.replace("model: {", "model: {init_from: 'recipe:second', "))
    forget_files()
    spec = plan("pooling_size", "third" if chain else "second").spec("pool5", 0)
    assert execute(make_request(spec, recipes / "results"), StopRequest(), told.append).outcome == "recorded"
    of_source = [progress.source_share for progress in told if progress.share == 0]
    own = [progress.share for progress in told if progress.share]
    assert max(of_source) == 1 and of_source == sorted(of_source)
    assert max(own) == 1 and not any(progress.source_share for progress in told if progress.share)
