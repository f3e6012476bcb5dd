"""Fixtures of the tests of the image."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devbox.tests.imagebox import ImageBox
from tests import netbox


@pytest.fixture
def box() -> Iterator[ImageBox]:
    """A machine with the image's files in a namespace of its own."""
    netbox.require_boxes()
    with ImageBox() as made:
        yield made
