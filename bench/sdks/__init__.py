"""The SDK matrix: other people's SDKs against the scoreboard's faults, with a mount and without: `make sdk-matrix`."""
