import pytest

from tests.diagnostics.dense_truth import Small, small_network


@pytest.fixture
def small() -> Small:
    return small_network()
