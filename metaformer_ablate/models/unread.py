"""Which settings of the model nothing reads, and why."""

from __future__ import annotations

from metaformer_ablate.models.components import readers
from metaformer_ablate.models.registry import COMPONENTS
from metaformer_ablate.models.spec import MIXER_OPTIONS, STAGED, ModelSpec


def unread_entries(model: ModelSpec) -> dict[tuple[str, int], str]:
    """{(field with an entry per stage, stage from 0): why nothing reads the entry}."""
    unread_fields: dict[tuple[str, int], str] = {}
    for option in (option for option in MIXER_OPTIONS if option in STAGED):
        can = ", ".join(readers(option, COMPONENTS.mixers))
        for i, name in enumerate(model.stages()[2]):
            if option not in COMPONENTS.mixers[name].reads:
                unread_fields[option, i] = f"token_mixer {name} does not read it (it is for {can})"
    return unread_fields


def unread_model(model: ModelSpec) -> dict[str, str]:
    """{field: why nothing reads it}."""
    found = _unread_of_metaformer(model) if model.whole is None else _unread_of_whole(model, model.whole)
    if model.init_from is None:
        found["new_head"] = "model.init_from is null, so all weights are new"
    return found


def _unread_of_whole(model: ModelSpec, whole: str) -> dict[str, str]:
    read = {"timm", "comparator", "own_class", "class_place", "freeze", "batch_norm_eval"}
    read |= {"init_from", "init_sha256", "init_averaged", "init_run", "new_head"}
    read |= {"drop_path"} if model.own_class is None else set()
    read |= {"args"} if model.comparator is None else set()
    unread_fields = {key: f"the model is {whole}" for key in ModelSpec.model_fields if key not in read}
    if "drop_path_rate" in (model.args or {}):
        unread_fields["drop_path"] = "model.args.drop_path_rate says it"
    return unread_fields


def _unread_of_metaformer(model: ModelSpec) -> dict[str, str]:
    unread_fields = {"args": "they are for a model that model.class or model.timm names"}
    names = model.stages()[2]
    mixers = [COMPONENTS.mixers[name] for name in names]
    for option in (option for option in MIXER_OPTIONS if option not in STAGED):
        unread = not any(option in mixer.reads for mixer in mixers)
        can = ", ".join(readers(option, COMPONENTS.mixers))
        if unread and not (option == "activation" and model.channel_mlp):
            mlp = " and channel_mlp is false" if option == "activation" else ""
            unread_fields[option] = (
                f"token_mixer {', '.join(dict.fromkeys(names))} does not read it (it is for {can}){mlp}"
            )
    norms = {model.norm, *(conv.norm for conv in (model.stem, model.downsample) if conv)}
    for option in ("norm_eps", "norm_bias"):
        if not norms & set(readers(option, COMPONENTS.norms)):
            unread_fields[option] = f"norm {model.norm} does not read it"
    if "batch_norm" not in norms and not model.own_names():  # what is inside a part of the user's own, the net tells
        unread_fields["batch_norm_eval"] = f"norm {model.norm} is no batch norm"
    if not model.residual:
        unread_fields |= dict.fromkeys(("layer_scale", "res_scale", "drop_path"), "residual is false")
    if not model.channel_mlp:
        unread_fields |= dict.fromkeys(("mlp_ratio", "mlp_bias"), "channel_mlp is false")
    if model.head != "mlp":
        unread_fields["head_dropout"] = f"head {model.head} does not read it"
    return unread_fields
