"""What is said of differences: checked against scipy, and against chance itself."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from services.router.experiments.measures import Measure
from services.router.experiments.plan import Experiment
from services.router.experiments.significance import Contrast, Estimate
from services.router.experiments.student import quantile, two_sided
from services.router.experiments.tally import Tally
from services.router.experiments.trials import GROUPS, versions
from services.router.experiments.verdicts import Comparison, Findings, Verdict

VARIANTS = versions(
    Experiment.model_validate(
        {"name": "x", "model": "m", "measure": "success", "variants": [{"name": "a"}, {"name": "b"}]}
    ),
    {},
)


@pytest.mark.parametrize("freedom", [1.0, 2.0, 7.3, 19.0, 63.0, 126.0])
@pytest.mark.parametrize("t", [0.0, 0.1, 1.0, 2.5, 6.0, -3.0])
def test_students_t_is_that_of_scipy(t, freedom):
    assert two_sided(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), rel=1e-6)
    assert quantile(0.95, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-6)


def estimate(values, units=None):
    units = np.arange(len(values)) % GROUPS if units is None else units % GROUPS
    counts = np.bincount(units, minlength=GROUPS).astype(float)
    return Estimate.of(counts, np.bincount(units, weights=values, minlength=GROUPS))


def test_one_request_for_each_group_gives_welchs_t():
    chance = np.random.default_rng(3)
    one, other = chance.normal(1.0, 1.0, 60), chance.normal(1.4, 2.0, 50)
    found = Contrast(estimate(one), estimate(other))
    theirs = stats.ttest_ind(other, one, equal_var=False)
    assert found.p_value == pytest.approx(theirs.pvalue, rel=1e-6)
    interval = theirs.confidence_interval(0.95)
    assert found.interval == pytest.approx((interval.low, interval.high), rel=1e-6)


def test_shares_of_many_requests_give_about_the_z_test():
    chance = np.random.default_rng(5)
    one, other = (chance.random(4000) < share for share in (0.90, 0.92))
    found = Contrast(estimate(one.astype(float)), estimate(other.astype(float)))
    pooled = np.concatenate([one, other]).mean()
    z = (other.mean() - one.mean()) / np.sqrt(pooled * (1 - pooled) * 2 / 4000)
    assert found.difference == pytest.approx(other.mean() - one.mean())
    assert abs(found.difference) / found.variance**0.5 == pytest.approx(abs(z), rel=0.2)


def test_requests_of_one_unit_are_not_taken_for_many():
    """Units differ, their requests do not: a thousand requests of forty units say what forty say."""
    chance = np.random.default_rng(8)
    false_alarms = naive_alarms = 0
    for _ in range(200):
        units = np.repeat(np.arange(40), 25)
        arms = [np.repeat(chance.normal(size=40), 25) + chance.normal(0, 0.1, 1000) for _ in range(2)]
        false_alarms += Contrast(*(estimate(arm, units) for arm in arms)).p_value < 0.05
        naive_alarms += stats.ttest_ind(*arms).pvalue < 0.05
    assert false_alarms < 25
    assert naive_alarms > 100


def test_looking_again_and_again_fools_one_test_and_not_the_other():
    """There is no difference; the page is looked at after every hundred requests."""
    chance = np.random.default_rng(11)
    fooled = fooled_anytime = 0
    for _ in range(200):
        one, other = chance.exponential(size=(2, 3000))
        looks = [Contrast(estimate(one[:end]), estimate(other[:end])) for end in range(200, 3001, 100)]
        fooled += any(look.p_value < 0.05 for look in looks)
        fooled_anytime += any(look.anytime_p_value < 0.05 for look in looks)
        assert all((look.anytime_p_value < 0.05) == _excludes_nought(look.anytime_interval) for look in looks)
    assert fooled > 30
    assert fooled_anytime <= 10


def _excludes_nought(interval):
    return interval[0] > 0 or interval[1] < 0


def test_a_difference_that_is_there_is_found():
    chance = np.random.default_rng(13)
    found = 0
    for _ in range(50):
        one, other = chance.normal(1.0, 0.5, 2000), chance.normal(1.1, 0.5, 2000)
        contrast = Contrast(estimate(one), estimate(other))
        low, high = contrast.anytime_interval
        found += contrast.anytime_p_value < 0.05
        assert low < contrast.interval[0] < contrast.interval[1] < high
    assert found >= 48


def tally(requests, successes, units=1000):
    made = Tally()
    for number in range(requests):
        group = number % units % GROUPS
        made.add(group, Measure.ABANDONED, 0.0)
        made.add(group, Measure.SUCCESS, float(number < successes))
    return made


def of_success(findings: Findings) -> Comparison:
    (found,) = [each for each in findings.comparisons() if each.measure is Measure.SUCCESS]
    return found


def shuffled(requests, share, seed):
    made, chance = Tally(), np.random.default_rng(seed)
    for number in range(requests):
        made.add(number % GROUPS, Measure.ABANDONED, 0.0)
        made.add(number % GROUPS, Measure.SUCCESS, float(chance.random() < share))
    return made


def test_too_little_is_called_too_little():
    few = Findings(VARIANTS, [tally(158, 150), tally(150, 100)])
    assert of_success(few).verdict is Verdict.NOT_ENOUGH_DATA
    assert "150 requests" in of_success(few).lacking
    assert "not enough data" in few.conclusion()
    clumped = Findings(VARIANTS, [tally(900, 890, units=7), tally(900, 400, units=7)])
    assert of_success(clumped).verdict is Verdict.NOT_ENOUGH_DATA
    assert "7 groups" in of_success(clumped).lacking
    assert "nothing is known" in Findings(VARIANTS, [Tally(), Tally()]).conclusion()


def test_better_and_worse_are_said_by_what_is_wished_for():
    better = Findings(VARIANTS, [shuffled(1500, 0.80, 1), shuffled(1500, 0.95, 2)])
    assert of_success(better).verdict is Verdict.BETTER
    assert "b by success: better" in better.conclusion()
    worse = Findings(VARIANTS, [shuffled(1500, 0.95, 3), shuffled(1500, 0.80, 4)])
    assert of_success(worse).verdict is Verdict.WORSE
    same = Findings(VARIANTS, [shuffled(1500, 0.9, 5), shuffled(1500, 0.9, 6)])
    assert of_success(same).verdict is Verdict.NO_DIFFERENCE_SHOWN


def test_answers_that_never_fail_do_not_differ():
    found = of_success(Findings(VARIANTS, [shuffled(400, 1, 1), shuffled(400, 1, 2)]))
    assert (found.verdict, found.contrast.p_value) == (Verdict.NO_DIFFERENCE_SHOWN, 1.0)


def test_a_split_that_is_not_the_one_asked_for_is_told():
    arms, chance = [Tally(), Tally()], np.random.default_rng(21)
    for _ in range(1500):
        variant, group = chance.integers(2), chance.integers(GROUPS)
        for _ in range(chance.integers(1, 9)):
            arms[variant].add(int(group), Measure.ABANDONED, 0.0)
    assert Findings(VARIANTS, arms).split_p_value() > 0.001
    lost, rest = Tally(), Tally()
    for group in range(GROUPS):
        for number in range(40 + group % 5):
            (lost if number % 3 == 0 else rest).add(group, Measure.ABANDONED, 0.0)
    uneven = Findings(VARIANTS, [rest, lost])
    assert uneven.split_p_value() < 0.001
    assert "split" in uneven.conclusion()


def test_a_tally_is_read_as_it_was_written_and_adds_up():
    one, other = tally(30, 20), tally(50, 50)
    one.left_out, other.since = 3.0, 17.0
    one.absorb(Tally.decoded(other.encoded()))
    assert (one.left_out, one.since) == (3.0, 17.0)
    assert (one.counts(Measure.SUCCESS).sum(), one.totals(Measure.SUCCESS).sum()) == (80, 70)
    one.correct(0, Measure.SUCCESS, -1.0)
    assert (one.counts(Measure.SUCCESS).sum(), one.totals(Measure.SUCCESS).sum()) == (80, 69)
