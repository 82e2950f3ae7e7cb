"""The journal in files: the parts of this folder that make up the implementation named `files`.

Call order: `FileWriter.open` -> a `Keeper` in a thread, every few seconds -> `close`. Any number of `FileReader`s beside it.
"""

from gateway.journal.keeping import Keeper, Kept, retire
from gateway.journal.options import Options
from gateway.journal.reader import FileReader
from gateway.journal.writer import FileWriter

__all__ = ["FileReader", "FileWriter", "Keeper", "Kept", "Options", "retire"]
