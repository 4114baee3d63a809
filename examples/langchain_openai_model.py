"""LangChain's model with Holdfast under it: one line more. Needs DEEPSEEK_API_KEY; BASE_URL names another server."""

import os

import openai
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from holdfast import mounts

BASE_URL = os.environ.get("BASE_URL", "https://api.deepseek.com")


def main() -> None:
    model = ChatOpenAI(
        model="deepseek-flash",
        api_key=SecretStr(os.environ["DEEPSEEK_API_KEY"]),
        base_url=BASE_URL,
        max_retries=0,  # what is sent again, the mount sends
        http_client=mounts.httpx2_sync_client(),
    )
    try:
        for chunk in model.stream("Why does kelp hold on to rocks?"):
            print(chunk.text, end="", flush=True)
    except openai.APIError as error:
        print(f"\n{type(error).__name__}: {error}")
        raise SystemExit(1) from error


main()
