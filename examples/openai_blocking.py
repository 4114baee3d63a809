"""openai's blocking client with Holdfast under it. Needs DEEPSEEK_API_KEY; BASE_URL names another server."""

import os

import openai

from holdfast import mounts

BASE_URL = os.environ.get("BASE_URL", "https://api.deepseek.com")

with openai.OpenAI(
    api_key=os.environ["DEEPSEEK_API_KEY"], base_url=BASE_URL, http_client=mounts.httpx2_sync_client()
) as client:
    stream = client.chat.completions.create(
        model="deepseek-flash",
        messages=[{"role": "user", "content": "Why does kelp hold on to rocks?"}],
        stream=True,
    )
    for part in stream:
        if part.choices:
            print(part.choices[0].delta.content or "", end="", flush=True)
    print(f"\n{mounts.report(stream)}")
