"""The facade without `async`. Needs DEEPSEEK_API_KEY; BASE_URL names another server of that shape."""

import os

import holdfast

REQUEST = {"messages": [{"role": "user", "content": "Why does kelp hold on to rocks?"}]}

with holdfast.sync.Client("deepseek", base_url=os.environ.get("BASE_URL")) as client:
    try:
        with client.stream(REQUEST) as deltas:
            for text in deltas.text():
                print(text, end="", flush=True)
    except holdfast.StreamError as error:
        print(f"\n{type(error).__name__}: {error}")
        print(f"{len(error.partial.text)} characters had arrived; {error.report}")
        raise SystemExit(1) from error
    print(f"\n{deltas.report}")
