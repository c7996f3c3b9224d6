"""The kernel's parts on their own: exp and log, blocks, where weights lie, and what the compiled code is made of."""

import shutil
from itertools import pairwise
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.lab.train.tables import kernel, panels
from crossfade.lab.train.tables.panels import Layer, Sgd, aligned, layout
from crossfade.lab.train.tables.simd import (
    add,
    combine,
    exp8,
    load8,
    load_rows8,
    log8,
    pointer,
    row_totals,
    store,
    store_rows,
    total,
    transpose,
    where_positive,
)
from tests.examples import examples


@numba.njit
def apply_exp(x, out):
    for i in range(0, len(x), 8):
        store(pointer(out), i, exp8(load8(pointer(x), i)))


@numba.njit
def apply_log(x, out):
    for i in range(0, len(x), 8):
        store(pointer(out), i, log8(load8(pointer(x), i)))


@numba.njit
def apply_rows(x, y, out):
    a, b, o = pointer(x), pointer(y), pointer(out)
    block = load_rows8(a, 0, 8)
    store_rows(o, 0, 8, transpose(block))
    store(o, 64, row_totals(block))
    store(o, 72, add(block))
    store(o, 80, combine(block, b, 0))
    store_rows(o, 88, 8, where_positive(block, load_rows8(b, 0, 8)))
    return total(load8(a, 0))


def last_places(got, exact):
    return np.abs(got.astype(np.float64) - exact) / np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)


def test_exp():
    x = -np.concatenate([np.geomspace(1e-9, 86.9, 200_000), np.arange(0, 87, 0.125), [0.0] * 8]).astype(np.float32)
    x = x[: len(x) // 8 * 8]
    out = np.empty_like(x)
    apply_exp(x, out)
    assert last_places(out, np.exp(x.astype(np.float64))).max() <= 1.5
    edge = np.array([0.0, -0.0, -87.0, -88.0, -1e30, -np.inf, np.nan, -1e-40], dtype=np.float32)
    out = np.empty_like(edge)
    apply_exp(edge, out)
    assert (out[[0, 1, 7]] == 1.0).all()
    np.testing.assert_allclose(out[2:7], np.exp(-87.0), rtol=1e-6)


def test_log():
    x = np.concatenate([np.geomspace(1, 1e30, 200_000), 1 + np.geomspace(1.2e-7, 1, 1000)]).astype(np.float32)
    out = np.empty_like(x)
    apply_log(x, out)
    assert last_places(out[x > 1], np.log(x[x > 1].astype(np.float64))).max() <= 1.5
    assert (out[x == 1] == 0.0).all()
    assert (out >= 0.0).all()


@given(seed=st.integers(0, 2**32 - 1))
@examples(30)
def test_blocks(seed):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(8, 8)).astype(np.float32)
    y = generator.choice([-1.5, -0.0, 0.0, 2.0, np.nan], size=(8, 8)).astype(np.float32)
    scale = np.nan_to_num(y[0])
    y[0] = scale
    out = np.zeros(152, dtype=np.float32)
    first = apply_rows(x.ravel(), y.ravel(), out)
    np.testing.assert_array_equal(out[:64].reshape(8, 8), x.T)
    np.testing.assert_allclose(out[64:72], x.sum(1, dtype=np.float64), rtol=0, atol=1e-5)
    np.testing.assert_allclose(out[72:80], x.sum(0, dtype=np.float64), rtol=0, atol=1e-5)
    np.testing.assert_allclose(out[80:88], scale.astype(np.float64) @ x, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(out[88:].reshape(8, 8), np.where(~(y <= 0), x, 0))
    assert first == pytest.approx(x[0].sum(dtype=np.float64), abs=1e-5)


@given(sizes=st.lists(st.integers(1, 50), min_size=2, max_size=5).map(tuple))
@examples(60)
def test_weights_lie_where_they_are_found_again(sizes):
    plan = layout(sizes)
    generator = np.random.default_rng(0)
    weights = [
        generator.normal(size=shape).astype(np.float32)
        for fan_in, fan_out in pairwise(sizes)
        for shape in ((fan_out, fan_in), (fan_out,))
    ]
    p, v = plan.pack(weights)
    assert p.size == plan.size
    assert p.ctypes.data % 64 == 0
    assert (v.ctypes.data - p.ctypes.data) % 4096 != 0
    for a, b in zip(plan.unpack(p), weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.count_nonzero(p) == sum(w.size for w in weights)  # the rest is zeros: it must not act
    assert not v.any()
    assert len(np.unique(plan.places)) == len(plan.places)


@pytest.mark.parametrize("lanes", [8, 16, 24, 40])
@pytest.mark.parametrize("walk", [1, 3, 8, 21])
def test_panels_are_matrix_products(lanes, walk):
    """The three loops over a panel against NumPy, in float64."""
    generator = np.random.default_rng(lanes * 100 + walk)
    matrix, bias = generator.normal(size=(lanes, walk)), generator.normal(size=48)
    walked, values, velocity = generator.normal(size=(walk, 8)), generator.normal(size=(8, lanes)), matrix * 0.5
    panel = aligned(lanes * walk + 64)

    def packed(matrix):
        start, flat = 0, []
        while start < lanes:
            width = 16 if panels.WIDE == 16 and lanes - start >= 16 else 8
            flat.append(matrix[start : start + width].T.ravel())
            start += width
        return np.concatenate(flat).astype(np.float32)

    size = lanes * walk
    panel[:size], panel[size : size + 48] = packed(matrix), bias
    v = packed(velocity)
    w, x = walked.astype(np.float32).ravel(), values.astype(np.float32).ravel()
    h, z = np.zeros(8 * lanes, np.float32), np.zeros(8 * walk, np.float32)
    run_panels(panel, v, size, lanes, walk, w, x, h, z)
    np.testing.assert_allclose(h.reshape(8, lanes), np.maximum(walked.T @ matrix.T + bias[:lanes], 0), atol=1e-4)
    np.testing.assert_allclose(z.reshape(walk, 8), (values @ matrix).T + bias[:walk, None], atol=1e-4)
    step = 0.9 * velocity + (walked @ values).T + 0.01 * matrix
    np.testing.assert_allclose(v, packed(step), atol=1e-4)
    np.testing.assert_allclose(panel[:size], packed(matrix - 0.1 * step), atol=1e-4)


@numba.njit
def run_panels(panel, v, bias, lanes, walk, walked, values, h, z):
    p, layer = pointer(panel), Layer(lanes, walk, 0, bias)
    panels.first_hidden(p, layer, pointer(walked), pointer(h))
    panels.contract(p, layer, pointer(values), pointer(z))
    sgd = Sgd(np.float32(0.1), np.float32(0.9), np.float32(0.01))
    panels.descend(p, layer, pointer(v), pointer(walked), pointer(values), sgd)


def test_the_kernels_key_follows_its_code_and_the_width_of_its_vectors(tmp_path, monkeypatch):
    known = kernel.fingerprint()
    monkeypatch.setattr(kernel, "WIDE", 4)
    assert kernel.fingerprint() != known
    monkeypatch.undo()
    shutil.copytree(Path(kernel.__file__).parent, tmp_path / "tables")
    monkeypatch.setattr(kernel, "__file__", str(tmp_path / "tables" / "kernel.py"))
    assert kernel.fingerprint() == known
    for name in ("kernel.py", "simd.py"):
        before = (tmp_path / "tables" / name).read_text()
        (tmp_path / "tables" / name).write_text(before + "# edited\n")
        assert kernel.fingerprint() != known
        (tmp_path / "tables" / name).write_text(before)
