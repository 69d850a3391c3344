"""`ablate export`: a trained model for other programs."""

from __future__ import annotations

import json
import logging

import click

from metaformer_ablate.cli.completion import complete_from, complete_runs
from metaformer_ablate.cli.options import examples, folder_of, options, say, store_of
from metaformer_ablate.errors import RequestError

logger = logging.getLogger(__name__)


_EXPORT_EXAMPLES = examples(
    "ablate export 3f2a91",
    "ablate export 3f2a91 --format onnx --out model",
)


@click.command("export", epilog=_EXPORT_EXAMPLES)
@click.argument("run", metavar="RUN", shell_complete=complete_runs)
@click.option(
    "--format",
    "chosen",
    default="all",
    metavar="NAME",
    help="all, safetensors or onnx (default: all).",
    shell_complete=complete_from("all", "safetensors", "onnx"),
)
@click.option("--out", metavar="DIR", help="Folder for the files and export.json (default: export-RUN).")
@options("results", "data", "class", "json")
def export_command(
    run: str,
    chosen: str,
    out: str | None,
    results: str | None,
    data: str | None,
    own_class: tuple[str, ...],
    as_json: bool,
) -> int:
    """A trained model for other programs: safetensors and ONNX.

    The weights have timm's names where timm has the model.

    Needs the weights, which training with --keep-checkpoints leaves. Where the images are at hand, the weights have to
    repeat the record's predictions first; the ONNX file has to give torch's logits.
    """
    from metaformer_ablate.data.folder import DataFolder
    from metaformer_ablate.errors import unknown
    from metaformer_ablate.records.names import with_names
    from metaformer_ablate.trained.export import FORMATS, NotExported, check_formats, export

    if chosen != "all" and chosen not in FORMATS:
        raise RequestError(f"--format: {unknown('format', chosen, ('all', *FORMATS))}")
    formats = FORMATS if chosen == "all" else (chosen,)
    (record,) = with_names([store_of(results).find(run)])
    check_formats(formats)
    target = folder_of(out or f"export-{record.run_id}")
    try:
        about = export(record, DataFolder.choose(data), target, formats, own_class)
    except NotExported as error:
        logger.error(str(error))
        return 1
    for note in about["notes"]:
        logger.info(f"note: {note}")
    if as_json:
        click.echo(json.dumps(about, indent=1))
        return 0
    ours = "the names of its class" if "class" in about["spec"]["model"] else "our own names"
    named = f"under timm's names ({about['timm']})" if about["timm"] else f"under {ours}: timm has no such model"
    say(f"run {record.run_id}" + (f": {record.name}" if record.name else ""))
    for name, facts in about["files"].items():
        what = f"{facts['tensors']} tensors {named}" if "tensors" in facts else f"opset {facts['opset']}"
        say(f"{target / name}: {facts['bytes']:,} bytes, {what}")
    return 0
