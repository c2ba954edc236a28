"""Keeping freed memory changes the process's allocators and nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("without_mallopt", [False, True])
def test_it_is_set_and_pixels_stay(without_mallopt: bool) -> None:
    program = (
        "import ctypes, io, numpy as np; from PIL import Image; from luma_cli.data import decode;"
        "from luma_cli.data.decode import decode_image;"
        f"missing = {without_mallopt};"
        "ctypes.CDLL = (lambda name: object()) if missing else ctypes.CDLL;"
        "file = io.BytesIO(); Image.effect_noise((64, 48), 90).convert('RGB').save(file, 'JPEG');"
        "before = decode_image(file.getvalue(), 'a').pixels;"
        "decode.keep_freed_memory();"
        "assert Image.core.get_blocks_max() == 8;"
        "assert all((decode_image(file.getvalue(), 'a').pixels == before).all() for _ in range(5))"
    )
    result = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
