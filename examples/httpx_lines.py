"""An answer read line by line with httpx, over a mount. Needs DEEPSEEK_API_KEY; BASE_URL names another server."""

import json
import os
from typing import Any

import httpx

from holdfast import mounts

URL = os.environ.get("BASE_URL", "https://api.deepseek.com") + "/chat/completions"
BODY: dict[str, Any] = {
    "model": "deepseek-flash",
    "stream": True,
    "messages": [{"role": "user", "content": "Why does kelp hold on to rocks?"}],
}


def main() -> None:
    headers = {"Authorization": f"Bearer {os.environ['DEEPSEEK_API_KEY']}"}
    with mounts.httpx_sync_client(headers=headers) as client, client.stream("POST", URL, json=BODY) as response:
        response.raise_for_status()
        try:
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    for choice in json.loads(line[6:])["choices"]:
                        print(choice["delta"].get("content") or "", end="", flush=True)
        except httpx.TransportError as error:
            print(f"\n{type(error).__name__}: {error}")
            raise SystemExit(1) from error
        print(f"\n{mounts.report(response)}")


main()
