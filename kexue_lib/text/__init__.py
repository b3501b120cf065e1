"""Texts and their structure: NumPy and matplotlib only."""
