import pytest

from meshkit.errors import ContextTooLong, FieldInvalid
from services.inference.answers import check_least, output_limit
from services.inference.keeper import pause_seconds
from services.inference.sampling import Sampling


def test_an_answer_may_use_the_context_the_prompt_leaves():
    assert output_limit(100, None, 128) == 28


def test_a_limit_of_the_caller_wins_when_it_fits():
    assert output_limit(100, 28, 128) == 28


@pytest.mark.parametrize(("prompt", "wanted"), [(128, None), (200, None), (100, 29), (128, 1)])
def test_prompt_and_answer_that_do_not_fit_are_refused(prompt, wanted):
    with pytest.raises(ContextTooLong) as caught:
        output_limit(prompt, wanted, 128)
    assert caught.value.metadata == {"prompt_tokens": str(prompt), "context_tokens": "128"}


def test_an_answer_need_not_be_longer_than_it_may():
    check_least(Sampling(), 1)
    check_least(Sampling(parameters={"min_tokens": 5}), 5)
    with pytest.raises(FieldInvalid) as caught:
        check_least(Sampling(parameters={"min_tokens": 6}), 5)
    assert caught.value.metadata == {"field": "min_tokens"}


def test_pauses_grow_with_failures_up_to_a_minute():
    assert [pause_seconds(failures) for failures in (0, 1, 2, 3, 10)] == [0, 2, 4, 8, 60]


def test_a_model_that_fails_for_days_is_still_tried_every_minute():
    assert pause_seconds(5000) == 60
