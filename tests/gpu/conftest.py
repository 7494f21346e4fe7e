import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def gpu():
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here")
