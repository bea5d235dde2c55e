"""The GPU's memory as CUDA's driver tells it, beside what torch says."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from afov_ros.gpu import gpu_memory, runs_on_gpu


def test_memory_is_what_torch_says_or_unknown_without_a_gpu() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        assert gpu_memory() is None
        return
    torch.zeros(1, device="cuda")
    free, total = torch.cuda.mem_get_info()
    told = gpu_memory()
    assert told is not None
    assert told[1] == pytest.approx(total / 2**20)
    assert told[0] == pytest.approx((total - free) / 2**20, abs=64)


@pytest.mark.parametrize(
    ("runtime", "on_gpu"),
    [
        (SimpleNamespace(name="tensorrt"), True),
        (SimpleNamespace(name="torch", device="cuda:0"), True),
        (SimpleNamespace(name="torch", device="cpu"), False),
        (SimpleNamespace(name="native16"), False),
    ],
)
def test_only_a_runtime_with_weights_on_a_gpu_is_on_one(runtime: object, on_gpu: bool) -> None:
    assert runs_on_gpu(runtime) == on_gpu
