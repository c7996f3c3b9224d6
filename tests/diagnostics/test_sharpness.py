from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from crossfade import crossfade_loss
from crossfade.diagnostics import largest_eigenvalue, loss_slice, random_direction

LOSS = partial(crossfade_loss, beta=2.0, reduction="none")


def test_largest_eigenvalue_against_the_dense_spectrum(small):
    _, hessian = small.dense(LOSS)
    values = torch.linalg.eigvalsh(hessian)
    found, vector = largest_eigenvalue(small.model, small.batches, LOSS, tolerance=1e-10)
    assert found == pytest.approx(float(values[-1]))
    torch.testing.assert_close(hessian @ vector, found * vector, rtol=1e-5, atol=1e-7)


def test_one_parameter():
    model = nn.Linear(1, 1, bias=False).double()
    data = [(torch.ones(2, 1, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))]
    found, vector = largest_eigenvalue(model, data, lambda q, y: 3 * q[:, 0] ** 2)
    assert found == pytest.approx(6.0)
    assert vector.tolist() == [1.0]


@pytest.mark.parametrize("size", [1, 5])
def test_a_loss_without_curvature(size):
    model = nn.Linear(size, 1, bias=False).double()
    data = [(torch.ones(2, size, dtype=torch.float64), torch.zeros(2, dtype=torch.int64))]
    found, vector = largest_eigenvalue(model, data, lambda q, y: q[:, 0])
    assert found == 0
    assert float(vector.norm()) == pytest.approx(1)


def test_random_numbers_are_drawn_on_the_cpu_whatever_the_default_device_is(small):
    expected = largest_eigenvalue(small.model, small.batches, LOSS)[0], random_direction(small.model).tolist()
    with torch.device("meta"):
        found = largest_eigenvalue(small.model, small.batches, LOSS)[0], random_direction(small.model).tolist()
    assert found == expected


def test_slices_are_the_loss_along_the_directions_and_leave_the_weights(small):
    first, second = random_direction(small.model, 0), random_direction(small.model, 1)
    before = [p.clone() for p in small.model.parameters()]
    steps = [-0.5, 0.0, 1.0]
    line = loss_slice(small.model, small.batches, LOSS, [first], steps)
    plane = loss_slice(small.model, small.batches, LOSS, [first, second], steps)
    assert all(torch.equal(a, b) for a, b in zip(before, small.model.parameters(), strict=True))
    torch.testing.assert_close(plane[:, 1], line)
    with torch.no_grad():
        offset = 0
        for parameter in small.model.parameters():
            piece = slice(offset, offset + parameter.numel())
            parameter += (-0.5 * first + second)[piece].view_as(parameter)
            offset += parameter.numel()
        assert float(plane[0, 2]) == pytest.approx(float(LOSS(small.model(small.x), small.y).mean()))


def test_curvature_of_a_slice_is_the_eigenvalue(small):
    value, vector = largest_eigenvalue(small.model, small.batches, LOSS, tolerance=1e-10)
    low, middle, high = loss_slice(small.model, small.batches, LOSS, [vector], [-1e-3, 0.0, 1e-3]).tolist()
    assert (low - 2 * middle + high) / 1e-6 == pytest.approx(value, rel=1e-4)


def test_directions_are_filter_normalised():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight[1] *= 10
    direction = random_direction(model, seed=4)
    weight, bias = direction[:54].view(3, -1), direction[54:57]
    torch.testing.assert_close(weight.norm(dim=1), model[0].weight.detach().view(3, -1).norm(dim=1))
    assert not bias.any()
    assert not torch.equal(direction, random_direction(model, seed=5))


def test_bad_input(small):
    with pytest.raises(ValueError, match="one or two directions"):
        loss_slice(small.model, small.batches, F.cross_entropy, [], [0.0])
    with pytest.raises(ValueError, match="must have shape"):
        loss_slice(small.model, small.batches, F.cross_entropy, [torch.zeros(2)], [0.0])
