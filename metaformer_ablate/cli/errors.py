"""`ablate errors`: what a trained model gets wrong, in numbers and pictures."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any

import click

from metaformer_ablate.cli.options import folder_of, options, store_of
from metaformer_ablate.errors import RequestError

if TYPE_CHECKING:
    from metaformer_ablate.data.folder import DataFolder
    from metaformer_ablate.records.record import Record

logger = logging.getLogger(__name__)


CAM_MISTAKES = 12


@click.command("errors")
@click.argument("run")
@click.option("--against", metavar="RUN", help="Another run on the same images: what one gets right, the other wrong.")
@click.option(
    "--probe",
    "probes",
    multiple=True,
    metavar="NAME",
    help="Accuracy as the images change: scale, resolution, crop, shift, rotate, blur, noise. Needs weights.",
)
@click.option("--gradcam", is_flag=True, help="Insist on Grad-CAM, which is drawn anyway where there are weights.")
@click.option("--layer", metavar="NAME", help="Layer for Grad-CAM (default: the last of 4 x 4 positions or more).")
@click.option("--out", metavar="DIR", help="Folder for errors.json and the figures (default: errors-RUN).")
@options("results", "data", "device", "json")
def errors_command(
    run: str,
    against: str | None,
    probes: tuple[str, ...],
    gradcam: bool,
    layer: str | None,
    out: str | None,
    results: str | None,
    data: str | None,
    device: str,
    as_json: bool,
) -> int:
    """What a trained model gets wrong: confusion, calibration, the worst mistakes as pictures, Grad-CAM, probes.

    Numbers come from the record alone. Pictures need the data set, Grad-CAM and probes the weights too, which training
    with --keep-checkpoints leaves. What is missing is said; the exit code is 1 where it was asked for (--probe,
    --gradcam, --layer).
    """
    from metaformer_ablate.data.datasets import DATASETS
    from metaformer_ablate.data.folder import DataFolder
    from metaformer_ablate.tasks.classification.error_analysis import figures as error_figures
    from metaformer_ablate.tasks.classification.error_analysis import image_sheets
    from metaformer_ablate.tasks.classification.error_analysis.accuracy import by_object_size
    from metaformer_ablate.tasks.classification.error_analysis.comparison import comparison
    from metaformer_ablate.tasks.classification.error_analysis.summary import summary
    from metaformer_ablate.tasks.classification.error_analysis.text import describe
    from metaformer_ablate.tasks.classification.predictions import read_predictions

    _check_probes(probes)
    store = store_of(results)
    record = store.find(run)
    other = store.find(against) if against is not None else None
    result = summary(record)
    if other is not None:
        result["against"] = comparison(record, other)
    target = folder_of(out or f"errors-{record.run_id}")
    figures = error_figures.figures(result)
    if other is not None:
        figures["against"] = error_figures.against_classes(result)
    folder = DataFolder.choose(data)
    complete = True
    images = _images(record, folder)
    if isinstance(images, str):
        logger.info(f"no pictures: {images}")
        complete = not (probes or gradcam or layer)
    else:
        pixels = images.evaluation.images.numpy()  # [N, C, H, W]
        if result["mistakes"]:
            figures["mistakes"] = image_sheets.mistakes(result, pixels)
        if other is not None:
            figures |= image_sheets.against_sheets(result["against"], pixels)
        if DATASETS[result["dataset"]].plain_background:
            labels, predicted, _ = read_predictions(record)
            result["object_size"] = by_object_size(pixels.transpose(0, 2, 3, 1), labels, predicted == labels)
            figures["object_size"] = error_figures.object_size(result["object_size"], result)
        complete = _with_weights(record, other, folder, images, result, figures, probes, gradcam, layer, device)
    for warning in result["warnings"]:
        logger.warning(warning)
    result["figures"] = [f"{name}.png" for name in figures]
    text = _json(result)
    for name, figure in figures.items():
        (target / f"{name}.png").write_bytes(error_figures.to_png(figure))
    (target / "errors.json").write_text(text, encoding="utf-8")
    click.echo(text if as_json else describe(result), nl=False)
    logger.info(f"{target}: errors.json and {len(figures)} figures ({', '.join(figures)})")
    return 0 if complete else 1


def _check_probes(probes: tuple[str, ...]) -> None:
    from metaformer_ablate.errors import unknown
    from metaformer_ablate.tasks.classification.error_analysis.summary import PROBE_NAMES

    for name in probes:
        if name not in PROBE_NAMES:
            raise RequestError(f"--probe: {unknown('probe', name, PROBE_NAMES)}")


def _images(record: Record, folder: DataFolder) -> Any:
    """The images of a run, or a sentence that says why they are not at hand."""
    from metaformer_ablate.trained.load import NotAvailable, load_images_of

    try:
        return load_images_of(record, folder)
    except NotAvailable as error:
        return str(error)


def _with_weights(
    record: Record,
    other: Record | None,
    folder: DataFolder,
    images: Any,
    result: dict[str, Any],
    figures: dict[str, Any],
    probes: tuple[str, ...],
    gradcam: bool,
    layer: str | None,
    device: str,
) -> bool:
    """Adds Grad-CAM and probes to a result and its figures; says what lacks. False where that was asked for."""
    from metaformer_ablate.records.checkpoints import LAST
    from metaformer_ablate.trained.load import NotAvailable, load_images_of, load_trained

    asked_cam = gradcam or layer is not None
    if not (record.folder / LAST).is_file() and not (probes or asked_cam):
        logger.info(f"no Grad-CAM: run {record.run_id} has no weights; `ablate run ... --keep-checkpoints` keeps them")
        return True
    complete = True
    try:
        from metaformer_ablate.system.devices import choose_device

        chosen = choose_device(device)
        trained, result["weights"] = load_trained(record, images, chosen)
    except NotAvailable as error:
        logger.info(f"no Grad-CAM and no probes: {error}")
        return not (probes or asked_cam)
    if result["mistakes"]:
        try:
            _add_gradcam(trained, images, layer, result, figures)
        except NotAvailable as error:
            logger.info(f"no Grad-CAM: {error}")
            complete = not asked_cam
    if not probes:
        return complete
    runs = [(trained, images)]
    if other is not None:
        try:
            images_of_other = images if _same_size(record, other) else load_images_of(other, folder)
            other_trained, result["against"]["weights"] = load_trained(other, images_of_other, chosen)
            runs.append((other_trained, images_of_other))
        except NotAvailable as error:
            logger.info(f"probes without run {other.run_id}: {error}")
            complete = False
    _add_probes(runs, probes, result, figures)
    return complete


def _same_size(record: Record, other: Record) -> bool:
    return record.spec()["data"]["image_size"] == other.spec()["data"]["image_size"]


def _add_gradcam(trained: Any, images: Any, layer: str | None, result: dict[str, Any], figures: dict[str, Any]) -> None:
    from metaformer_ablate.tasks.classification.error_analysis import image_sheets
    from metaformer_ablate.tasks.classification.error_analysis.gradcam import choose_layer, gradcam, maps_of

    lines = result["mistakes"][:CAM_MISTAKES]
    chosen = images.evaluation.images[[line["index"] for line in lines]]
    maps = maps_of(trained, chosen)
    name = choose_layer(maps, layer)
    heat = {
        key: gradcam(trained, name, chosen, [line[key] for line in lines]).numpy() for key in ("predicted", "label")
    }
    result["gradcam"] = {
        "layer": name,
        "map": list(maps[name]),
        "layers": {key: list(size) for key, size in maps.items()},
        "mistakes": [{**line, **{f"map_{key}": heat[key][i].tolist() for key in heat}} for i, line in enumerate(lines)],
    }
    figures["gradcam"] = image_sheets.gradcam(result, result["gradcam"], chosen.numpy(), heat)


def _add_probes(runs: list[Any], probes: tuple[str, ...], result: dict[str, Any], figures: dict[str, Any]) -> None:
    from metaformer_ablate.tasks.classification.error_analysis import image_sheets
    from metaformer_ablate.tasks.classification.error_analysis.probes import PROBES, curve, examples

    result["probes"] = {}
    where = f"{result['dataset']} ({result['split']})"
    for name in dict.fromkeys(probes):
        logger.info(f"probe {name}: {len(PROBES[name].severities)} severities")
        found = curve(name, runs)
        result["probes"][name] = found
        shown = [(s, pictures[0]) for s, pictures in examples(name, runs[0][1].evaluation.images[:1])]
        figures[f"probe_{name}"] = image_sheets.probe(name, found, shown, where)


def _json(result: dict[str, Any]) -> str:
    """JSON with a line a key, but lists of numbers on one line: a confusion matrix reads as one."""
    text = json.dumps(result, indent=1, allow_nan=False, ensure_ascii=False)
    return re.sub(r"\[\s+([-+.\deE,\s]+?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"
