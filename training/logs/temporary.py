"""A folder for the copies of logs that cannot be read where they lie."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path


class TemporaryFolder:
    """A folder, `path`, that is deleted once nothing refers to this object, or at exit."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="iql_ros_"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
