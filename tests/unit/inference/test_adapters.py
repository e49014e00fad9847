import numpy as np
import pytest
import torch

from services.inference.e5.adapters import AdapterInvalid, load_adapters, save_adapter
from services.inference.e5.encoder import Encoder
from tests.eval.finetuning import Trainable

TEXTS = ["How do I convert 100 US dollars to euros?", "Сколько стоит билет до Москвы, если ехать с ребёнком?", "день"]


@pytest.fixture(scope="module")
def trainable():
    """The model in PyTorch, with an adapter of small random numbers."""
    torch.manual_seed(1)
    model = Trainable(rank=4, first_adapted=7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.12)
    return model


@pytest.fixture(scope="module")
def encoder(trainable):
    return Encoder(adapters={"trained": trainable.adapter()})


def vectors(trainable):
    with torch.no_grad():
        return trainable([trainable.fixed(trainable.tokens(text)) for text in TEXTS]).numpy()


def test_vectors_are_those_of_the_adapted_model_in_pytorch(trainable, encoder):
    for text, wanted in zip(TEXTS, vectors(trainable), strict=True):
        assert encoder.encode(text, adapter="trained").vector @ wanted > 0.9995
        assert encoder.encode(text).vector @ wanted < 0.99


def test_beside_adapters_the_plain_model_is_what_it_was(encoder):
    plain = Encoder()
    for text in TEXTS:
        assert np.array_equal(encoder.encode(text).vector, plain.encode(text).vector)


def test_an_adapter_is_kept_in_half_precision(trainable, encoder, tmp_path):
    save_adapter(trainable.adapter(), tmp_path / "adapters" / "trained.npz")
    read = Encoder(adapters=load_adapters(tmp_path / "adapters"))
    assert set(read.adapters) == {"", "trained"}
    for text in TEXTS:
        one, other = (each.encode(text, adapter="trained").vector for each in (read, encoder))
        assert one @ other > 0.9999


@pytest.mark.parametrize(
    "matrices",
    [
        {"l3.fi.down": (384, 2), "l3.fi.up": (3, 1536)},
        {"l3.fi.down": (384, 2), "l3.fi.up": (2, 384)},
        {"l3.fi.down": (384, 2), "l3.fi.sideways": (2, 1536)},
        {"l3.fi.down": (384, 2)},
        {"l40.fi.down": (384, 2), "l40.fi.up": (2, 1536)},
    ],
)
def test_an_adapter_of_another_model_is_refused_by_name(matrices):
    adapter = {name: np.zeros(shape, np.float32) for name, shape in matrices.items()}
    with pytest.raises(AdapterInvalid, match="'strange'"):
        Encoder(adapters={"strange": adapter})


def test_what_is_trained_is_what_the_adapter_adds(trainable):
    trainable([trainable.fixed(trainable.tokens("day"))]).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in trainable.parameters())
    trainable.zero_grad()
