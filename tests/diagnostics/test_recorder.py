import json
import os
import signal
from collections import UserDict

import numpy as np
import pytest
import torch

from crossfade.diagnostics import IndexedDataset, ProbabilityRecorder, Recording
from crossfade.diagnostics.recorder import Watcher


def test_what_is_recorded_is_what_softmax_says(tmp_path):
    generator = torch.Generator().manual_seed(1)
    logits, target = 6 * torch.randn(40, 5, generator=generator), torch.randint(0, 5, (40,), generator=generator)
    before = logits.clone()
    order = torch.randperm(40, generator=generator)
    with ProbabilityRecorder(tmp_path / "r", examples=40, epochs=2) as recorder:
        for rows in order.split(16):
            recorder.record(1, rows, logits[rows], target[rows])
    assert torch.equal(logits, before)
    read = Recording(tmp_path / "r")
    p = logits.double().softmax(1)
    one_hot = torch.nn.functional.one_hot(target, 5)
    np.testing.assert_allclose(read.p(1), p.gather(1, target[:, None])[:, 0], rtol=2e-2, atol=2e-4)
    np.testing.assert_allclose(read.ce(1), -p.gather(1, target[:, None])[:, 0].log(), rtol=5e-4, atol=1e-6)
    np.testing.assert_allclose(read.confidence(1), p.max(1).values, atol=5e-4)
    np.testing.assert_allclose(read.brier(1), ((p - one_hot) ** 2).sum(1), atol=1e-3)
    assert np.array_equal(read.correct(1), (p.argmax(1) == target).numpy())
    assert not read.seen(0).any()
    assert read.complete() == [1]


def test_extreme_logits_keep_their_cross_entropy_and_their_verdict(tmp_path):
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0], [3e38, 0.0], [0.0, 3e38]])
    with ProbabilityRecorder(tmp_path, 4, 1) as recorder:
        recorder.record(0, range(4), logits, torch.zeros(4, dtype=torch.int64))
    read = Recording(tmp_path)
    assert read.ce(0).tolist() == [0.0, 200.0, 0.0, 65504.0]
    assert read.correct(0).tolist() == [True, False, True, False]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_logits_of_any_precision(tmp_path, dtype):
    with ProbabilityRecorder(tmp_path, 1, 1) as recorder:
        recorder.record(0, [0], torch.tensor([[1.0, 0.0]], dtype=dtype), torch.tensor([0]))
    assert Recording(tmp_path).p(0)[0] == pytest.approx(0.7310586, abs=2e-4)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_targets_of_any_integer_type(tmp_path, dtype):
    with ProbabilityRecorder(tmp_path, 1, 1) as recorder:
        recorder.record(0, [0], torch.tensor([[1.0, 0.0]]), torch.tensor([1], dtype=dtype))
    assert Recording(tmp_path).p(0)[0] == pytest.approx(0.2689414, abs=2e-4)


@pytest.mark.parametrize("size", [0, 100, 130])
def test_a_torn_recording_is_refused_and_begun_again_by_a_watcher(tmp_path, size):
    ProbabilityRecorder(tmp_path, 2, 1).flush()
    os.truncate(tmp_path / "probabilities.npy", size)
    with pytest.raises(ValueError, match=r"mmap length|EOF"):
        ProbabilityRecorder(tmp_path, 2, 1)
    watcher = Watcher({"test": (tmp_path, 2)}, epochs=1, watched=[0])
    watcher(0, "test", torch.arange(2), torch.zeros(2, 2), torch.tensor([0, 1]))
    assert watcher.missing(1) == 0


def test_a_recording_continues_and_another_shape_is_refused(tmp_path):
    logits, target = torch.zeros(1, 2), torch.tensor([0])
    with ProbabilityRecorder(tmp_path, 2, 3) as recorder:
        recorder.record(0, [0], logits, target)
    with ProbabilityRecorder(tmp_path, 2, 3) as recorder:
        recorder.record(1, [1], logits, target)
    read = Recording(tmp_path)
    assert [read.seen(epoch).tolist() for epoch in range(3)] == [[True, False], [False, True], [False, False]]
    with pytest.raises(ValueError, match="take a new folder"):
        ProbabilityRecorder(tmp_path, 2, 4)
    with pytest.raises(FileNotFoundError, match="no recording"):
        Recording(tmp_path / "elsewhere")


KILLED = """
import os, signal, torch
from crossfade.diagnostics import ProbabilityRecorder
recorder = ProbabilityRecorder({folder!r}, examples=10, epochs=3)
for epoch in range(3):
    for rows in torch.arange(10).split(4):
        if epoch == 1 and rows[0] == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        recorder.record(epoch, rows, torch.zeros(len(rows), 2), torch.zeros(len(rows)).long())
    recorder.flush()
"""


def test_a_killed_process_loses_nothing_that_was_flushed(start_script, tmp_path):
    process = start_script(KILLED.format(folder=str(tmp_path / "r")))
    process.join()
    assert process.exitcode == -signal.SIGKILL
    read = Recording(tmp_path / "r")
    assert read.complete() == [0]
    assert not read.seen(1).any()
    with ProbabilityRecorder(tmp_path / "r", examples=10, epochs=3) as recorder:
        recorder.record(1, range(10), torch.zeros(10, 2), torch.zeros(10, dtype=torch.int64))
    assert Recording(tmp_path / "r").complete() == [0, 1]


@pytest.mark.parametrize("sizes", [[7] * 60, [3, 50, 1, 9] * 20, [400, 400]])
def test_groups_hold_what_single_batches_do(tmp_path, sizes):
    """Whatever the sizes, types and epochs of the batches in a group."""
    generator = torch.Generator().manual_seed(0)
    total = sum(sizes)
    order = torch.randperm(total, generator=generator).split(sizes)
    whole, single = (ProbabilityRecorder(tmp_path / name, total, 2) for name in ("whole", "single"))
    for at, rows in enumerate(order):
        logits = torch.randn(len(rows), 700, generator=generator).to(torch.bfloat16 if at % 5 == 0 else torch.float32)
        target = torch.randint(700, (len(rows),), generator=generator)
        for recorder in (whole, single):
            recorder.record(at % 2, rows, logits, target)
        logits.zero_()  # the caller's memory is the caller's
        single.flush()
    whole.flush()
    for epoch in range(2):
        for what in ("seen", "ce", "correct", "confidence", "brier"):
            one, other = (getattr(Recording(tmp_path / name), what)(epoch) for name in ("whole", "single"))
            np.testing.assert_array_equal(one, other)


def test_a_kill_between_array_and_description_is_repaired(tmp_path):
    ProbabilityRecorder(tmp_path, 2, 1).flush()
    (tmp_path / "recording.json").unlink()
    with ProbabilityRecorder(tmp_path, 2, 1) as recorder:
        recorder.record(0, [0, 1], torch.zeros(2, 2), torch.tensor([0, 1]))
    assert Recording(tmp_path).complete() == [0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["probabilities.npy", "recording.json"]
    assert json.loads((tmp_path / "recording.json").read_text())["examples"] == 2


def test_processes_share_a_folder(tmp_path):
    first, second = (ProbabilityRecorder(tmp_path, 4, 1) for _ in range(2))
    first.record(0, [0, 2], torch.zeros(2, 2), torch.tensor([0, 0]))
    second.record(0, [1, 3], torch.zeros(2, 2), torch.tensor([0, 0]))
    first.flush()
    second.flush()
    assert Recording(tmp_path).complete() == [0]


def test_the_size_of_the_issue_is_sixty_megabytes(tmp_path):
    ProbabilityRecorder(tmp_path, examples=50_000, epochs=200).flush()
    assert (tmp_path / "probabilities.npy").stat().st_size == pytest.approx(60e6, rel=1e-3)


def test_bad_input(tmp_path):
    recorder = ProbabilityRecorder(tmp_path, 2, 1)
    logits, target = torch.zeros(1, 2), torch.tensor([0])
    with pytest.raises(IndexError, match=r"epoch must be in \[0, 1\)"):
        recorder.record(1, [0], logits, target)
    with pytest.raises(IndexError, match=r"index must be in \[0, 2\)"):
        recorder.record(0, [2], logits, target)
    with pytest.raises(IndexError, match=r"index must be in \[0, 2\)"):
        recorder.record(0, [-1], logits, target)
    with pytest.raises(ValueError, match=r"target must be in \[0, 2\)"):
        recorder.record(0, [0], logits, torch.tensor([2]))
    for wrong in (torch.tensor([0.0]), torch.tensor([False])):
        with pytest.raises(ValueError, match="target must hold integers, got"):
            recorder.record(0, [0], logits, wrong)
        with pytest.raises(ValueError, match="index must hold integers, got"):
            recorder.record(0, wrong, logits, target)
    with pytest.raises(ValueError, match="got shapes"):
        recorder.record(0, [0, 1], logits, target)
    with pytest.raises(ValueError, match="must be positive"):
        ProbabilityRecorder(tmp_path / "x", 0, 1)
    assert not Recording(tmp_path).seen(0).any()


def test_indexed_data_sets():
    tuples = IndexedDataset(torch.utils.data.TensorDataset(torch.arange(3.0), torch.arange(3)))
    assert tuples[2] == (torch.tensor(2.0), torch.tensor(2), 2)
    assert IndexedDataset([{"labels": 1}])[0] == IndexedDataset([UserDict(labels=1)])[0] == {"labels": 1, "index": 0}
    batch = next(iter(torch.utils.data.DataLoader(tuples, batch_size=3)))
    assert batch[2].tolist() == [0, 1, 2]
