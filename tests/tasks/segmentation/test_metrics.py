"""Metrics of label maps: worked out by hand, and against torchmetrics' Jaccard index; what a record keeps of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchmetrics.classification import MulticlassJaccardIndex

from metaformer_ablate.tasks.segmentation.metrics import at_chance, measure, share_of
from metaformer_ablate.tasks.segmentation.module import count, summed_loss
from metaformer_ablate.tasks.segmentation.predictions import check, per_image, same_images
from metaformer_ablate.tasks.segmentation.transforms import IGNORE


def test_a_confusion_matrix_worked_out_by_hand() -> None:
    truth = torch.tensor([[0, 0, 1, 1], [0, 255, 1, 2]], dtype=torch.uint8)
    predicted = torch.tensor([[0, 1, 1, 1], [0, 0, 0, 1]])
    logits = F.one_hot(predicted, 4).permute(2, 0, 1)[None].float()
    confusion = count(logits, truth, 4).numpy()
    assert confusion.tolist() == [[2, 1, 0, 0], [1, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    found = measure(confusion)
    # IoU 2 / 4, 2 / 5 and 0 / 1; the fourth class is neither there nor predicted
    assert found["miou"] == pytest.approx(100 * (0.5 + 0.4 + 0) / 3)
    assert found["pixel_accuracy"] == pytest.approx(100 * 4 / 7)
    assert found["mean_accuracy"] == pytest.approx(100 * (2 / 3 + 2 / 3 + 0) / 3)


def test_miou_is_torchmetrics_jaccard_index_over_the_data_set() -> None:
    generator = torch.Generator().manual_seed(0)
    metric = MulticlassJaccardIndex(7, average="macro", ignore_index=IGNORE)
    confusion = torch.zeros(7, 7, dtype=torch.int64)
    for size in ((20, 31), (8, 8), (17, 5)):
        mask = torch.randint(0, 6, size, generator=generator, dtype=torch.uint8)  # the last class is nowhere
        mask[torch.rand(size, generator=generator) < 0.2] = IGNORE
        logits = torch.randn(1, 7, *size, generator=generator)
        logits[:, 6] = -100
        confusion += count(logits, mask, 7)
        metric.update(logits.argmax(1), mask[None].long())
    assert measure(confusion.numpy())["miou"] == pytest.approx(100 * metric.compute().item(), abs=1e-4)


def test_the_loss_is_that_of_the_whole_map() -> None:
    mask = torch.randint(0, 5, (130, 40), dtype=torch.uint8)
    mask[5:9] = IGNORE
    logits = torch.randn(1, 5, 130, 40)
    whole = F.cross_entropy(logits, mask[None].long(), ignore_index=IGNORE, reduction="sum")
    assert summed_loss(logits, mask) == pytest.approx(whole.item(), rel=1e-5)


@pytest.mark.parametrize(("confusion", "chance"), [([[90, 0], [10, 0]], True), ([[89, 1], [0, 10]], False)])
def test_a_map_of_one_class_is_chance(confusion: list[list[int]], chance: bool) -> None:
    assert at_chance(np.array(confusion)) == chance


def kept() -> dict[str, np.ndarray]:
    """Of two images and three classes; in the second image no pixel counts."""
    return {
        "intersection": np.array([[4, 1, 0], [0, 0, 0]], dtype=np.uint32),
        "union": np.array([[6, 3, 0], [0, 0, 0]], dtype=np.uint32),
        "truth": np.array([[5, 2, 0], [0, 0, 0]], dtype=np.uint32),
        "confusion": np.array([[4, 1, 0], [1, 1, 0], [0, 0, 0]]),
    }


def test_the_score_of_an_image_is_the_mean_over_its_classes() -> None:
    check(kept(), classes=3)
    assert per_image(kept()).tolist() == pytest.approx([100 * (4 / 6 + 1 / 3) / 2, 100.0])
    other = kept()
    other["truth"] = other["truth"][::-1]
    assert same_images(kept(), kept()) and not same_images(kept(), other)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda a: a.pop("union"), "lacks union; allowed: intersection, union, truth, confusion"),
        (lambda a: a.update(union=a["union"].astype(float)), "allowed: whole numbers"),
        (lambda a: a.update(truth=a["truth"][:1]), "a line per image and an entry per class"),
        (lambda a: a["confusion"].__setitem__((0, 0), 5), "do not add up to those of the confusion matrix"),
        (lambda a: a["union"].__setitem__((0, 0), 4), "do not add up to those of the confusion matrix"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(change, sentence: str) -> None:  # type: ignore[no-untyped-def]
    arrays = kept()
    change(arrays)
    with pytest.raises(ValueError, match=sentence):
        check(arrays)


def test_pixels_of_large_images_do_not_overflow() -> None:
    """Records hold counts of 32 bits; a hundred times 43 million is more."""
    pixels = np.array([45_000_000, 10], dtype=np.uint32)
    assert share_of(pixels, np.array([60_000_000, 40], dtype=np.uint32)).tolist() == [75.0, 25.0]
