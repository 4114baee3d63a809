"""Fuzzing: `python -m fuzz` throws mutated streams at everything that reads bytes of strangers."""
