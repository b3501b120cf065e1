"""The version; the tag `v<version>` is what Colab installs. CITATION.cff repeats it, and a test compares."""

__version__ = "2026.11"
