"""What the gateway costs, beside other relays, in one run: `python -m bench.gateway` writes docs/gateway-cost.md."""
