"""Seals: short texts that only this cloud can write and read, and that age. Page tokens and sessions are such.

Owns the key (in the database, so that a restart and a second daemon open what was sealed) and nothing of what is
sealed. Encryption, signature and date are Fernet's.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from minicloud.clock import MICROSECONDS
from minicloud.model.resources import Secret
from minicloud.store.store import Store, Tx

PURPOSE = "seal"
_KEY_BYTES = 32


class SealError(Exception):
    """A text that this cloud did not seal for this purpose, or too long ago."""


class Seals:
    """Seals and opens. The key is made with the first seal."""

    def __init__(self, store: Store, random_bytes: Callable[[int], bytes]) -> None:
        self._store = store
        self._random_bytes = random_bytes
        self._lock = threading.Lock()
        self._keys: MultiFernet | None = None

    def seal(self, purpose: str, payload: dict[str, Any]) -> str:
        """Return a text that carries a JSON object; it tells nothing to whoever holds it."""
        text = json.dumps([purpose, payload], separators=(",", ":"), sort_keys=True).encode()
        return self._fernet().encrypt_at_time(text, self._now_seconds()).decode()

    def open(self, purpose: str, token: str, max_age_seconds: int | None) -> dict[str, Any]:
        """Return what was sealed for a purpose, at most so long ago; None: whenever the clock says that was.

        Raises SealError.
        """
        try:
            # Fernet reads over what stands behind the padding and over characters that are none of base64's.
            if base64.urlsafe_b64encode(base64.urlsafe_b64decode(token)).decode() != token:
                raise SealError
            if max_age_seconds is None:
                text = self._fernet().decrypt(token)
            else:
                text = self._fernet().decrypt_at_time(token, max_age_seconds, self._now_seconds())
        except (InvalidToken, ValueError):  # ValueError: not ASCII, not base64
            raise SealError from None
        sealed_for, payload = json.loads(text)
        if sealed_for != purpose:
            raise SealError
        return dict(payload)

    def _now_seconds(self) -> int:
        return self._store.now_us() // MICROSECONDS

    def _fernet(self) -> MultiFernet:
        with self._lock:
            if self._keys is None:
                secrets = self._store.read(_sealing) or self._store.write(self._make)
                self._keys = MultiFernet([Fernet(one.value) for one in reversed(secrets)])
            return self._keys

    def _make(self, tx: Tx) -> list[Secret]:
        made = _sealing(tx)
        if not made:
            key = base64.urlsafe_b64encode(self._random_bytes(_KEY_BYTES)).decode()
            made = [Secret(id=f"{PURPOSE}-1", purpose=PURPOSE, value=key, created_us=tx.now_us)]
            tx.secrets.insert_many(made)
        return made


def _sealing(tx: Tx) -> list[Secret]:
    return tx.secrets.where(purpose=PURPOSE)
