"""scikit-learn's digits and how they are split. Holds no torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metaformer_ablate.data.datasets import every_fifth_of_a_class


def load() -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]:
    """Images [1797, 8, 8], labels [1797] and whether each is evaluated on, in the order of scikit-learn.

    The set has no official split. Every fifth image of each class is evaluated on: 355 of 1,797, 34 to 36 of each.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # from 0..16
    labels = digits.target.astype(np.int64)
    return images, labels, every_fifth_of_a_class(labels)
