"""The one setting that every command needs, read without the cost of a YAML parser when the file does not set it."""

from __future__ import annotations

import re
from pathlib import Path

DEFAULT_SOCKET_PATH = "/run/minicloud/minicloud.sock"


def socket_path(config_path: str) -> str:
    """Return the daemon's socket as the configuration at `config_path` says. Raises ConfigError."""
    try:
        text = Path(config_path).read_text(encoding="utf-8")
    except OSError:
        return DEFAULT_SOCKET_PATH
    if not re.search(r"^\s*[\"']?socket_path", text, re.MULTILINE):
        return DEFAULT_SOCKET_PATH
    plain = re.search(r"^socket_path: (/[\w./-]+)$", text, re.MULTILINE)
    if plain:
        return plain.group(1)
    from minicloud.config import load_config

    return load_config(config_path).socket_path
