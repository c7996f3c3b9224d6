import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError

from crossfade.diagnostics import (
    ProbabilityRecorder,
    Recording,
    calibration,
    calibration_history,
    forgetting,
    gradient_mass,
    histograms,
    transitions,
)


def recording_of(folder, epochs):
    """Two classes; ``epochs`` holds p_y of class 0 for each example, None for not seen."""
    with ProbabilityRecorder(folder, len(epochs[0]), len(epochs)) as recorder:
        for epoch, row in enumerate(epochs):
            seen = [i for i, p in enumerate(row) if p is not None]
            p = torch.tensor([row[i] for i in seen], dtype=torch.float64)
            recorder.record(epoch, seen, torch.stack([p, 1 - p], 1).log(), torch.zeros(len(seen), dtype=torch.int64))
    return Recording(folder)


def test_transition_table_by_hand(tmp_path):
    #            hopeless->right  hopeless->near  near->right  near->hopeless  right->right  right->near  not seen
    first = [0.1, 0.15, 0.3, 0.25, 0.9, 0.6, None]
    last = [0.8, 0.30, 0.7, 0.05, 0.6, 0.4, 0.9]
    table = transitions(recording_of(tmp_path, [first, last]), 0, 1)
    assert table.counts.tolist() == [[0, 1, 1], [1, 0, 1], [0, 1, 1]]
    assert table.became_right.tolist() == [0.5, 0.5, 0.5]


def test_an_empty_group_has_no_share(tmp_path):
    table = transitions(recording_of(tmp_path, [[0.9], [0.9]]), 0, 1)
    assert np.isnan(table.became_right).tolist() == [True, True, False]
    with pytest.raises(ValueError, match="threshold"):
        transitions(recording_of(tmp_path, [[0.9], [0.9]]), 0, 1, threshold=1.0)


def test_nothing_in_common(tmp_path):
    with pytest.raises(ValueError, match="both epoch 0 and epoch 1"):
        transitions(recording_of(tmp_path, [[None], [0.5]]), 0, 1)


def test_forgetting_by_hand(tmp_path):
    epochs = [[0.9, 0.1, 0.9, 0.1], [0.1, 0.1, None, 0.9], [0.9, 0.1, 0.1, 0.9], [0.1, 0.1, 0.9, 0.9]]
    found = forgetting(recording_of(tmp_path, epochs))
    assert found.events.tolist() == [2, 0, 1, 0]
    assert found.first_learned.tolist() == [0, -1, 0, 1]
    assert found.last.tolist() == [False, False, True, True]


def test_histograms_count_every_seen_example(tmp_path):
    rec = recording_of(tmp_path, [[0.01, 0.26, 0.99], [None, 0.6, 0.6]])
    assert histograms(rec, bins=4).tolist() == [[1, 1, 0, 1], [0, 0, 2, 0]]


def test_gradient_mass_of_ce_and_el(tmp_path):
    p = np.array([0.05, 0.45, 0.6, 0.95])
    rec = recording_of(tmp_path, [p.tolist()])
    for g, pull in [(lambda ce: ce, 1 - p), (lambda ce: -torch.expm1(-ce), p * (1 - p))]:
        by_hand = [pull[:2].sum() / pull.sum(), pull[2:].sum() / pull.sum()]
        np.testing.assert_allclose(gradient_mass(rec, g, 0, bins=2), by_hand, atol=1e-3)
    with pytest.raises(ValueError, match="nothing was recorded"):
        gradient_mass(recording_of(tmp_path / "b", [[None, None]]), lambda x: x, 0)


@pytest.mark.parametrize("bins", [5, 15])
def test_calibration_against_torchmetrics_and_definitions(tmp_path, bins):
    generator = torch.Generator().manual_seed(2)
    logits = 2 * torch.randn(500, 4, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 4, (500,), generator=generator)
    found = calibration(logits, target, bins=bins)
    reference = MulticlassCalibrationError(4, n_bins=bins)(logits.softmax(1), target)
    assert found.ece == pytest.approx(float(reference), abs=1e-6)
    one_hot = torch.nn.functional.one_hot(target, 4)
    assert found.brier == pytest.approx(float(((logits.softmax(1) - one_hot) ** 2).sum(1).mean()))
    assert found.nll == pytest.approx(float(torch.nn.functional.cross_entropy(logits, target)))
    assert found.accuracy == float((logits.argmax(1) == target).double().mean())
    with ProbabilityRecorder(tmp_path, 500, 2) as recorder:
        recorder.record(0, range(500), logits, target)
    recorded, missing = calibration_history(Recording(tmp_path), bins=bins)
    assert recorded.accuracy == found.accuracy
    assert recorded.nll == pytest.approx(found.nll, rel=1e-4)
    assert recorded.brier == pytest.approx(found.brier, rel=1e-3)
    assert recorded.ece == pytest.approx(found.ece, abs=5e-3)
    assert np.isnan(missing.accuracy)


def test_calibration_needs_examples_with_a_class():
    with pytest.raises(ValueError, match="expected logits"):
        calibration(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"target must be in \[0, 2\), got -100 to 1"):
        calibration(torch.zeros(2, 2), torch.tensor([1, -100]))
