"""litellm with Holdfast under its OpenAI route. Needs DEEPSEEK_API_KEY; BASE_URL names another server.

`litellm.client_session` is for the providers that litellm reaches with openai's SDK: models named `openai/...`.
"""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # its list of prices is not fetched from the network

import litellm
import openai

from holdfast import mounts

BASE_URL = os.environ.get("BASE_URL", "https://api.deepseek.com")


def main() -> None:
    litellm.client_session = mounts.httpx_sync_client()
    try:
        stream = litellm.completion(
            model="openai/deepseek-flash",
            base_url=BASE_URL,
            api_key=os.environ["DEEPSEEK_API_KEY"],
            messages=[{"role": "user", "content": "Why does kelp hold on to rocks?"}],
            stream=True,
            max_retries=0,  # what is sent again, the mount sends
        )
        for part in stream:
            print(part.choices[0].delta.content or "", end="", flush=True)
    except openai.APIError as error:  # litellm's own errors are kinds of these
        print(f"\n{type(error).__name__}: {error}")
        raise SystemExit(1) from error


main()
