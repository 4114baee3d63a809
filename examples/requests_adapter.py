"""Mends the streams of a requests session. Needs DEEPSEEK_API_KEY; BASE_URL names another server of that shape."""

import json
import os
from typing import Any

import requests

from holdfast import mounts

URL = os.environ.get("BASE_URL", "https://api.deepseek.com") + "/chat/completions"
BODY: dict[str, Any] = {
    "model": "deepseek-chat",
    "stream": True,
    "messages": [{"role": "user", "content": "Why does kelp hold on to rocks?"}],
}


def main() -> None:
    with requests.Session() as session:
        session.mount("https://", mounts.RequestsAdapter())
        session.mount("http://", mounts.RequestsAdapter())
        session.headers["Authorization"] = f"Bearer {os.environ['DEEPSEEK_API_KEY']}"
        with session.request("POST", URL, json=BODY, stream=True) as response:
            response.raise_for_status()
            try:
                for line in response.iter_lines():
                    if line.startswith(b"data: {"):
                        for choice in json.loads(line[6:])["choices"]:
                            print(choice["delta"].get("content") or "", end="", flush=True)
            except requests.RequestException as error:
                print(f"\n{type(error).__name__}: {error}")
                raise SystemExit(1) from error
            print(f"\n{mounts.report(response)}")


main()
