"""The kernels' cases in Triton's interpreter, and the kernels compiled for GPUs that aren't here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crossfade import kernels

triton = pytest.importorskip("triton")

HERE = Path(__file__).parent


def test_cases() -> None:
    """On the GPU where there is one, in the interpreter otherwise."""
    environment = os.environ | ({} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"})
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "kernel_cases.py")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=HERE.parents[1], check=False)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed, result.stdout
    assert int(passed.group(1)) >= 50


def signatures() -> dict[str, dict[str, str]]:
    common = {
        "target": "*i64",
        "classes": "i32",
        "rows": "i32",
        "ignore_index": "i32",
        "softcap": "fp32",
        "row_stride": "i64",
    }
    flags = dict.fromkeys(("IGNORES", "CAPS", "ENTROPY", "COLLISION", "BLOCK", "STAGES"), "constexpr")
    rows = dict.fromkeys(("ce", "norm", "entropy", "collision", "factor", "at_target"), "*fp32")
    return {
        "forward_kernel": common | flags | rows,
        "backward_kernel": common | flags | rows | {"out_row_stride": "i64"},
    }


@pytest.mark.parametrize(
    ("kernel", "asked"), [("forward_kernel", False), ("forward_kernel", True), ("backward_kernel", False)]
)
@pytest.mark.parametrize("element", ["bf16", "fp32"])
@pytest.mark.parametrize("capability", [80, 90])
def test_compiles_for_nvidia(kernel: str, asked: bool, element: str, capability: int) -> None:
    """With 16-byte loads and stores, and without registers spilled to memory."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from crossfade.kernels import triton_cross_entropy

    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("the interpreter doesn't compile")
    function = getattr(triton_cross_entropy, kernel)
    kinds = signatures()[kernel] | {"logits": f"*{element}", "out": f"*{element}"}
    signature = {name: kinds[name] for name in function.arg_names}
    forward = kernel == "forward_kernel"
    logits = torch.empty(1, 100_000, dtype=torch.bfloat16 if element == "bf16" else torch.float32)
    launch = triton_cross_entropy.FORWARD[:2] if forward else triton_cross_entropy.BACKWARD
    block, warps = triton_cross_entropy.block(logits, *launch)
    constants = {"IGNORES": True, "CAPS": False, "BLOCK": block}
    if forward:
        constants |= {"STAGES": triton_cross_entropy.FORWARD[2], "ENTROPY": asked, "COLLISION": asked}
    aligned = ("logits", "out", "row_stride", "out_row_stride", "classes")
    attributes = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(function.arg_names) if name in aligned}
    source = ASTSource(function, signature, constants, attributes)
    try:
        built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
    except RuntimeError as error:
        pytest.skip(f"no compiler for GPUs here: {error}")
    code = built.asm["ptx"]
    assert re.search(r"cp\.async\.cg\.shared\.global .*, 0x10," if forward else r"ld\.global\.v4\.b32", code)
    assert forward or "st.global.v4.b32" in code
    assert not re.search(r"\b(ld|st)\.local", code)


def test_not_taken_without_a_gpu() -> None:
    if torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("there is one, or a stand-in for it")
    logits = torch.zeros(3, 4)
    assert not kernels.usable(logits)
    assert not kernels.available(logits)
    with pytest.raises(ValueError, match=r"on a CUDA device, got \(3, 4\) torch.float32 on cpu"):
        kernels.ce_rows(logits, torch.zeros(3, dtype=torch.int64))
