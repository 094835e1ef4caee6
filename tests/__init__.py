"""Tests, in the tree of what they test; ``support`` holds their helpers."""
