"""What no single field can tell: geometry, schedule, devices."""

from __future__ import annotations

from metaformer_ablate.data.datasets import DATASETS
from metaformer_ablate.errors import RequestError, unknown
from metaformer_ablate.models.registry import COMPONENTS
from metaformer_ablate.spec.merge import Merged, invalid
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.training.optimizers import all_optimizers, find_optimizer
from metaformer_ablate.training.spec import TrainSpec


def check_together(spec: RunSpec, merged: Merged) -> None:
    """Raises RequestError for what no single field can tell: a data set of another task, a geometry that leaves no map
    in a stage, a schedule that does not fit the epochs, devices that cannot share a batch."""
    _check_task(spec, merged)
    _check_folder(spec, merged)
    _check_model(spec, merged)
    _check_optimizer(spec.train, merged)
    _check_training(spec, merged)
    _check_sharing(spec.train, merged)
    _check_mixing(spec, merged)
    _check_class_weights(spec, merged)
    if spec.data.flip == "alternating" and not (merged.task.name == "classification" and spec.data.in_memory):
        allowed = "allowed: true or false; alternating is for classification of a set in memory"
        raise invalid("data.flip", spec.data.flip, allowed, merged)


def _check_task(spec: RunSpec, merged: Merged) -> None:
    """The data set is one of the task."""
    task, of = merged.task.name, DATASETS[spec.data.name].task
    if task != of:
        fit = [name for name, facts in DATASETS.items() if facts.task == task]
        others = f", or a data set of {task}: {', '.join(fit)}" if fit else ""
        raise RequestError(
            f"{merged.where('data.name')}data.name is {spec.data.name!r}, a data set of the task {of}, and task.name "
            f"is {task}; allowed: task.name={of}{others}"
        )


def _check_folder(spec: RunSpec, merged: Merged) -> None:
    """What there is to know of a folder of images without the images is said."""
    data = spec.data
    for key in ("num_classes", "train_images", "test_images") if data.name == "folder" else ():
        if not getattr(data, key):
            raise RequestError(
                f"{merged.where('data.name')}data.name is folder, but data.{key} is not set; allowed: a recipe that "
                "`ablate init NAME --data DIR` has written"
            )
    if data.name == "folder" and data.channels == 1 and not data.in_memory:
        raise invalid("data.channels", 1, "allowed with data.held_in=disk: 3 (grey is read as colour)", merged)


def _check_model(spec: RunSpec, merged: Merged) -> None:
    """Something reads the size, and the geometry leaves a map in every stage; a model of timm is no set of weights."""
    model = spec.model
    if model.timm is not None and "." in model.timm:
        name, _, tag = model.timm.partition(".")
        allowed = f"allowed: {name}; {tag} is one of its sets of weights, and those come from model.init_from"
        raise invalid("model.timm", model.timm, allowed, merged)
    if (whole := model.whole) is not None and merged.size and merged.size[1].strict:
        size, layer = merged.size
        about = f"{layer.about}: " if layer.about else ""
        raise RequestError(
            f"{layer.where('model.size')}: {about}model.size is {size!r}, but nothing reads it: the model is {whole}"
        )
    pixels = spec.data.image_size
    for stage, (height, _) in enumerate([] if pixels is None else model.stage_sizes(pixels)):
        if height < 1:
            assert model.stem is not None and model.downsample is not None
            raise RequestError(
                f"{merged.where('data.image_size')}data.image_size is {spec.data.image_size}, which leaves nothing in "
                f"stage {stage + 1} after a stem of stride {model.stem.stride} and down-sampling of stride "
                f"{model.downsample.stride}; allowed: a larger image or smaller strides"
            )
    for i, (_, dim, mixer) in enumerate(zip(*model.stages(), strict=True)):
        if "head_dim" in COMPONENTS.mixers[mixer].reads and (not model.head_dim or dim % model.head_dim):
            allowed = f"allowed for {mixer} in stage {i + 1}: a divisor of its width {dim}"
            raise invalid("model.head_dim", model.head_dim, allowed, merged)


def _check_training(spec: RunSpec, merged: Merged) -> None:
    """The schedule fits the epochs, and a batch the images."""
    train = spec.train
    images, evaluated = spec.data.split_sizes()
    if evaluated < train.world:
        few = f"train.devices x train.nodes is {train.world}; " if evaluated else ""
        raise RequestError(
            f"{merged.where('data.evaluate_on')}data.evaluate_on={spec.data.evaluate_on} leaves {evaluated} images to "
            f"evaluate on; {few}allowed: at least one a device"
        )
    _check_warmup(train, max(1, images // train.batch_size), merged)
    _check_milestones(train, merged)
    if train.batch_size > images:
        raise RequestError(
            f"{merged.where('train.batch_size')}train.batch_size is {train.batch_size}; allowed: at most {images}, "
            f"the training images of {spec.data.name}"
        )


def _check_warmup(train: TrainSpec, steps_per_epoch: int, merged: Merged) -> None:
    """It ends before the schedule does."""
    length = f"train.epochs is {train.epochs}" if train.steps is None else f"train.steps is {train.steps}"
    if train.warmup_steps is not None:
        name, warmup, steps = "train.warmup_steps", f"{train.warmup_steps}", float(train.warmup_steps)
    else:
        assert train.warmup_epochs is not None
        name, warmup = "train.warmup_epochs", f"{train.warmup_epochs:g}"
        steps = train.warmup_epochs * steps_per_epoch
    if not 0 < steps >= train.schedule_steps(steps_per_epoch):
        return
    _, source = merged.explicit.get(name, (None, None))
    place = name if source is not None and source.strict else length.partition(" ")[0]
    unit = "epochs" if train.steps is None and train.warmup_steps is None else "steps"
    of_epoch = "" if train.steps is None and train.warmup_steps is None else f" (an epoch has {steps_per_epoch})"
    raise RequestError(
        f"{merged.where(place)}{name} is {warmup} and {length}; allowed: fewer warm-up {unit} than {unit}{of_epoch}"
    )


def _check_milestones(train: TrainSpec, merged: Merged) -> None:
    """A step schedule has some, in order, all before the end of training."""
    if train.schedule != "step":
        return
    length, unit = (train.epochs, "epochs") if train.steps is None else (train.steps, "steps")
    assert length is not None
    found = train.milestones
    if not found or list(found) != sorted(set(found)) or found[-1] >= length:
        allowed = f"allowed with train.schedule=step: a list of rising integers from 1 to {length - 1} ({unit})"
        raise invalid("train.milestones", None if found is None else list(found), allowed, merged)


def _check_optimizer(train: TrainSpec, merged: Merged) -> None:
    """The installed timm has the optimiser, which takes the arguments."""
    optimizer = find_optimizer(train.optimizer)
    if optimizer is None:
        said = unknown("optimizer", train.optimizer, all_optimizers())
        raise invalid("train.optimizer", train.optimizer, said, merged)
    for name in train.optimizer_args or ():
        if name not in optimizer.arguments:
            own = f" (set train.{name})" if name in ("lr", "weight_decay", "betas", "eps") else ""
            said = unknown(f"argument of {train.optimizer}", name, optimizer.arguments)
            raise invalid("train.optimizer_args", train.optimizer_args, said + own, merged)


def _check_mixing(spec: RunSpec, merged: Merged) -> None:
    """Pairs of images that are mixed are on one device."""
    train = spec.train
    mixed = not spec.data.in_memory and bool(spec.data.mixup or spec.data.cutmix)
    part = train.micro_batch or train.batch_size // train.world
    if mixed and part < train.batch_size and part % 2:
        found = f"train.micro_batch is {part}" if train.micro_batch else f"a device has {part} images of a batch"
        raise RequestError(
            f"{merged.where('train.micro_batch')}{found}; allowed where data.mixup or data.cutmix is on: an even "
            f"number, for both images of a pair are read by one device"
        )


def _check_class_weights(spec: RunSpec, merged: Merged) -> None:
    """The weights of a batch are known where a part of it is computed: they are what its loss is divided by."""
    train, data = spec.train, spec.data
    parts = train.world * train.accumulation
    if train.class_weights is None or data.in_memory or data.mixup or data.cutmix or parts == 1:
        return
    allowed = f"allowed where {parts} parts of a batch are read apart: null, or data.mixup or data.cutmix"
    raise invalid("train.class_weights", train.class_weights, allowed, merged)


def _check_sharing(train: TrainSpec, merged: Merged) -> None:
    """The devices of a run get equal shares of each batch, and take them in equal parts."""
    if train.batch_size % train.world:
        where = next((found for key in ("devices", "nodes") if (found := merged.where(f"train.{key}"))), "")
        raise RequestError(
            f"{where}train.devices is {train.devices} and train.nodes is {train.nodes}, which cannot share a batch of "
            f"{train.batch_size} evenly; allowed: as many devices in all as divide train.batch_size"
        )
    share = train.batch_size // train.world
    if share % (train.micro_batch or 1):
        allowed = f"allowed: a divisor of the {share} images of a batch that a device has"
        raise invalid("train.micro_batch", train.micro_batch, allowed, merged)
    if train.strategy != "auto" and train.world == 1:
        allowed = "allowed on one device: auto"
        raise invalid("train.strategy", train.strategy, allowed, merged)
