"""A thousand clients and upstreams with limits and bad days, on a clock that needs no waiting: `make fleet`."""
