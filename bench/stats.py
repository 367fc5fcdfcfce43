"""Statistics of the benchmarks: medians, and how two alternating series of times compare.

Two series A and B, taken in turn in one run, are compared by the ratio of their medians. Its 95 % confidence interval is
the percentile bootstrap's, over rounds: a round's A and B are drawn together, so that a noise which lasts over a round
falls on both. The random numbers are seeded: the same samples give the same interval.

Below 6 rounds there is none ("low" and "high" are None): the range of 3 samples holds the median 3 times in 4, that of 5 15 times
in 16. With 6 to 10 rounds the interval holds the truth 91 to 95 times in 100 (normal noise; test_stats.py).
"""
import math
import random
import statistics

RESAMPLES = 2000
FEWEST_ROUNDS = 6


def quantile(values, share):
    """Linear interpolation between order statistics; share 0 to 1."""
    if not values or not 0 <= share <= 1:
        raise ValueError("wanted samples and a share of 0 to 1")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = math.ceil(place)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def median(values):
    return statistics.median(values)


def bootstrap(count, estimate, resamples=RESAMPLES, seed=1):
    """The 95 % interval of estimate(indexes), of `count` rounds drawn with replacement: {"low", "high"}."""
    if count < 1:
        raise ValueError("wanted at least one round")
    if count < FEWEST_ROUNDS:
        return {"low": None, "high": None}
    source = random.Random(seed)
    found = [estimate([source.randrange(count) for _ in range(count)]) for _ in range(resamples)]
    return {"low": quantile(found, 0.025), "high": quantile(found, 0.975)}


def ratio(a, b):
    """Median of A over median of B: {"ratio", "low", "high"}. Of the same number of rounds each, all above zero."""
    if len(a) != len(b) or not a:
        raise ValueError(f"wanted as many A as B, found {len(a)} and {len(b)}")
    if min(b) <= 0:
        raise ValueError("wanted samples above zero")
    return {"ratio": median(a) / median(b),
            **bootstrap(len(a), lambda rounds: median([a[i] for i in rounds]) / median([b[i] for i in rounds]))}


def middle(values):
    """Median of one series: {"median", "low", "high"}."""
    return {"median": median(values), **bootstrap(len(values), lambda rounds: median([values[i] for i in rounds]))}
