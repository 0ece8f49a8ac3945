"""Work done at the same time. Called by network.py and links.py."""

from __future__ import annotations

import threading
from typing import Any, Callable, Dict, List


def together(functions: List[Callable[[], Any]]) -> None:
    """Run functions at the same time; return when all have ended, raising what the first of them raised, if any did."""
    errors: Dict[int, BaseException] = {}

    def run(index: int) -> None:
        try:
            functions[index]()
        except BaseException as error:
            errors[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(1, len(functions))]
    for thread in threads:
        thread.start()
    run(0)
    for thread in threads:
        thread.join()
    if errors:
        raise errors[min(errors)]
