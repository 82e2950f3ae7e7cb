"""Ports that another program of ours needs for a while: a file in the data folder names the port and the process.

While that process lives, the gateway lets the port alone; when it ends, however it ends, the gateway takes the port back.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

FOLDER = "lent-ports"


def lent_file(data: Path, real: str) -> Path:
    """Its text is a process id. real: the port's path without symbolic links."""
    return data / FOLDER / quote(real, safe="")


def is_lent(folder: str, real: str) -> bool:
    """folder: of such files; "" = nothing is ever lent."""
    if not folder:
        return False
    try:
        process = int(Path(folder, quote(real, safe="")).read_text("ascii"))
        if process > 0:
            os.kill(process, 0)
    except PermissionError:  # another user's, so it lives
        return True
    except (OSError, ValueError):
        return False
    return process > 0


__all__ = ["FOLDER", "is_lent", "lent_file"]
