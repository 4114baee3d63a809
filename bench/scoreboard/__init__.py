"""The scoreboard: other clients and Holdfast against the same faults: `make scoreboard`."""
