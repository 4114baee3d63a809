"""Machines decide and never wait: no I/O, no clock, no chance, no logging, no `async`."""
