#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An agent's model call with nothing but the standard library.

    chat.py MODEL chat|chat-stream|messages|messages-stream [PROMPT]

The key comes from OPENAI_API_KEY or ANTHROPIC_API_KEY. There is no base URL and
no proxy. Prints one JSON object and exits 1 when the call failed.
"""
import hashlib
import json
import os
import sys
import urllib.error
import urllib.request


def request(model, mode, prompt):
    body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    headers = {"Content-Type": "application/json"}
    if mode.startswith("chat"):
        url = "https://api.openai.com/v1/chat/completions"
        headers["Authorization"] = "Bearer " + os.environ["OPENAI_API_KEY"]
        if mode.endswith("stream"):
            body["stream_options"] = {"include_usage": True}
    else:
        url = "https://api.anthropic.com/v1/messages"
        headers["x-api-key"] = os.environ["ANTHROPIC_API_KEY"]
        headers["anthropic-version"] = "2023-06-01"
        body["max_tokens"] = 256
    if mode.endswith("stream"):
        body["stream"] = True
    # Odd spacing on purpose: it must arrive as it is.
    data = json.dumps(body, indent=1, ensure_ascii=False).encode()
    return urllib.request.Request(url, data=data, headers=headers), data


def usage(result, u):
    if not u:
        return
    cached = u.get("cache_creation_input_tokens", 0) + u.get("cache_read_input_tokens", 0)
    got = u.get("prompt_tokens", u.get("input_tokens", 0) + cached)
    result["tokens_in"] = max(result["tokens_in"], got)
    result["tokens_out"] = max(result["tokens_out"], u.get("completion_tokens", u.get("output_tokens", 0)))


def document(result, answer):
    result["model"] = answer["model"]
    if "choices" in answer:
        result["text"] = answer["choices"][0]["message"]["content"]
    else:
        result["text"] = "".join(b.get("text", "") for b in answer["content"])
    usage(result, answer.get("usage"))


def stream(result, lines):
    for line in lines:
        if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
            continue
        event = json.loads(line[6:])
        result["chunks"] += 1
        for choice in event.get("choices", []):
            result["text"] += choice["delta"].get("content") or ""
        if event.get("type") == "content_block_delta":
            result["text"] += event["delta"].get("text", "")
        start = event.get("message", {})
        result["model"] = event.get("model") or start.get("model") or result["model"]
        usage(result, event.get("usage"))
        usage(result, start.get("usage"))


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    model, mode = sys.argv[1], sys.argv[2]
    prompt = sys.argv[3] if len(sys.argv) > 3 else "Say hello. <é> \u2028"
    result = {"ok": False, "text": "", "model": "", "tokens_in": 0, "tokens_out": 0, "chunks": 0}
    req, data = request(model, mode, prompt)
    result["sent_sha256"] = hashlib.sha256(data).hexdigest()
    try:
        with urllib.request.urlopen(req, timeout=120) as resp:
            if mode.endswith("stream"):
                stream(result, resp)
            else:
                document(result, json.load(resp))
        result["ok"] = True
    except urllib.error.HTTPError as err:
        result["status"] = err.code
        text = err.read().decode("utf-8", "replace")
        result["error"] = text
        try:
            result["code"] = json.loads(text)["error"]["code"]
        except (ValueError, KeyError, TypeError):
            pass
    except OSError as err:
        result["error"] = str(err)
    print(json.dumps(result))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
