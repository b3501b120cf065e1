"""The one place that holds the version: the tag `v<version>` is what Colab installs."""

__version__ = "2026.11"
