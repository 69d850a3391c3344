"""A run's weights, checked against its record, and what is asked of them: probes and Grad-CAM."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from kept_runs import CPU, FOLDER, changed, digits_spec, keep, net_of, save
from scipy.ndimage import gaussian_filter
from specs import build_net, spec_of
from torch import Tensor

from metaformer_ablate.data.datasets import DATASETS
from metaformer_ablate.errors import NotAvailable, RequestError
from metaformer_ablate.models.components import MIXERS
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.system.devices import device_name
from metaformer_ablate.tasks.classification.data.augment import Augment
from metaformer_ablate.tasks.classification.data.in_memory import InMemoryData, load_images
from metaformer_ablate.tasks.classification.error_analysis.comparison import comparison
from metaformer_ablate.tasks.classification.error_analysis.gradcam import choose_layer, gradcam, maps_of
from metaformer_ablate.tasks.classification.error_analysis.probes import PROBES, background, curve, examples
from metaformer_ablate.tasks.classification.error_analysis.summary import PROBE_NAMES, summary
from metaformer_ablate.tasks.classification.trained import TrainedRun
from metaformer_ablate.trained.load import load_images_of, load_trained


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> tuple[Store, Record, Record]:
    """Two runs on the digits with their weights: pooling and attention. Only to be read."""
    store = Store(tmp_path_factory.mktemp("kept") / "results")
    return store, keep(store, digits_spec()), keep(store, digits_spec(model__token_mixer="attention"))


def trained_of(record: Record) -> tuple[TrainedRun, InMemoryData]:
    data = load_images_of(record, FOLDER)
    return load_trained(record, data, CPU)[0], data


# ---------------------------------------------------------------------------------------------------------------------
# Weights


def test_weights_that_repeat_the_record(kept):
    _, record, _ = kept
    run, checked = load_trained(record, load_images_of(record, FOLDER), CPU)
    assert checked["images"] == checked["predictions_repeated"] == 355
    assert checked["largest_confidence_difference"] < 1e-2  # points, by another batch size and memory format
    assert not run.net.training and record.value("top1") > 40


@pytest.mark.usefixtures("undrawn")
def test_weights_of_a_real_run(ablate, tiny_words):
    if "--keep-checkpoints" not in ablate("run", "--help").out:
        pytest.skip("`ablate run` has no --keep-checkpoints yet")
    words = ("pooling_size", *tiny_words, "--results", "results")
    assert ablate("run", *words, "--keep-checkpoints").code == 0
    run_id = ablate("table", *words, "--json").json["rows"][0]["runs"][0]["run_id"]
    done = ablate("errors", run_id, "--results", "results", "--gradcam", "--json")
    assert done.code == 0, done.err
    assert done.json["weights"]["predictions_repeated"] == done.json["images"]
    assert done.json["weights"]["largest_confidence_difference"] == 0


@pytest.mark.parametrize("by", [0.05, 10.0, float("nan")])
def test_weights_of_another_net_are_refused(tmp_path, by):
    net = net_of(digits_spec())
    record = keep(Store(tmp_path / "results"), digits_spec(), net)
    save(record, changed(net.state_dict(), by))
    with pytest.raises(NotAvailable, match=r"not the weights of the record: .* a confidence differs by"):
        load_trained(record, load_images_of(record, FOLDER), CPU)


@pytest.mark.usefixtures("undrawn")
def test_the_command_says_that_weights_are_of_another_net(tmp_path, ablate):
    store, net = Store(tmp_path / "results"), net_of(digits_spec())
    record = keep(store, digits_spec(), net)
    save(record, changed(net.state_dict(), 10.0))
    done = ablate("errors", record.run_id, "--results", store.path)
    assert done.code == 0 and "no Grad-CAM and no probes: " in done.err and "not the weights of the record" in done.err
    done = ablate("errors", record.run_id, "--results", store.path, "--probe", "blur", "--json")
    assert done.code == 1 and "not the weights of the record" in done.err
    assert not {"probes", "gradcam", "weights"} & set(done.json)


def test_rounding_of_another_chip_is_no_other_net(tmp_path):
    """What a GPU rounds otherwise may pass where a GPU ran, and not where this chip did."""
    net = net_of(digits_spec())
    slightly = changed(net.state_dict(), 0.02)
    for device, passes in (("another chip", True), (device_name(CPU), False)):
        record = keep(Store(tmp_path / device.replace("/", "")), digits_spec(), net, device=device)
        save(record, slightly)
        if passes:
            _, checked = load_trained(record, load_images_of(record, FOLDER), CPU)
            assert 0.1 < checked["largest_confidence_difference"] <= checked["tolerance"] == 2
        else:
            with pytest.raises(NotAvailable, match=r"allowed: 0\.1"):
                load_trained(record, load_images_of(record, FOLDER), CPU)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.unlink(), "has no weights: train it with `ablate run ... --keep-checkpoints`"),
        (lambda path: path.write_bytes(path.read_bytes()[:1000]), "last.ckpt: cannot be read: "),
        (lambda path: torch.save({"weights": {}}, path), "last.ckpt: cannot be read: 'state_dict'"),
        (lambda path: torch.save({"state_dict": {}}, path), "last.ckpt: not the weights of this model: "),
    ],
)
def test_weights_that_cannot_be_read(tmp_path, spoil, words):
    record = keep(Store(tmp_path / "results"), digits_spec())
    spoil(record.folder / "last.ckpt")
    with pytest.raises(NotAvailable) as raised:
        load_trained(record, load_images_of(record, FOLDER), CPU)
    assert words in str(raised.value) and "\n" not in str(raised.value)


# ---------------------------------------------------------------------------------------------------------------------
# Changes of images


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return torch.randint(0, 256, (8, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_every_probe_has_its_name_where_the_command_looks():
    assert tuple(PROBES) == PROBE_NAMES


@pytest.mark.parametrize("name", PROBES)
def test_what_every_probe_does(name, pictures):
    probe = PROBES[name]
    assert list(probe.severities) == sorted(set(probe.severities)) and probe.clean in probe.severities
    before = pictures.clone()
    for severity in probe.severities:
        shown = probe.change(pictures, severity)
        assert shown.shape == pictures.shape and shown.dtype == torch.uint8
        assert torch.equal(shown, probe.change(pictures, severity))  # noise too
        assert torch.equal(shown, pictures) == (severity == probe.clean), severity
    assert torch.equal(pictures, before)


@pytest.mark.parametrize("name", [name for name in PROBES if name != "noise"])
def test_an_even_picture_stays_even(name):
    """What is uncovered takes the colour of the background, a channel."""
    even = torch.tensor([7, 130, 251], dtype=torch.uint8).view(1, 3, 1, 1).expand(4, 3, 16, 16).contiguous()
    for severity in PROBES[name].severities:
        assert torch.equal(PROBES[name].change(even, severity), even), severity


def test_the_background_is_the_median_of_the_border():
    picture = torch.full((1, 1, 5, 5), 40, dtype=torch.uint8)
    picture[0, 0, 1:4, 1:4] = 255  # not at the border
    picture[0, 0, 0, 1:4] = 200  # 3 of the 20 values at the border
    assert background(picture).item() == 40


def square(side: int, at: int, length: int) -> Tensor:
    picture = torch.zeros(1, 1, side, side, dtype=torch.uint8)
    picture[0, 0, at : at + length, at : at + length] = 200
    return picture


def test_scale_by_hand():
    half = PROBES["scale"].change(square(24, 8, 8), 0.5)  # 8 pixels of 24 become 4, in the middle
    assert torch.equal(half[0, 0, 11:13, 11:13], torch.full((2, 2), 200, dtype=torch.uint8))
    assert half[0, 0, :9].max() == 0 and half[0, 0, 15:].max() == 0
    assert half.sum() == pytest.approx(200 * 16, rel=0.02)  # a quarter of 64 pixels
    double = PROBES["scale"].change(square(24, 8, 8), 2.0)
    assert double.sum() == pytest.approx(200 * 256, rel=0.02) and double[0, 0, 12, 12] == 200
    assert double[0, 0, 0].max() == 0


def test_crop_by_hand():
    kept = PROBES["crop"].change(square(10, 0, 10), 0.6)
    assert torch.equal(kept, square(10, 0, 10))  # its border is its background
    picture = square(10, 1, 8)
    assert torch.equal(PROBES["crop"].change(picture, 0.6), square(10, 2, 6))


def test_shift_by_hand():
    four = square(10, 4, 2).repeat(4, 1, 1, 1)
    moved = PROBES["shift"].change(four, 0.3)[:, 0]
    corners = [tuple(picture.nonzero()[0].tolist()) for picture in moved]  # (row, column)
    assert corners == [(4, 7), (7, 4), (4, 1), (1, 4)]
    assert (moved.flatten(1) > 0).sum(1).tolist() == [4] * 4


def test_rotate_is_a_turn_of_the_array(pictures):
    turned = PROBES["rotate"].change(pictures, 90)
    assert torch.equal(turned[0::2], pictures[0::2].rot90(1, (2, 3)))
    assert torch.equal(turned[1::2], pictures[1::2].rot90(-1, (2, 3)))


def test_blur_is_scipys(pictures):
    shown = PROBES["blur"].change(pictures, 5.0).float().numpy()  # 2.4 pixels
    theirs = gaussian_filter(pictures.float().numpy(), sigma=(0, 0, 2.4, 2.4), mode="mirror", radius=(0, 0, 8, 8))
    assert np.abs(shown - theirs).max() <= 0.51


def test_noise_has_its_deviation():
    grey = torch.full((50, 1, 20, 20), 128, dtype=torch.uint8)
    added = PROBES["noise"].change(grey, 10.0).float() - 128
    assert added.std().item() == pytest.approx(25.5, rel=0.02) and abs(added.mean().item()) < 0.5


def test_resolution_loses_what_scale_loses(pictures):
    """Small and large again is small, but for the frame."""
    small = PROBES["scale"].change(pictures, 0.5)[:, :, 12:36, 12:36]
    again = PROBES["resolution"].change(pictures, 0.5)
    assert again.float().std() < pictures.float().std() / 1.5
    assert again.float().mean() == pytest.approx(small.float().mean().item(), rel=0.01)


# ---------------------------------------------------------------------------------------------------------------------
# Curves


def test_the_clean_point_of_a_curve_is_the_record(kept):
    _, record, _ = kept
    whole = summary(record)
    found = curve("shift", [trained_of(record)])
    (clean,) = [p for p in found["runs"][0]["points"] if p["severity"] == found["clean"]]
    assert (clean["correct"], clean["images"], clean["ci95"]) == (whole["correct"], 355, whole["ci95"])
    assert [c["correct"] for c in clean["classes"]] == [c["correct"] for c in whole["classes"]]
    for point in found["runs"][0]["points"]:
        assert point["correct"] == sum(c["correct"] for c in point["classes"])
    assert found["against"] is None and found["runs"][0]["points"][-1]["accuracy"] < clean["accuracy"] - 10


def test_a_curve_of_two_runs_is_paired(kept):
    _, record, other = kept
    found = curve("blur", [trained_of(record), trained_of(other)])
    clean = found["against"][0]
    told = comparison(record, other)
    assert (clean["only_first"], clean["only_second"]) == (told["only_first"], told["only_second"])
    for point, first, second in zip(found["against"], *(run["points"] for run in found["runs"]), strict=True):
        assert point["only_first"] - point["only_second"] == first["correct"] - second["correct"]
    # Holm: the smallest p is that of its test times the number of severities
    smallest = min(p["p"] for p in found["against"])
    from scipy.stats import binomtest

    raw = min(
        binomtest(p["only_first"], p["only_first"] + p["only_second"]).pvalue
        for p in found["against"]
        if p["only_first"] + p["only_second"]
    )
    assert smallest == pytest.approx(min(1.0, raw * len(found["against"])))


def test_examples_are_what_the_model_was_shown(pictures):
    shown = examples("scale", pictures[:1])
    assert [severity for severity, _ in shown] == list(PROBES["scale"].severities)
    assert np.array_equal(dict(shown)[2.0], PROBES["scale"].change(pictures[:1], 2.0).numpy())


# ---------------------------------------------------------------------------------------------------------------------
# Grad-CAM


def by_hand(run: TrainedRun, layer: str, images: Tensor, targets: list[int]) -> Tensor:
    """Selvaraju et al., equations 1 and 2, an image at a time."""
    maps = []
    for image, target in zip(images, targets, strict=True):
        kept: list[Tensor] = []

        def hook(module: Any, given: Any, output: Tensor, kept: list[Tensor] = kept) -> None:
            output.retain_grad()
            kept.append(output)

        handle = run.net.get_submodule(layer).register_forward_hook(hook)
        run.net(run.augment.normalise(image[None]))[0, target].backward()
        handle.remove()
        (features,) = kept
        assert features.grad is not None
        weights = features.grad[0].sum((1, 2)) / features[0, 0].numel()
        maps.append((weights[:, None, None] * features[0]).sum(0).clamp(min=0).detach())
    return torch.stack(maps)


@pytest.mark.parametrize("mixer", MIXERS)
def test_gradcam_of_every_mixer_is_that_worked_out_by_hand(mixer):
    spec = digits_spec(model__token_mixer=mixer)
    data = load_images(spec.data, FOLDER)
    augment = Augment(spec.data, 10, data.mean, data.std, spec.train.memory_format)
    run = TrainedRun(None, spec, build_net(spec).eval(), CPU, augment=augment)
    images, targets = data.evaluation.images[:5], [3, 1, 4, 1, 5]
    found = gradcam(run, "stages.2", images, targets)
    theirs = by_hand(run, "stages.2", images, targets)
    assert found.shape == (5, 4, 4) and theirs.max() > 0
    assert torch.allclose(found, theirs, rtol=1e-4, atol=1e-6 * float(theirs.max()))


def test_the_layer_is_the_last_that_can_point_at_something(kept):
    _, record, _ = kept
    run, data = trained_of(record)
    maps = maps_of(run, data.at([0, 1]))
    assert maps == {"stages.0": (16, 16), "stages.1": (8, 8), "stages.2": (4, 4), "stages.3": (2, 2)}
    assert choose_layer(maps, None) == "stages.2" and choose_layer(maps, "stages.3") == "stages.3"
    assert choose_layer({"stages.0": (3, 3), "stages.1": (2, 2)}, None) == "stages.0"
    with pytest.raises(RequestError, match=r"--layer: unknown layer 'stages\.4' \(did you mean 'stages\.\d'\?\)"):
        choose_layer(maps, "stages.4")
    with pytest.raises(NotAvailable, match="no stage of this model gives a map"):
        choose_layer({}, None)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"model.timm": "resnet18", "data.image_size": 64}, {"layer1", "layer2", "layer3", "layer4"}),
        ({"model.comparator": "pvt_tiny", "data.image_size": 64}, {"stages.0", "stages.1", "stages.2"}),
        ({"model.timm": "deit_tiny_patch16_224", "data.image_size": 64}, set()),
        ({"model.comparator": "swin_mixer_t_d6", "data.image_size": 128}, set()),
    ],
)
def test_maps_of_comparators(settings, expected):
    """Convolutional networks and pyramids have maps [B, C, H, W]; tokens and [B, H, W, C] are not taken for them."""
    spec = spec_of({**settings, "model.drop_path": 0.0})
    net = build_net(spec).eval()
    augment = Augment(spec.data, 10, (0.5,), (0.5,), "contiguous")
    run = TrainedRun(None, spec, net, CPU, augment=augment)
    images = torch.randint(0, 256, (1, 1, spec.data.image_size, spec.data.image_size), dtype=torch.uint8)
    maps = maps_of(run, images)
    assert {name for name in maps if name != "act1"} == expected
    if expected:
        layer = choose_layer(maps, None)
        assert torch.allclose(gradcam(run, layer, images, [2]), by_hand(run, layer, images, [2]), rtol=1e-3, atol=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# The command


@pytest.mark.slow
def test_everything_at_once_and_the_same_bytes_again(kept, ablate, tmp_path):
    store, record, other = kept
    words = (
        "errors",
        record.run_id,
        "--against",
        other.run_id,
        "--probe",
        "crop",
        "--gradcam",
        "--results",
        store.path,
    )
    done = ablate(*words, "--json", "--out", "one")
    assert done.code == 0, done.err
    assert ablate(*words, "--out", "two").code == 0
    one, two = ({p.name: p.read_bytes() for p in sorted((tmp_path / name).iterdir())} for name in ("one", "two"))
    assert one == two
    figures = "confusion classes calibration against mistakes only_first only_second object_size gradcam probe_crop"
    assert done.json["figures"] == [f"{name}.png" for name in figures.split()]
    assert set(one) == {"errors.json", *done.json["figures"]}
    run, data = trained_of(record)
    cam = done.json["gradcam"]
    assert (cam["layer"], cam["map"]) == ("stages.2", [4, 4]) and len(cam["mistakes"]) == 12
    first = cam["mistakes"][0]
    theirs = by_hand(run, "stages.2", data.at([first["index"]]), [first["predicted"]])[0]
    assert np.allclose(first["map_predicted"], theirs.numpy(), rtol=1e-4, atol=1e-6 * float(theirs.max()))
    assert first["label"] == data.labels[first["index"]]
    assert [line["images"] for line in done.json["object_size"]] == pytest.approx([71] * 5, abs=5)
    assert len(done.json["probes"]["crop"]["runs"]) == 2


@pytest.mark.usefixtures("undrawn")
def test_a_probe_of_two_runs_of_which_one_has_no_weights(ablate, tmp_path):
    store = Store(tmp_path / "results")
    first = keep(store, digits_spec())
    second = keep(store, digits_spec(train__lr=0.01))
    (second.folder / "last.ckpt").unlink()
    done = ablate(
        "errors", first.run_id, "--against", second.run_id, "--probe", "crop", "--results", store.path, "--json"
    )
    assert done.code == 1 and f"no probes of run {second.run_id}" in done.err
    assert len(done.json["probes"]["crop"]["runs"]) == 1


@pytest.mark.usefixtures("undrawn")
def test_a_wrong_layer_is_refused(kept, ablate):
    store, record, _ = kept
    done = ablate("errors", record.run_id, "--results", store.path, "--layer", "stages.9")
    assert done.code == 2 and "--layer: unknown layer 'stages.9'" in done.err


@pytest.mark.usefixtures("undrawn")
def test_without_captum_the_rest_works(kept, ablate, monkeypatch):
    import sys

    store, record, _ = kept
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    done = ablate("errors", record.run_id, "--results", store.path, "--json")
    assert done.code == 0 and "no Grad-CAM: Grad-CAM needs captum: pip install 'metaformer-ablate[errors]'" in done.err
    assert "weights" in done.json and "gradcam" not in done.json
    assert ablate("errors", record.run_id, "--results", store.path, "--gradcam").code == 1


def test_catalogue_says_where_size_can_be_measured():
    assert {name for name, facts in DATASETS.items() if facts.plain_background} == {"digits", "fashion_mnist"}
