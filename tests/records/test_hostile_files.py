"""Files of a results folder that somebody else wrote: one bad one is named and left out, and ends no command."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from specs import fake_record, seal

from metaformer_ablate.analysis.report.spec_runs import read_variants
from metaformer_ablate.analysis.tables.table import build_table
from metaformer_ablate.cli.options import warn_problems
from metaformer_ablate.cost.cost import _cache_path, cached_cost
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.claims import ClaimOwner, Claims
from metaformer_ablate.records.store import Store
from metaformer_ablate.settings.typed_files import read_json
from metaformer_ablate.spec.plan import Plan, plan
from metaformer_ablate.sweep.scheduler import SIGN_SECONDS, active_sweeps
from metaformer_ablate.system.cache import cache_dir
from metaformer_ablate.system.processes import of_this_process

Ablate = Callable[..., Result]

DEEP = "[" * 100_000 + "]" * 100_000
# Whole files that are no record, claim, sign or cache.
TEXTS: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "an infinite number": b'{"a": 1e999}',
    "not a number": b'{"a": NaN}',
    "a number of 5,000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "nested deeply": DEEP.encode(),
    "nested less deeply": b'{"a":' * 900 + b"1" + b"}" * 900,
    "half a surrogate pair": b'{"a": "\\ud800"}',
    "no UTF-8": b'{"a": "\xed\xa0\x80"}',
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
    "too large": b'{"a": "' + b"x" * 2**20 + b'"}',
}
# Not files: each makes something of a kind at a path.
KINDS: dict[str, Callable[[Path], Any]] = {
    "a folder": Path.mkdir,
    "a FIFO": os.mkfifo,
    "a device without end": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
}


def put(path: Path, name: str) -> None:
    """Makes the named odd thing at a path."""
    with suppress(FileNotFoundError):
        path.unlink()
    if name in TEXTS:
        path.write_bytes(TEXTS[name])
    else:
        KINDS[name](path)


@pytest.fixture(autouse=True)
def _no_waiting() -> Any:
    """Reading any of these takes no time; a reader that hangs fails here and not in CI's limit."""
    import signal

    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(300)
    yield
    signal.alarm(0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two good records of pool3 and two of pool5."""
    store, chosen = Store(tmp_path / "results"), plan("pooling_size")
    for seed in (0, 1):
        fake_record(store, chosen.spec("pool3", seed), 96.0 + seed)
        fake_record(store, chosen.spec("pool5", seed), 95.0 + seed)
    return store


@pytest.fixture
def bad(store: Store) -> Path:
    """The folder of the record that goes bad."""
    return store.folder(plan("pooling_size").spec("pool5", 1).run_id)


@cache
def _planned() -> Plan:
    return plan("pooling_size")


def read_all(results: Path) -> tuple[Store, dict[str, Any]]:
    """What the commands that read a whole folder do, in this process."""
    store, folder = Store(results), DataFolder.choose(None)
    chosen = _planned()
    store.counts()
    store.frame()
    table = build_table(chosen, store, folder, (0, 1), images=True)
    json.dumps(table.to_json(), allow_nan=False)
    read_variants({record.run_id: record for record in store}, store)
    Claims(results).held()
    active_sweeps(store)
    return store, {row["name"]: row for row in table.to_json()["rows"]}


# ---------------------------------------------------------------------------------------------------------------------
# Records


@pytest.mark.parametrize("name", [*TEXTS, *KINDS])
@pytest.mark.parametrize("file", ["record.json", "spec.yaml", "history.csv", "predictions.npz"])
def test_a_file_that_is_none_is_named_and_its_record_left_out(file: str, name: str, store: Store, bad: Path) -> None:
    put(bad / file, name)
    found, rows = read_all(store.path)
    assert (rows["pool3"]["n"], rows["pool5"]["n"]) == (2, 1)
    if name != "a link to nothing" or file != "record.json":
        assert file in found.problems[bad.name]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "git as text": ({"git": "c551ee6"}, "git"),
    "a commit that is a number": ({"git": {"commit": 7, "dirty": False}}, "git.commit"),
    "dirty as text": ({"git": {"commit": None, "dirty": "no"}}, "git.dirty"),
    "versions as a list": ({"versions": ["torch"]}, "versions"),
    "a version that is a number": ({"versions": {"torch": 2.1}}, "versions.torch"),
    "parameters as text": ({"params": "119000"}, "params"),
    "fewer parameters than none": ({"params": -1}, "params"),
    "a whole universe of MACs": ({"macs": 10**400}, "macs"),
    "MACs that are true": ({"macs": True}, "macs"),
    "MACs as a list": ({"macs_224": [1]}, "macs_224"),
    "seconds as text": ({"seconds": "12"}, "seconds"),
    "no seconds": ({"seconds": None}, "seconds"),
    "seconds of ages": ({"seconds": 10**400}, "seconds"),
    "a device that is a mapping": ({"device": {"name": "CPU"}}, "device"),
    "images that are half": ({"images_seen": 0.5}, "images_seen"),
    "epochs as text": ({"epochs": "2"}, "epochs"),
    "a loss that is none": ({"metrics": {"top1": 95.0, "top5": 99.0, "loss": "low"}}, "metrics.loss"),
    "uncounted as a list": ({"uncounted": []}, "uncounted"),
    "classes as a text": ({"classes": "cat"}, "classes"),
    "at chance, perhaps": ({"at_chance": "perhaps"}, "at_chance"),
    "unreadable as a number": ({"unreadable": {"train": 3}}, "unreadable.train"),
    "a reason that is a list": ({"reason": ["x"]}, "reason"),
    "a fingerprint that is a number": ({"data_fingerprint": 1}, "data_fingerprint"),
    "a device without end": ({"device": "x" * 200_000}, "device"),
    "kernels as a list": ({"kernels": ["torch"]}, "kernels"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_field_of_another_type_is_named_and_its_record_left_out(name: str, store: Store, bad: Path) -> None:
    changes, field = WRONG[name]
    seal(bad, **changes)
    found, rows = read_all(store.path)
    assert (rows["pool3"]["n"], rows["pool5"]["n"]) == (2, 1)
    assert f"record.json: {field}" in found.problems[bad.name]


HISTORY = "epoch,step,lr,train_loss,val_loss,val_top1,val_top5,seconds\n"
CONTENTS: dict[str, tuple[str, bytes]] = {
    "a history of text": ("history.csv", (HISTORY + "a,b,c,d,e,f,g,h\n").encode()),
    "a history with an infinite loss": ("history.csv", (HISTORY + "1,1,1,inf,1,1,1,1\n").encode()),
    "a history of other columns": ("history.csv", b"epoch\n1\n"),
    "a history with short lines": ("history.csv", (HISTORY + "1,2\n").encode()),
    "an empty history": ("history.csv", b""),
    "predictions that are no archive": ("predictions.npz", b"PK\x03\x04"),
    "a spec that is a list": ("spec.yaml", b"[1, 2]\n"),
    "a spec of nothing": ("spec.yaml", b""),
    "a spec of words": ("spec.yaml", b"seed: zero\nmodel: s12\n"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_sealed_record_with_odd_files_ends_no_command(name: str, ablate: Ablate, store: Store, bad: Path) -> None:
    file, content = CONTENTS[name]
    (bad / file).write_bytes(content)
    seal(bad)
    read_all(store.path)
    for words in (["table", "pooling_size", "--images"], ["table", "pooling_size", "--runs"], ["status"]):
        done = ablate(*words)
        assert done.code == 0 and "Traceback" not in done.err, (words, done.err)
    done = ablate("plot", "pooling_size", "--kind", "curves")
    assert "Traceback" not in done.err
    done = ablate("errors", bad.name)
    assert "Traceback" not in done.err


def test_records_with_odd_files_end_no_report(ablate: Ablate, store: Store) -> None:
    """All of them in one page, which takes many seconds."""
    for seed, (file, content) in enumerate(CONTENTS.values()):
        spec = plan("pooling_size").spec("pool7", seed)
        fake_record(store, spec, 95.0)
        (store.folder(spec.run_id) / file).write_bytes(content)
        seal(store.folder(spec.run_id))
    done = ablate("report")
    assert done.code == 0 and "Traceback" not in done.err, done.err


# ---------------------------------------------------------------------------------------------------------------------
# Claims, signs and caches


@pytest.mark.parametrize("name", [*TEXTS, *KINDS])
def test_what_is_no_claim_holds_its_run_until_the_lease_is_over(name: str, store: Store, bad: Path) -> None:
    claims = Claims(store.path, lease=0.0)
    claims.folder.mkdir()
    put(claims.folder / f"{bad.name}.3", name)
    for odd in (f"{bad.name}.007", f"{bad.name}.{'9' * 40}", f"{bad.name}.\u0663"):
        (claims.folder / odd).write_text("{}")
    read_all(store.path)
    top = claims.current(bad.name)
    if top is None:
        assert name == "a link to nothing"
    else:
        assert (top.generation, top.host) == (3, "an unknown host")
        assert not claims.is_dead(top)
        time.sleep(0.01)
    claim = claims.take(bad.name)
    assert claim is not None and claim.holds()
    claim.release()
    assert claims.take("0" * 12) is not None


@pytest.mark.parametrize(
    "changes", [{"beat": "1"}, {"pid": -1}, {"pid": 10**30}, {"progress": 5}, {"progress": {"epoch": 1}}, {"host": 1}]
)
def test_a_claim_with_fields_of_other_types(changes: dict[str, Any], store: Store, bad: Path, ablate: Ablate) -> None:
    claims = Claims(store.path)
    claims.folder.mkdir()
    whole = {**of_this_process(), "token": "t", "beat": 0, "name": "", "progress": None}
    (claims.folder / f"{bad.name}.0").write_text(json.dumps(whole))
    assert isinstance(claims.current(bad.name), ClaimOwner) and claims.current(bad.name).token == "t"
    (claims.folder / f"{bad.name}.0").write_text(json.dumps(whole | changes))
    assert claims.current(bad.name).host == "an unknown host"
    done = ablate("status")
    assert done.code == 0 and "an unknown host" in done.out


def sign(folder: Path, **changes: Any) -> Path:
    path = folder / ".claims" / f"sweep-{changes.get('host', 'here')}-1.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {**of_this_process(), "since": "now", "finished": 1, "failed": 0, "running": 1, "left": 3}
    path.write_text(json.dumps(whole | changes))
    return path


@pytest.mark.parametrize("name", [*TEXTS, *KINDS])
def test_what_is_no_sign_of_a_sweep_is_left_out_and_named(name: str, store: Store, ablate: Ablate) -> None:
    good, odd = sign(store.path), store.path / ".claims" / "sweep-odd-1.json"
    put(odd, name)
    assert [found["left"] for found in active_sweeps(store)] == [3]
    assert odd.name in store.problems or name == "a link to nothing"
    assert ablate("status").code == 0
    assert good.exists()


def test_signs_of_dead_sweeps_are_removed(store: Store) -> None:
    alive = sign(store.path)
    gone = sign(store.path, host="gone", started="long ago")
    elsewhere = sign(store.path, host="elsewhere", machine="another", started="then")
    silent = sign(store.path, host="silent", machine="another", started="then")
    before = time.time() - SIGN_SECONDS - 60
    os.utime(silent, (before, before))
    assert sorted(found["host"] for found in active_sweeps(store)) == sorted([socket.gethostname(), "elsewhere"])
    assert [path.exists() for path in (alive, gone, elsewhere, silent)] == [True, False, True, False]
    assert store.problems == {}


@pytest.mark.parametrize("name", [*TEXTS, *KINDS])
def test_what_is_no_cache_counts_for_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    spec, folder = plan("pooling_size").spec("pool3", 0), DataFolder.choose(None)
    right = folder.fingerprint("digits")
    put(cache_dir() / "fingerprints.json", name)
    assert folder.fingerprint("digits") == right
    _cache_path(spec, None).parent.mkdir()
    put(_cache_path(spec, None), name)
    assert cached_cost(spec) is None


def test_counts_of_other_types_count_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    spec = plan("pooling_size").spec("pool3", 0)
    whole = dict.fromkeys("params layer_scale_params frozen_params macs activations".split(), 1)
    whole |= {"pooling_additions": 1, "pooling_bytes": 1, "macs_by_operator": {"conv": 1}, "uncounted": {}}
    path = _cache_path(spec, None)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(whole))
    found = cached_cost(spec)
    assert found is not None and found.macs_by_operator == {"conv": 1}
    for changes in ({"params": "1"}, {"macs": 1.5}, {"uncounted": []}, {"macs_by_operator": {"conv": None}}):
        path.write_text(json.dumps(whole | changes))
        assert cached_cost(spec) is None


# ---------------------------------------------------------------------------------------------------------------------
# Merge


def test_merge_copies_regular_files_of_records_and_follows_no_link(ablate: Ablate, store: Store, bad: Path) -> None:
    private = store.path.parent / "private.txt"
    private.write_text("a secret")
    theirs = store.path.rename(store.path.parent / "theirs")
    ids = sorted(path.name for path in (theirs / "runs").iterdir())
    good = next(run_id for run_id in ids if run_id != bad.name)
    folder = theirs / "runs" / good
    (folder / "log.txt").symlink_to(private)
    (folder / "notes.txt").write_text("not of a record")
    (folder / "more").mkdir()
    os.mkfifo(folder / "last.ckpt")
    (folder / "final.ckpt").write_bytes(b"weights")
    shutil.move(theirs / "runs" / bad.name / "history.csv", private.parent / "history.csv")
    (theirs / "runs" / bad.name / "history.csv").symlink_to(private.parent / "history.csv")
    (theirs / "runs" / ("0" * 12)).symlink_to(folder)
    done = ablate("merge", "theirs", "--json")
    assert done.code == 1
    assert done.json["brought"] == [run_id for run_id in ids if run_id != bad.name], "the rest comes in"
    assert [Path(path).name for path in done.json["left_out"]] == ["last.ckpt", "log.txt", "more", "notes.txt"]
    ours = Store(store.path)
    assert sorted(path.name for path in ours.folder(good).iterdir()) == [
        "final.ckpt", "history.csv", "predictions.npz", "record.json", "spec.yaml",
    ]  # fmt: skip
    assert not [path for path in store.path.rglob("*") if path.is_symlink()]
    problems = "\n".join(done.json["problems"])
    assert "history.csv" in problems and "a link, which merge does not follow" in problems
    assert sorted(path.name for path in ours.runs.iterdir()) == done.json["brought"], "nothing half-copied stays"


def test_merge_from_a_link_says_what_to_name(ablate: Ablate, store: Store, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "runs").symlink_to(store.runs)
    assert "is a link, which merge does not follow" in ablate("merge", "theirs").sentence


def test_one_odd_record_does_not_stop_a_merge(ablate: Ablate, store: Store, bad: Path, tmp_path: Path) -> None:
    shutil.copytree(store.path, tmp_path / "theirs")
    theirs = tmp_path / "theirs" / "runs" / bad.name
    (theirs / "history.csv").write_text("not,a\nhistory")
    seal(theirs, device="another")
    done = ablate("merge", "theirs", "--json")
    assert len(done.json["there"]) == 3 and any("history.csv" in text for text in done.json["problems"])


# ---------------------------------------------------------------------------------------------------------------------
# What reaches the terminal


def test_a_reason_steers_no_terminal(ablate: Ablate, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    fake_record(store, plan("pooling_size").spec("pool7", 0), status="failed", reason="\x1b]0;owned\x07\x9b31m\u202e")
    shown = ablate("status")
    assert r"\x1b]0;owned\x07\x9b31m\u202e" in shown.out
    store.problems["x"] = "a name\x1b[31m\nand a line"
    warn_problems(store)
    assert capsys.readouterr().err == "warning: a name\\x1b[31m\\nand a line\n"


def test_a_label_steers_no_terminal(ablate: Ablate, tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text(
        'title: "T\\e[31m"\nbaseline: a\nrows:\n  a: {label: "A\\e[2J", set: {}}\n'
        '  b: {label: "B\\u202e", set: {model.pool_size: 5}, notes: ["N\\a"]}\n'
    )
    for words in (["show", "odd.yaml"], ["table", "odd.yaml"], ["explain", "odd.yaml", "b"]):
        done = ablate(*words)
        assert done.code == 0, done.err
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", done.out + done.err), words


# ---------------------------------------------------------------------------------------------------------------------
# Fuzzed

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
CASES = {"max_examples": 200, "deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
MANY = {**CASES, "max_examples": 10_000}


def fuzz(check: Any, *strategies: Any) -> Any:
    """The two tests of a fuzzer: 200 cases, and 10,000 with `-m fuzz`."""
    few = settings(**CASES, derandomize=True)(given(*strategies)(check))
    many = settings(**MANY)(given(*strategies)(check))
    return pytest.mark.parametrize(
        "run", [few, pytest.param(many, marks=(pytest.mark.slow, pytest.mark.fuzz))], ids=["200", "10000"]
    )


@pytest.fixture(scope="module")
def made(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one whole record and its files as they were."""
    folder = tmp_path_factory.mktemp("fuzzed") / "results"
    fake_record(Store(folder), plan("pooling_size").spec("pool3", 0), 96.0)
    return folder


FOLDER: list[Path] = []


def check_record(changes: dict[str, Any]) -> None:
    results = FOLDER[0]
    store = Store(results)
    (run_id,) = store.ids()
    path = store.folder(run_id) / "record.json"
    whole = path.read_bytes()
    try:
        with suppress(ValueError):  # what JSON of finite numbers cannot hold
            seal(path.parent, **changes)
        read_all(results)
    finally:
        path.write_bytes(whole)


KEYS = st.sampled_from(
    "format run_id status reason metrics at_chance params frozen_params macs macs_224 uncounted classes epochs "
    "images_seen seconds device precision compiled kernels cpu unreadable peak_memory_bytes versions git "
    "data_fingerprint started ended task other".split()
)


@fuzz(check_record, st.dictionaries(KEYS, VALUES, min_size=1, max_size=3))
def test_records_of_any_values(run: Callable[[], None], made: Path) -> None:
    FOLDER[:] = [made]
    run()


def check_bytes(file: str, content: bytes) -> None:
    results = FOLDER[0]
    (run_id,) = Store(results).ids()
    folder = results / "runs" / run_id
    whole = {path: path.read_bytes() for path in (folder / file, folder / "record.json")}
    try:
        (folder / file).write_bytes(content)
        if file != "record.json":
            seal(folder)
        read_all(results)
        record = Store(results).read(run_id)
        for part in (record.spec, record.history, record.predictions) if record else ():
            with suppress(RequestError):
                part()
    finally:
        for path, before in whole.items():
            path.write_bytes(before)


FILES = st.sampled_from(["record.json", "spec.yaml", "history.csv", "predictions.npz"])
CONTENT = st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass"))


@fuzz(check_bytes, FILES, CONTENT)
def test_records_of_any_bytes(run: Callable[[], None], made: Path) -> None:
    FOLDER[:] = [made]
    run()


def check_claims(content: bytes, changes: dict[str, Any]) -> None:
    results = FOLDER[0]
    (run_id,) = Store(results).ids()
    folder = results / ".claims"
    folder.mkdir(exist_ok=True)
    whole = {**of_this_process(), "token": "t", "beat": 0, "name": "", "progress": None} | changes
    whole |= {"since": "now", "finished": 1, "failed": 0, "running": 1, "left": 3} | changes
    for text in (content, json.dumps(whole).encode()):
        (folder / f"{run_id}.0").write_bytes(text)
        (folder / "sweep-x-1.json").write_bytes(text)
        claims = Claims(results)
        for holder in claims.held().values():
            assert claims.is_dead(holder) in (True, False)
        json.dumps(active_sweeps(Store(results)))


CLAIM_KEYS = st.sampled_from(
    "token beat name progress host machine pid parent started since finished failed running left".split()
)


@fuzz(check_claims, CONTENT, st.dictionaries(CLAIM_KEYS, VALUES, min_size=1, max_size=3))
def test_claims_and_signs_of_any_values(run: Callable[[], None], made: Path) -> None:
    FOLDER[:] = [made]
    run()


def check_json(content: bytes) -> None:
    path = FOLDER[0].parent / "any.json"
    path.write_bytes(content)
    with suppress(ValueError):
        json.dumps(read_json(path), allow_nan=False, ensure_ascii=False).encode()


@fuzz(check_json, CONTENT | VALUES.map(lambda value: json.dumps(value).encode()))
def test_json_of_any_bytes(run: Callable[[], None], made: Path) -> None:
    FOLDER[:] = [made]
    run()
