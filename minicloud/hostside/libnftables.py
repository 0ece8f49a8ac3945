"""nftables transactions by its own library, in this process: half a millisecond where the program takes six.

Owns the binding (libnftables(3)); the library comes with the nftables package, whose program is a shell around it.
It acts on the network namespace of the calling thread. Called by network.py.
"""

from __future__ import annotations

import ctypes
import threading
from functools import lru_cache
from typing import Any

from minicloud.hostside import codes
from minicloud.hostside.failures import Failure

DETAIL_BYTES = 4000

# The library keeps a few things per process: one thread at a time.
_guard = threading.Lock()


def transact(text: str) -> None:
    """Apply nft commands as one transaction: all of them or none.

    Raises Failure: `nft-refused` (transient; the rules are as before), permanent where nftables is not installed.
    """
    with _guard:
        library = _library()
        context = library.nft_ctx_new(0)
        if not context:
            raise Failure("nft-refused", "libnftables has no memory", transient=True)
        try:
            library.nft_ctx_buffer_error(context)
            library.nft_ctx_buffer_output(context)
            if library.nft_run_cmd_from_buffer(context, text.encode()) != 0:
                said = library.nft_ctx_get_error_buffer(context) or b""
                raise Failure("nft-refused", said[:DETAIL_BYTES].decode("utf-8", "replace"), transient=True)
        finally:
            library.nft_ctx_free(context)


@lru_cache(maxsize=None)
def _library() -> Any:
    try:
        library = ctypes.CDLL("libnftables.so.1")
    except OSError as error:
        raise Failure(codes.INTERNAL, f"nftables is not installed ({error})", transient=False) from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    for name in ("nft_ctx_free", "nft_ctx_buffer_error", "nft_ctx_buffer_output", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return library
