"""`ablate errors`: what a trained model gets wrong, in numbers and pictures."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metaformer_ablate.cli.completion import complete_runs
from metaformer_ablate.cli.options import examples, folder_of, options, say, store_of
from metaformer_ablate.errors import NotAvailable

if TYPE_CHECKING:
    from metaformer_ablate.data.folder import DataFolder
    from metaformer_ablate.records.record import Record

logger = logging.getLogger(__name__)

LARGEST = 2**27  # bytes of an errors.json: a confusion of thousands of classes


_ERRORS_EXAMPLES = examples(
    "ablate errors 3f2a91",
    "ablate errors 3f2a91 --against 77c0de",
    "ablate errors 3f2a91 --probe scale --probe shift",
)


@click.command("errors", epilog=_ERRORS_EXAMPLES)
@click.argument("run", shell_complete=complete_runs)
@click.option(
    "--against",
    metavar="RUN",
    help="Another run on the same images: what one gets right, the other wrong.",
    shell_complete=complete_runs,
)
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
@options("results", "data", "device", "class", "json")
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
    own_class: tuple[str, ...],
    as_json: bool,
) -> int:
    """What a trained model gets wrong, in numbers and pictures.

    Confusion, calibration, the worst mistakes as pictures, Grad-CAM, probes.

    Of segmentation the masks of the worst images beside the truth. Numbers come from the record alone. Pictures need
    the data set; Grad-CAM, masks and probes the weights too, which training with --keep-checkpoints leaves. What is
    missing is said; the exit code is 1 where it was asked for (--probe, --gradcam, --layer).
    """
    from metaformer_ablate.data.folder import DataFolder
    from metaformer_ablate.records.names import with_names
    from metaformer_ablate.tasks.registry import part_of

    store = store_of(results)
    record, *others = with_names([store.find(each) for each in (run, against) if each is not None])
    other = others[0] if others else None
    part = part_of(record.spec(), "error_analysis", "error analysis")
    part.check_probes(probes)
    analysis = part.ErrorAnalysis(record, other)
    target = folder_of(out or f"errors-{record.run_id}")
    complete = _add_pictures(analysis, DataFolder.choose(data), Asked(probes, gradcam, layer, device, own_class))
    for warning in analysis.warnings:
        logger.warning(warning)
    analysis.result["figures"] = [f"{name}.png" for name in analysis.figures]
    text = _json(analysis.result)
    _remove_stale(target)
    for name, png in analysis.pngs():
        (target / f"{name}.png").write_bytes(png)
    (target / "errors.json").write_text(text, encoding="utf-8")
    if as_json:
        click.echo(text, nl=False)
    else:
        say(analysis.text().rstrip("\n"))
    logger.info(f"{target}: errors.json and {len(analysis.figures)} figures ({', '.join(analysis.figures)})")
    return 0 if complete else 1


def _remove_stale(folder: Path) -> None:
    """Removes the figures of an earlier call, which are easily taken for those of this one."""
    from metaformer_ablate.settings.typed_files import read_json

    try:
        named = read_json(folder / "errors.json", LARGEST)["figures"]
        stale = [name for name in named if re.fullmatch(r"\w+\.png", name)]
    except (OSError, ValueError, TypeError, KeyError):  # there was none, or it is not ours
        return
    for name in stale:
        (folder / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class Asked:
    """What was asked for that needs weights."""

    probes: tuple[str, ...]
    gradcam: bool
    layer: str | None
    device: str
    own_class: tuple[str, ...]

    @property
    def cam(self) -> bool:
        return self.gradcam or self.layer is not None

    @property
    def anything(self) -> bool:
        return bool(self.probes) or self.cam


def _add_pictures(analysis: Any, folder: DataFolder, asked: Asked) -> bool:
    """Adds to an error analysis what images and weights tell, as far as they are at hand; says what is not. False
    where that was asked for."""
    from metaformer_ablate.trained.load import load_images_of

    try:
        images = load_images_of(analysis.run, folder)
    except NotAvailable as error:
        logger.info(f"no pictures: {error}")
        return not asked.anything
    analysis.add_images(images)
    return _add_from_weights(analysis, folder, images, asked)


def _add_from_weights(analysis: Any, folder: DataFolder, images: Any, asked: Asked) -> bool:
    """Adds the task's pictures of what the net sees, and probes."""
    from metaformer_ablate.records.checkpoints import LAST
    from metaformer_ablate.system.devices import choose_device
    from metaformer_ablate.trained.load import load_images_of, load_trained

    run = analysis.run
    if not (run.folder / LAST).is_file() and not asked.anything:
        kept = "`ablate run ... --keep-checkpoints` keeps them"
        logger.info(f"no {analysis.of_weights}: run {run.run_id} has no weights; {kept}")
        return True
    complete = True
    try:
        trained, check = load_trained(run, images, choose_device(asked.device), asked.own_class)
    except NotAvailable as error:
        logger.info(f"no {analysis.of_weights} and no probes: {error}")
        return not asked.anything
    analysis.add_weights(check)
    try:
        analysis.add_pictures(trained, images, asked.layer)
    except NotAvailable as error:
        logger.info(f"no {analysis.of_weights}: {error}")
        complete = not asked.cam
    if not asked.probes:
        return complete
    runs, other = [(trained, images)], analysis.other
    if other is not None:
        try:
            images_of_other = images if _same_size(run, other) else load_images_of(other, folder)
            other_trained, check = load_trained(other, images_of_other, trained.device, asked.own_class)
            analysis.add_weights(check, of_other=True)
            runs.append((other_trained, images_of_other))
        except NotAvailable as error:
            logger.info(f"no probes of run {other.run_id}: {error}")
            complete = False
    analysis.add_probes(asked.probes, runs)
    return complete


def _same_size(record: Record, other: Record) -> bool:
    return record.spec()["data"]["image_size"] == other.spec()["data"]["image_size"]


def _json(result: dict[str, Any]) -> str:
    """JSON with a line per key, but lists of numbers on one line: a confusion matrix reads as one."""
    text = json.dumps(result, indent=1, allow_nan=False, ensure_ascii=False)
    return re.sub(r"\[\s+([-+.\deE,\s]+?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"
