"""The tools behind the Makefile: execute, check, stage, build, audit, lint, bench."""
