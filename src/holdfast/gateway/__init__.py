"""The gateway: the pipe as a service, for clients in every language.

A stream here outlives its reader, the network, and the process that served it. `server.py` is the door, `streams.py`
what runs behind it, `journal/` where a stream's records are kept, `production.py` who writes them. Extra `gateway`.
"""

from holdfast.gateway.settings import Settings, UpstreamSettings

__all__ = ["Settings", "UpstreamSettings"]
