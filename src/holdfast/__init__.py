"""Holdfast: resilient streaming transport for LLM completions. Exact, or a typed error.

`Client` is the door for most; `Pipe` and the layers are what it is made of. Everything public is named here.
"""

from holdfast import moments, mounts, sync
from holdfast._clock import Clock, Random, SystemClock
from holdfast._core import Call, Layer, Source, Stream, Transform, transform
from holdfast._defaults import default_layers
from holdfast._errors import (
    BudgetExhausted,
    CircuitOpen,
    ConnectError,
    DeadlineExceeded,
    DecodeError,
    EndOfStream,
    IntegrityError,
    MissingExtra,
    NotAStream,
    SharedStateError,
    StatusError,
    StreamBroken,
    StreamError,
    Truncated,
    UpstreamError,
    UsageError,
)
from holdfast._pipe import Pipe, listener_factories
from holdfast._reader import Reader
from holdfast._shared import SharedState
from holdfast._types import (
    Choice,
    Completion,
    Delta,
    Event,
    Head,
    Partial,
    Request,
    ToolCall,
    ToolCallDelta,
    ToolCallError,
    Usage,
    Verdict,
)
from holdfast.client import Client
from holdfast.dialects import Dialect, Timeouts, Wire
from holdfast.health import HealthCheck
from holdfast.layers.auto_continue import AutoContinue
from holdfast.layers.breaker import CircuitBreaker
from holdfast.layers.budget import Budget
from holdfast.layers.buffer import Buffer
from holdfast.layers.concurrency import Concurrency
from holdfast.layers.deadline import Deadline
from holdfast.layers.expect_json import ExpectJson
from holdfast.layers.fallback import Fallback
from holdfast.layers.hedge import Hedge
from holdfast.layers.parse import decode_utf8, parse_sse
from holdfast.layers.rate_limit import RateLimit
from holdfast.layers.read_ahead import ReadAhead
from holdfast.layers.reconnect import Reconnect
from holdfast.layers.record import Record
from holdfast.layers.retry import Retry
from holdfast.layers.throughput import Throughput
from holdfast.layers.verify import verify
from holdfast.machines.concurrency import ConcurrencyLimiter
from holdfast.machines.ladder import Seams
from holdfast.machines.rate_limiter import RateLimiter
from holdfast.machines.retry_budget import RetryBudget
from holdfast.moments import Report
from holdfast.offline import EventLog, assemble, parse_events
from holdfast.prices import Cost, Prices
from holdfast.sources.aiohttp import AiohttpSource
from holdfast.sources.aiohttp_sse_client import AiohttpSseClientSource
from holdfast.sources.httpx import Httpx2Source, HttpxSource
from holdfast.sources.memory import MemorySource
from holdfast.stores import RedisState
from holdfast.telemetry import logs as _logs
from holdfast.telemetry.costs import Costs
from holdfast.telemetry.health import Health, Objectives, watch_health
from holdfast.telemetry.logs import configure_logs
from holdfast.telemetry.otel import configure_otel
from holdfast.telemetry.prometheus import configure_prometheus
from holdfast.upstreams import Upstream

listener_factories.append(_logs.listener)
__version__ = "0.1.0"

__all__ = [
    "AiohttpSource",
    "AiohttpSseClientSource",
    "AutoContinue",
    "Budget",
    "BudgetExhausted",
    "Buffer",
    "Call",
    "Choice",
    "CircuitBreaker",
    "CircuitOpen",
    "Client",
    "Clock",
    "Completion",
    "Concurrency",
    "ConcurrencyLimiter",
    "ConnectError",
    "Cost",
    "Costs",
    "Deadline",
    "DeadlineExceeded",
    "DecodeError",
    "Delta",
    "Dialect",
    "EndOfStream",
    "Event",
    "EventLog",
    "ExpectJson",
    "Fallback",
    "Head",
    "Health",
    "HealthCheck",
    "Hedge",
    "Httpx2Source",
    "HttpxSource",
    "IntegrityError",
    "Layer",
    "MemorySource",
    "MissingExtra",
    "NotAStream",
    "Objectives",
    "Partial",
    "Pipe",
    "Prices",
    "Random",
    "RateLimit",
    "RateLimiter",
    "ReadAhead",
    "Reader",
    "Reconnect",
    "Record",
    "RedisState",
    "Report",
    "Request",
    "Retry",
    "RetryBudget",
    "Seams",
    "SharedState",
    "SharedStateError",
    "Source",
    "StatusError",
    "Stream",
    "StreamBroken",
    "StreamError",
    "SystemClock",
    "Throughput",
    "Timeouts",
    "ToolCall",
    "ToolCallDelta",
    "ToolCallError",
    "Transform",
    "Truncated",
    "Upstream",
    "UpstreamError",
    "Usage",
    "UsageError",
    "Verdict",
    "Wire",
    "assemble",
    "configure_logs",
    "configure_otel",
    "configure_prometheus",
    "decode_utf8",
    "default_layers",
    "moments",
    "mounts",
    "parse_events",
    "parse_sse",
    "sync",
    "transform",
    "verify",
    "watch_health",
]
