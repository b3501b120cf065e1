"""What all tests of the data need."""

import pytest

from kexue_lib.data import files


@pytest.fixture(autouse=True)
def nothing_at_hand(monkeypatch, tmp_path):
    """Start every test without data, with an empty cache of its own."""
    for name in ("KEXUE_DATA", "KEXUE_DOWNLOAD", "KEXUE_DRY_RUN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(files, "cache_folder", lambda: tmp_path / "cache")
