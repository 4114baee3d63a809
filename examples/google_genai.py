"""Google's client with Holdfast under it, blocking. Needs GEMINI_API_KEY; BASE_URL names another server."""

import os

from google import genai
from google.genai import types

from holdfast import mounts

BASE_URL = os.environ.get("BASE_URL", "https://generativelanguage.googleapis.com")


def main() -> None:
    reports = []
    mounted = mounts.httpx2_sync_client(event_hooks={"response": [lambda r: reports.append(mounts.report(r))]})
    options = types.HttpOptions(base_url=BASE_URL, httpx_client=mounted)
    with mounted, genai.Client(api_key=os.environ["GEMINI_API_KEY"], http_options=options) as client:
        asked = "Why does kelp hold on to rocks?"
        for part in client.models.generate_content_stream(model="gemini-2.5-flash", contents=asked):
            print(part.text or "", end="", flush=True)
    print(f"\n{reports[-1]}")


main()
