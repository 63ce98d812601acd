"""What became of the attempts of a day, condensed: counts by slot of time and by bucket of latency."""

import math

from msgspec import Struct, field

#: Attempts are counted by the slot in which they ended.
SLOT_S = 300
#: Slots that are older say nothing any more.
WINDOW_S = 24 * 3600
#: Buckets of latency for each doubling, so one is a fifth wider than the one below it. Bucket 0 begins at 1 ms.
BUCKETS_PER_DOUBLING = 4
#: Holds all that is slower than half an hour.
BUCKET_MAX = 83
#: The bucket of what was no success: it has no latency that says anything.
NO_SUCCESS = -1


def bucket_of(latency_s: float) -> int:
    """The bucket of a latency."""
    return min(BUCKET_MAX, math.floor(BUCKETS_PER_DOUBLING * math.log2(max(1.0, latency_s * 1000))))


def latency_of(bucket: float) -> float:
    """The latency at the lower end of a bucket, in seconds; a fraction lies within it."""
    return float(2 ** (bucket / BUCKETS_PER_DOUBLING)) / 1000


def weight_of(age_s: float, half_life_s: float) -> float:
    """What an attempt counts that ended `age_s` ago: 1 now, one half after a half-life."""
    return math.exp(-math.log(2) * max(0.0, age_s) / half_life_s)


class Counts(Struct):
    """Attempts of one provider with one model, each with a weight.

    What the customer caused is not among them: refused inputs and contents, cancels that cost nothing.
    """

    attempts: float = 0.0
    failures: float = 0.0
    wasted: float = 0.0
    """Attempts that cost the operator without being used; most are failures too, a late result is not."""
    latencies: dict[int, float] = field(default_factory=dict)
    """Successes by the bucket of their latency, from submission to the stored output."""

    @property
    def successes(self) -> float:
        """Attempts whose output was used."""
        return sum(self.latencies.values())

    def add(self, bucket: int, attempts: float, failures: float, wasted: float, weight: float = 1.0) -> None:
        """Count attempts of one bucket."""
        self.attempts += attempts * weight
        self.failures += failures * weight
        self.wasted += wasted * weight
        if bucket != NO_SUCCESS:
            self.latencies[bucket] = self.latencies.get(bucket, 0.0) + attempts * weight

    def add_all(self, others: "Counts", weight: float = 1.0) -> None:
        """Count what has been counted elsewhere."""
        self.attempts += others.attempts * weight
        self.failures += others.failures * weight
        self.wasted += others.wasted * weight
        for bucket, count in others.latencies.items():
            self.latencies[bucket] = self.latencies.get(bucket, 0.0) + count * weight

    def quantile(self, share: float) -> float | None:
        """The latency in seconds within which this share of the successes came; None without successes.

        Between the ends of a bucket it is interpolated, so it is off by less than a fifth.
        """
        left = share * self.successes
        if left <= 0:
            return None
        buckets = sorted(bucket for bucket, count in self.latencies.items() if count > 0)
        for bucket in buckets:
            if (count := self.latencies[bucket]) >= left:
                return latency_of(bucket + left / count)
            left -= count
        return latency_of(buckets[-1] + 1)  # the last share was lost in rounding


class Record(Struct):
    """What is known of one provider with one model: the day as it was, and the day as far as it still counts."""

    day: Counts = field(default_factory=Counts)
    lately: Counts = field(default_factory=Counts)
    """Each attempt with the weight that its age leaves it."""
