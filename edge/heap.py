"""The heap of the C library: large blocks of polars, SQLite and Python come from it."""

import contextlib
import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h of glibc
_BLOCKS = 32 * 2**20  # the most that glibc takes: blocks of a file are far smaller


def use_one_arena() -> None:
    """Share freed memory between threads, which use large blocks in turn: 35 MB less are kept.

    And keep what large blocks need between them: a file is read in a twentieth less time where the
    kernel need not clear the same pages again and again. Call it before polars is imported.
    """
    # polars adds its own to this in the environment, which a process that started us handed down.
    options = ["narenas:1", os.environ.get("_RJEM_MALLOC_CONF")]
    os.environ["_RJEM_MALLOC_CONF"] = ",".join(filter(None, options))
    with contextlib.suppress(AttributeError):  # musl has no arenas
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_THRESHOLD, _BLOCKS)
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * _BLOCKS)


def give_back() -> None:
    """Give the system what lies idle between blocks in use: when much was needed, but only once."""
    with contextlib.suppress(AttributeError):  # musl does so by itself
        ctypes.CDLL(None).malloc_trim(0)
