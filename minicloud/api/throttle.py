"""How often signatures may fail before a client is sent away unverified.

Owns counts in memory, bounded, and no clock of its own. Refuses to decide by access key alone: whoever knows no more
than an access key id could then lock its owner out from anywhere. So:

- Failures count against the pair of address and key, and against the address alone, so that trying many keys is no way
  around. A network of IPv6 addresses that one client is given (/64) is one address.
- A pair that signed well before is always verified, and so is never shut out by a neighbour behind the same address
  who guesses at the same key. Past the bound its failures are answered as throttled, too.
- A key that signed well before, from anywhere, is not held to the bound of an address alone: a neighbour's guesses at
  made-up keys do not keep it out of where it is new.

What is remembered, good or bad, is bounded, and forgotten in the order it was last used.
Called by authentication.py.
"""

from __future__ import annotations

import ipaddress
import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from minicloud.clock import Clock

# Failures at once, and how many more a second: a client with a wrong secret retries a few times and tells its user.
PAIR_BURST, PAIR_PER_SECOND = 20.0, 1.0
ADDRESS_BURST, ADDRESS_PER_SECOND = 100.0, 5.0
MAX_REMEMBERED = 4096

K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class _Buckets(Generic[K]):
    """Token buckets by key; one that was forgotten is full."""

    def __init__(self, burst: float, per_second: float, max_remembered: int) -> None:
        self._burst = burst
        self._per_second = per_second
        self._max_remembered = max_remembered
        self._buckets: OrderedDict[K, _Bucket] = OrderedDict()

    def is_empty(self, key: K, now: float) -> bool:
        """Say whether there is no token left."""
        bucket = self._buckets.get(key)
        return bucket is not None and self._level(bucket, now) < 1

    def take(self, key: K, now: float) -> bool:
        """Take a token; False when there was none."""
        bucket = self._buckets.pop(key, None) or _Bucket(self._burst, now)
        level = self._level(bucket, now)
        self._buckets[key] = _Bucket(level - 1 if level >= 1 else level, now)
        while len(self._buckets) > self._max_remembered:
            self._buckets.popitem(last=False)
        return level >= 1

    def _level(self, bucket: _Bucket, now: float) -> float:
        return min(self._burst, bucket.tokens + (now - bucket.filled_at) * self._per_second)


class _Remembered(Generic[K]):
    """A set that forgets what was used longest ago."""

    def __init__(self, max_remembered: int) -> None:
        self._max_remembered = max_remembered
        self._keys: OrderedDict[K, None] = OrderedDict()

    def __contains__(self, key: K) -> bool:
        return key in self._keys

    def add(self, key: K) -> None:
        self._keys[key] = None
        self._keys.move_to_end(key)
        if len(self._keys) > self._max_remembered:
            self._keys.popitem(last=False)


class FailureThrottle:
    """Counts failed signatures; safe in any number of threads. `address` is the client's, as text."""

    def __init__(self, clock: Clock, max_remembered: int = MAX_REMEMBERED) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._pairs: _Buckets[tuple[str, str]] = _Buckets(PAIR_BURST, PAIR_PER_SECOND, max_remembered)
        self._addresses: _Buckets[str] = _Buckets(ADDRESS_BURST, ADDRESS_PER_SECOND, max_remembered)
        self._good_pairs: _Remembered[tuple[str, str]] = _Remembered(max_remembered)
        self._good_keys: _Remembered[str] = _Remembered(max_remembered)

    def admits(self, address: str, access_key_id: str) -> bool:
        """Say whether a signature is to be verified at all."""
        network = _network(address)
        pair = (network, access_key_id)
        with self._lock:
            now = self._clock.monotonic_seconds()
            if pair in self._good_pairs:
                return True
            if self._pairs.is_empty(pair, now):
                return False
            return access_key_id in self._good_keys or not self._addresses.is_empty(network, now)

    def failed(self, address: str, access_key_id: str) -> bool:
        """Count a failure; False when there were too many before, so that it is answered as throttled."""
        network = _network(address)
        with self._lock:
            now = self._clock.monotonic_seconds()
            is_within = self._pairs.take((network, access_key_id), now)
            if access_key_id not in self._good_keys:
                is_within &= self._addresses.take(network, now)
            return is_within

    def succeeded(self, address: str, access_key_id: str) -> None:
        """Remember a good signature."""
        with self._lock:
            self._good_pairs.add((_network(address), access_key_id))
            self._good_keys.add(access_key_id)


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)
