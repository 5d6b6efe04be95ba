"""What several test files need."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest

# TensorFlow costs each daemon seconds of the processor and half a gigabyte: who tests learning asks for it.
os.environ.setdefault("FORECASTD_RUN_FINETUNE", "false")


@pytest.fixture(scope="session")
def debian() -> Callable[[str], str]:
    """`debian("promtool")` is that program's path. Where it is missing the test is skipped; under CI it fails."""

    def find(program: str) -> str:
        if path := shutil.which(program):
            return path
        reason = f"{program} is not installed; apt-get install what has it (.ci/run says which packages)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)

    return find
