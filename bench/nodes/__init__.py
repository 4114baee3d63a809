"""Several gateways and one Redis: what becomes of streams when nodes are killed, frozen and restarted."""
