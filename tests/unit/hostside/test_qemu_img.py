"""What qemu-img says of an image counts only if it can be read whole."""

from __future__ import annotations

import pytest

from minicloud.hostside import qemu_img
from minicloud.hostside.inspect import Inspection, Rejected


def test_an_image_that_describes_itself_endlessly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cut_off = b'ng name of a snapshot"}], "virtual-size": 1048576, "format": "qcow2"}'
    monkeypatch.setattr(qemu_img, "_run", lambda *_arguments: cut_off)
    with pytest.raises(Rejected, match="at greater length"):
        qemu_img.cross_check(0, Inspection("qcow2", 1048576))
