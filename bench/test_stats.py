#!/usr/bin/env python3
"""Tests of stats.py, as TAP."""
import random
import sys

import stats

cases = []


def case(function):
    cases.append(function)
    return function


def refused(function, *arguments):
    try:
        function(*arguments)
    except ValueError:
        return True
    return False


@case
def quantiles_lie_between_their_neighbours():
    return stats.quantile([4, 1, 3, 2], 0.5) == 2.5 and stats.quantile([1, 2, 3], 0) == 1 and \
        stats.quantile([1, 2, 3], 1) == 3 and abs(stats.quantile([0, 10], 0.25) - 2.5) < 1e-12


@case
def equal_series_have_ratio_one():
    found = stats.ratio([5.0] * 9, [5.0] * 9)
    return found == {"ratio": 1.0, "low": 1.0, "high": 1.0}


@case
def a_ratio_of_two_is_found_through_noise_that_both_share():
    source = random.Random(7)
    b = [source.choice([1.0, 1.1, 1.2, 9.0]) for _ in range(60)]
    found = stats.ratio([2 * x for x in b], b)
    return abs(found["ratio"] - 2) < 1e-9 and abs(found["low"] - 2) < 1e-9 and abs(found["high"] - 2) < 1e-9


def times_held(rounds, seed):
    """How often, of 200 times, the interval of a ratio held the truth."""
    source = random.Random(seed)
    held = 0
    for _ in range(200):
        a = [source.gauss(12, 1) for _ in range(rounds)]
        b = [source.gauss(10, 1) for _ in range(rounds)]
        found = stats.bootstrap(rounds, lambda drawn: stats.median([a[i] for i in drawn]) / stats.median([b[i] for i in drawn]), 200)
        held += found["low"] <= 1.2 <= found["high"]
    return held


@case
def the_interval_holds_the_truth_about_19_times_in_20():
    return 180 <= times_held(25, 11) < 200


@case
def and_with_few_rounds_hardly_less():
    return 176 <= times_held(stats.FEWEST_ROUNDS, 5) < 200 and 176 <= times_held(8, 5) < 200


@case
def too_few_rounds_have_no_interval():
    few, enough = [1.0, 2.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 2.0, 1.0, 2.0]
    return stats.ratio(few, few) == {"ratio": 1.0, "low": None, "high": None} and \
        stats.middle(few) == {"median": 2.0, "low": None, "high": None} and \
        stats.ratio(enough, enough)["low"] == 1.0 and stats.middle(enough)["low"] >= 1.0


@case
def fewer_samples_give_a_wider_interval():
    source = random.Random(3)
    a = [source.gauss(10, 2) for _ in range(200)]
    b = [source.gauss(10, 2) for _ in range(200)]
    few, many = stats.ratio(a[:10], b[:10]), stats.ratio(a, b)
    return few["high"] - few["low"] > many["high"] - many["low"]


@case
def the_same_samples_give_the_same_interval():
    a, b = [1.0, 2.0, 3.0, 5.0, 8.0, 1.5, 2.5], [2.0, 2.5, 2.0, 4.0, 9.0, 1.0, 3.0]
    found = stats.ratio(a, b)
    return found == stats.ratio(a, b) and found["low"] < found["ratio"] < found["high"]


@case
def unpaired_or_empty_series_are_refused():
    return refused(stats.ratio, [1], [1, 2]) and refused(stats.ratio, [], []) and refused(stats.ratio, [1], [0]) and \
        refused(stats.middle, []) and refused(stats.quantile, [], 0.5) and refused(stats.quantile, [1], 2)


failed = 0
print(f"1..{len(cases)}")
for number, function in enumerate(cases, 1):
    good = function()
    failed += not good
    print(f"{'ok' if good else 'not ok'} {number} - {function.__name__.replace('_', ' ')}")
sys.exit(failed > 0)
