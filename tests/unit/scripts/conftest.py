"""Makes the modules of scripts/ importable: they run on the system's python3 and belong to no package."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts"))
