"""The codes of failures that somebody branches on, in one place. Values only.

A permanent failure of an instance's verbs becomes the instance's StateReason, so those are EC2's own codes (EC2 API
reference, StateReason); the controller answers MISSING_BASE itself, by a fill job, and shows it to nobody.
"""

from __future__ import annotations

INTERNAL = "Server.InternalError"
NO_SPACE = "Server.InsufficientInstanceCapacity"
MISSING_BASE = "missing-base"

# Transient: the call may be repeated.
STALE_EPOCH = "stale-epoch"
BUSY = "busy"
POOL_MISSING = "pool-missing"

# Of jobs. JOB_LOST: it died without a verdict (killed, or the host restarted): clean it and start it again.
JOB_LOST = "job-lost"
UNAVAILABLE = "unavailable"
INVALID_IMAGE = "invalid-image"
CORRUPT_BLOCK = "corrupt-block"
