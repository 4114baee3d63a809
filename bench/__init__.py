"""What a stream costs, measured against floors in the same run: `make bench`."""
