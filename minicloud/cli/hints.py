"""The next step to take after an error, by EC2's code. Owns sentences only."""

from __future__ import annotations

HINTS = {
    "InvalidAMIID.NotFound": "See `minicloud image ls`, or register one: `minicloud image register FILE --name NAME`.",
    "InvalidAMIID.Unavailable": "Its import may still be running: `minicloud image ls` shows the state.",
    "InvalidInstanceID.NotFound": "See `minicloud instance ls --all`.",
    "InvalidInstanceID.Malformed": "Give an id such as i-0123456789abcdef0, or the instance's Name tag.",
    "InvalidKeyPair.NotFound": "See `minicloud key ls`, or make one: `minicloud key create NAME`.",
    "InvalidKeyPair.Duplicate": "Use another name, or remove the old key: `minicloud key rm NAME`.",
    "InsufficientInstanceCapacity": (
        "`minicloud host ls` shows what is free. Stop something, use a smaller type, add a host,"
        " or raise the over-commit ratios in the configuration."
    ),
    "InvalidParameterValue": "`minicloud COMMAND --help` lists what is accepted.",
    "IncorrectInstanceState": "`minicloud instance ls` shows the state; wait for it, or stop with --force.",
    "OperationNotPermitted": "Its protection must be taken off before.",
    "InvalidAMIName.Duplicate": "Use another --name, or remove the old image: `minicloud image rm NAME`.",
    "InternalError": "The daemon's log has the whole story under this request id.",
}


def hint_for(code: str) -> str | None:
    """Return the sentence for an error code, if there is one."""
    return HINTS.get(code)
