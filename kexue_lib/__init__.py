"""The library of the executable edition of 科学空间 (kexue.fm).

Importing the package imports nothing else: each module is loaded where it is used, and only modules that
train something load a framework.
"""

from kexue_lib.version import __version__

__all__ = ["__version__"]
