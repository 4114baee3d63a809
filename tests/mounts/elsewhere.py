"""Reads streams with an SDK that lives in an environment of its own: a program, started by tests/mounts/test_quirks.py.

Its argument is a JSON list of readings: the model, the server's address, and whether over a mount. It prints what each
came to: the text, or the name of an exception.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import version
from typing import Any

from holdfast import mounts

MESSAGES: Any = [{"role": "user", "content": "a secret prompt"}]


def with_litellm(model: str, url: str, *, mounted: bool) -> str:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # its list of prices is not fetched from the network
    import litellm  # noqa: PLC0415 - it is in one of the environments alone
    from litellm.llms.custom_httpx.http_handler import HTTPHandler  # noqa: PLC0415

    own = {"user-agent": f"litellm/{version('litellm')}"}  # as it calls itself in clients that it makes
    given = {"client": HTTPHandler(client=mounts.httpx_sync_client(headers=own))} if mounted else {}
    base = f"{url}/v1" if model.startswith("deepseek/") else url
    stream: Any = litellm.completion(model=model, base_url=base, api_key="k", messages=MESSAGES, stream=True, **given)
    return "".join(part.choices[0].delta.content or "" for part in stream)


def with_openai(model: str, url: str, *, mounted: bool) -> str:
    import openai  # noqa: PLC0415 - an older one

    given: Any = mounts.httpx_sync_client() if mounted else None
    with openai.OpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0, http_client=given) as client:
        stream = client.chat.completions.create(model=model, messages=MESSAGES, stream=True)
        return "".join(part.choices[0].delta.content or "" for part in stream if part.choices)


def read(model: str, url: str, *, mounted: bool) -> str:
    reader = with_litellm if "/" in model else with_openai
    try:
        return reader(model, url, mounted=mounted)
    except Exception as error:  # noqa: BLE001 - whatever it dies of
        return type(error).__name__


if __name__ == "__main__":
    print(json.dumps([read(model, url, mounted=mounted) for model, url, mounted in json.loads(sys.argv[1])]))  # noqa: T201
