"""What an error of botocore keeps alive: let go of it, or it stays for most of a day.

An error holds the frames it came through, a frame those above it, and botocore and urllib3 keep
errors in variables of theirs. Nobody but Python's collector undoes such a ring, and among its
oldest objects that looks less than once a day: of some dozen failed calls one leaves its body
there, 60 MB in a day without a link.
"""

import traceback
from typing import Any

from edge.aws.unreachable import causes


def let_go(error: BaseException) -> None:
    """Empty the frames that a failed call left; its traceback can still be shown."""
    for each in causes(error):
        traceback.clear_frames(each.__traceback__)


def let_go_of_try(caught_exception: BaseException | None, **_: Any) -> None:
    """The same for one try of a call, whose frames are still in use: it forgets them.

    A handler of botocore's `needs-retry`.
    """
    if caught_exception is not None:
        for each in causes(caught_exception):
            each.__traceback__ = None
