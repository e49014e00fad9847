"""What is trained as the cross-encoder is what the inference room then computes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from services.inference.e5.adapters import AdapterInvalid
from services.inference.e5.crossencoder import LAYERS, CrossEncoder, as_one, save
from tests.eval.cache.crossencoder import Head, Training, samples
from tests.eval.cache.questions import Pair
from tests.eval.finetuning import Trainable

PAIRS = [
    ("How do I convert dollars to euros?", "How do I convert euros to dollars?"),
    ("Сколько стоит билет до Москвы?", "Какова цена билета в Москву?"),
    ("день", "What is the day after tomorrow called, and who named it?"),
]


@pytest.fixture(scope="module")
def trained() -> tuple[Trainable, Head]:
    """Adapter and head of small random numbers."""
    torch.manual_seed(1)
    model = Trainable(rank=4, first_adapted=3, layers=LAYERS)
    head = Head(model.width).eval()
    with torch.no_grad():
        for parameter in [*model.parameters(), *head.parameters()]:
            parameter.normal_(std=0.1)
    return model, head


def in_pytorch(model: Trainable, head: Head, first: str, second: str) -> float:
    tokens, start = as_one(model.inputs, first, second)
    with torch.no_grad():
        states, mask = model.states([model.fixed(tokens)])
        return float(head(states, mask, torch.tensor([start])))


def test_scores_are_those_of_the_trained_model(trained: tuple[Trainable, Head], tmp_path: Path) -> None:
    model, head = trained
    save(model.adapter(), head.weights(), tmp_path / "small.npz")
    crossencoder = CrossEncoder(path=tmp_path / "small.npz")
    served = [crossencoder.log_odds(*pair) for pair in PAIRS]
    assert served == pytest.approx([in_pytorch(model, head, *pair) for pair in PAIRS], abs=0.05)


def test_many_texts_below_the_adapter_are_what_each_is_alone(trained: tuple[Trainable, Head]) -> None:
    model, _ = trained
    tokens = [as_one(model.inputs, *pair)[0] for pair in PAIRS]
    for one, together in zip(tokens, model.fixed_all(tokens), strict=True):
        assert torch.allclose(model.fixed(one), together.float(), atol=0.01)


def test_other_weights_have_another_name(trained: tuple[Trainable, Head], tmp_path: Path) -> None:
    model, head = trained
    names = set[str]()
    for shift in (0.0, 0.0, 1.0):
        weights = head.weights()
        weights["weighed.bias"] = weights["weighed.bias"] + shift
        save(model.adapter(), weights, tmp_path / "weights.npz")
        names.add(CrossEncoder(path=tmp_path / "weights.npz").name)
    assert len(names) == 2


def test_weights_for_another_model_are_refused(trained: tuple[Trainable, Head], tmp_path: Path) -> None:
    model, head = trained
    adapter = {**model.adapter(), "l5.fi.up": model.adapter()["l5.fi.up"][:, :100]}
    save(adapter, head.weights(), tmp_path / "strange.npz")
    with pytest.raises(AdapterInvalid, match=r"l5\.fi"):
        CrossEncoder(path=tmp_path / "strange.npz")


def test_long_texts_are_read_from_their_beginning() -> None:
    crossencoder = CrossEncoder()
    long = "Why is the sea salt? " * 200
    assert crossencoder.log_odds(long, long) == crossencoder.log_odds(long + "And the rest?", long)


def test_what_it_was_taught_it_tells_apart(tmp_path: Path) -> None:
    cluster = [
        Pair("train", "en", "money", 0, "same", "Change dollars to euros", "Turn dollars into euros"),
        Pair("train", "en", "money", 0, "order", "Change dollars to euros", "Change euros to dollars"),
        Pair("train", "en", "money", 0, "thing", "Change dollars to euros", "Change dollars to pesos"),
    ]
    drawn = samples(cluster)
    Training([next(drawn) for _ in range(40)]).train(tmp_path / "taught.npz")
    same, *others = (CrossEncoder(path=tmp_path / "taught.npz").log_odds(pair.a, pair.b) for pair in cluster)
    assert same > 0 > max(others)


def test_training_goes_on_with_all_that_is_new_and_half_of_what_is_known() -> None:
    known = [Pair("train", "en", "money", number, "same", "a", "b") for number in range(100)]
    new = [Pair("train", "en", "fresh: cars", number, "same", "a", "b") for number in range(10)]
    drawn = Counter(pair.topic for pair in next(samples([*known, *new], new=("fresh",))))
    assert drawn["fresh: cars"] == 10
    assert 30 < drawn["money"] < 70
