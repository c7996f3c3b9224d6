import numpy as np
import pytest

from crossfade.lab.train import Split


def draw(features=4, classes=3, rows=50, val=21, test=17, seed=0):
    """Gaussian inputs, labels from a noisy linear rule: learnable, not separable."""
    generator = np.random.default_rng(seed)
    rule = generator.normal(size=(features, classes))
    parts = []
    for count in (rows, val, test):
        x = generator.normal(size=(count, features)).astype(np.float32)
        parts += [x, (x @ rule + generator.normal(size=(count, classes))).argmax(1)]
    return Split(*parts, classes)


@pytest.fixture(scope="session")
def make_split():
    return draw
