# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""transformers' common image processing tests, with images resized to one size and with padded native images."""

import unittest

import numpy as np
from PIL import Image
from transformers_common_tests.test_image_processing_common import ImageProcessingTester, ImageProcessingTestMixin

from turingvit_hf import TuringViTImageProcessor


class TuringViTImageProcessingTester(ImageProcessingTester):
    """Makes images; those of its attributes that are arguments of the processor are passed to it."""

    def __init__(self, parent: unittest.TestCase, **kwargs):
        super().__init__(parent, image_mean=[0.5, 0.4, 0.3], image_std=[0.5, 0.6, 0.7], **kwargs)

    def _get_image_processing_classes(self) -> dict[str, type]:
        # the common tests look for classes in transformers, by the name of the folder this file lies in
        return {"pil": TuringViTImageProcessor, "torchvision": TuringViTImageProcessor}


class FixedSizeTester(TuringViTImageProcessingTester):
    """Asks for squares."""

    def __init__(self, parent: unittest.TestCase):
        super().__init__(parent, resolution="fixed", size={"height": 32, "width": 32})


class PaddedNativeTester(TuringViTImageProcessingTester):
    """Asks for native sizes, padded to the largest of the batch."""

    def __init__(self, parent: unittest.TestCase):
        super().__init__(parent, resolution="native", do_pack=False, patch_size=16)

    def expected_output_image_shape(self, images: list) -> tuple[int, int, int]:
        """The largest height and width, each rounded to whole patches."""
        sizes = np.array([image_size(image) for image in images])
        rounded = np.maximum(np.floor(sizes / self.patch_size + 0.5), 1).astype(int) * self.patch_size
        return (self.num_channels, *(int(side) for side in rounded.max(axis=0)))


def image_size(image) -> tuple[int, int]:
    """The height and width of an image, channels last in NumPy and first in torch as the common tests make them."""
    if isinstance(image, Image.Image):
        return image.height, image.width
    return image.shape[:2] if isinstance(image, np.ndarray) else tuple(image.shape[1:])


class FixedSizeTest(ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = FixedSizeTester
    test_cast_dtype = True


class PaddedNativeTest(FixedSizeTest):
    image_processor_tester_class = PaddedNativeTester
