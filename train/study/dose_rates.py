"""Which learning rate a cell of the dose keeps: the one whose runs need the fewest steps."""

import math
import statistics


def hopeless(step: int, steps: dict[float, list[int | None]], rate: float) -> bool:
    """Whether the median T of `rate` can no longer be the lowest, so that its runs may stop at `step`.

    Args:
      steps: by rate, T of each tuning run, None while it has not got there.
    """

    def least(of_rate: float) -> float:
        return statistics.median(step if each is None else each for each in steps[of_rate])

    whole = [statistics.median(runs) for other, runs in steps.items() if other != rate and None not in runs]
    return any(median < least(rate) for median in whole)


def best_rate(steps: dict[float, list[int]], losses: dict[float, float]) -> float:
    """The rate of the lowest median T; of those that tie the one of the lower mean loss, then the smaller.

    Args:
      steps: by rate, T of each tuning run (the cap where it was not reached, the step where `hopeless` stopped it).
      losses: by rate, its runs' mean relational loss at the last look that all of them had.
    """
    return min(steps, key=lambda rate: (statistics.median(steps[rate]), losses[rate], rate))


def extension(rates: tuple[float, ...], best: float) -> float | None:
    """The rate to try beyond the edge that `best` lies at, None inside: .0003 or .03 beside .001, .003 and .01."""
    if len(rates) > 1 and min(rates) < best < max(rates):
        return None
    low = best == min(rates)
    exponent = math.floor(math.log10(best) + 1e-9)
    mantissa = round(best / 10**exponent)
    if low:
        return 3 * 10.0 ** (exponent - 1) if mantissa == 1 else 10.0**exponent
    return 3 * 10.0**exponent if mantissa == 1 else 10.0 ** (exponent + 1)
