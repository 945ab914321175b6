"""A disk that is full or cannot be written, as one sentence, whoever met it.

Usage:  disk.sentence(str(error)) or raise
"""

import errno
import os
import re

REMEDIES = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space and start again")
REMEDIES |= dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make it writable")


def sentence(message: str, place: object = "outputs/") -> str:
    """What an error's text says of the disk and the remedy, or '' if it is of something else.

    Libraries wrap the system's error in their own, so its words are looked for; `place` is named
    where they give no file.
    """
    for number, remedy in REMEDIES.items():
        words = os.strerror(number)
        if found := re.search(rf"{re.escape(words)}(?:: '([^']+)')?", message):
            return f"{words}: {found[1] or place}; {remedy}."
    return ""
