"""The Triton kernels: kernel_checks.py in processes of its own, and that they compile for GPUs where there is none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from specs import build_net, spec_of

from metaformer_ablate.errors import RequestError

HELPERS = REPOSITORY / "tests" / "helpers"
with_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not there")


def run_checks(marks: str, **env: str) -> None:
    """kernel_checks.py in a new process, which has to pass."""
    words = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "kernel_checks.py", "-m", marks]
    done = subprocess.run(words, cwd=HELPERS, env={**os.environ, **env}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@with_triton
@pytest.mark.slow
def test_kernels_are_the_plain_modules_under_the_interpreter() -> None:
    run_checks("not slow", TRITON_INTERPRET="1")


@with_triton
@pytest.mark.slow
@pytest.mark.fuzz
def test_kernels_are_the_plain_modules_under_the_interpreter_at_length() -> None:
    run_checks("slow", TRITON_INTERPRET="1")


@with_triton
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_kernels_are_the_plain_modules_on_a_gpu() -> None:
    run_checks("slow or not slow", TRITON_INTERPRET="0")


@with_triton
@pytest.mark.skipif(sys.platform != "linux", reason="Triton's assembler is for Linux")
@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("radius", [1, 4])
@pytest.mark.parametrize("type_of_x", ["fp32", "bf16"])
def test_kernels_compile_for_gpus_and_fit_into_registers(
    type_of_x: str, radius: int, architecture: int, tmp_path: Path
) -> None:
    """For A100 and H100, without one: windows of 3 and 9 spill no register, and memory is read in vectors."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from metaformer_ablate.models import kernels

    for kernel in (kernels._forward, kernels._backward_sums, kernels._backward):
        constants = {"RADIUS": radius, "RESIDUAL": True, **kernels._tile(64, 56, 56)}
        types = {"x_ptr": type_of_x, "out_ptr": type_of_x if kernel is kernels._backward else "fp32"}
        signature, values, multiples_of_16 = {}, {}, {}
        for i, name in enumerate(kernel.arg_names):
            pointer = name.endswith("_ptr")
            signature[name] = f"*{types.get(name, 'fp32')}" if pointer else "i32"
            if name in constants:
                signature[name], values[(i,)] = "constexpr", constants[name]
            if pointer or name == "channels":
                multiples_of_16[(i,)] = [["tt.divisibility", 16]]
        source = ASTSource(kernel, signature, values, multiples_of_16)
        compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options={"num_warps": 4})
        ptx = compiled.asm["ptx"]
        (tmp_path / "kernel.ptx").write_text(ptx)
        words = [triton.knobs.nvidia.ptxas.path, "-v", f"-arch={re.search(r'[.]target (sm_[0-9a-z]+)', ptx)[1]}"]
        told = subprocess.run([*words, "kernel.ptx", "-o", "kernel.o"], cwd=tmp_path, capture_output=True, text=True)
        assert told.returncode == 0, told.stderr
        assert " 0 bytes spill stores, 0 bytes spill loads" in told.stderr
        assert f"ld.global.v{4 if type_of_x == 'fp32' else 2}.b32" in ptx


def test_without_triton_models_are_built_and_a_sentence_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "metaformer_ablate.models.kernels", raising=False)
    build_net(spec_of())
    with pytest.raises(
        RequestError, match=r"^train.kernels is 'triton', which cannot be loaded here: .*; allowed: torch$"
    ):
        build_net(spec_of(), kernels="triton")
