"""State that several processes share: the stores behind `SharedState`. Each needs its extra only when one is made."""

from holdfast.stores.redis_state import RedisState

__all__ = ["RedisState"]
