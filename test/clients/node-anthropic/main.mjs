// SPDX-License-Identifier: Apache-2.0
//
// An agent's model call through the official `@anthropic-ai/sdk` package, with
// nothing configured but the key in ANTHROPIC_API_KEY: no base URL, no proxy.
// Prints one JSON object and exits 1 when the call failed.
//
//   node main.mjs MODEL messages|messages-stream [PROMPT]
import { createHash } from "node:crypto";
import Anthropic from "@anthropic-ai/sdk";

const [model, mode, prompt = "Say hello. <é> \u2028"] = process.argv.slice(2);
const result = { ok: false, text: "", model: "", tokens_in: 0, tokens_out: 0, chunks: 0, sent_sha256: "" };

const client = new Anthropic({
  // The global fetch, with a note of the body that really goes out.
  fetch: (url, init) => {
    if (init?.body) result.sent_sha256 = createHash("sha256").update(init.body).digest("hex");
    return fetch(url, init);
  },
});

function take(message) {
  result.text = message.content.map((block) => block.text ?? "").join("");
  result.model = message.model;
  const u = message.usage;
  result.tokens_in = u.input_tokens + (u.cache_creation_input_tokens ?? 0) + (u.cache_read_input_tokens ?? 0);
  result.tokens_out = u.output_tokens;
}

async function call() {
  const params = { model, max_tokens: 256, messages: [{ role: "user", content: prompt }] };
  switch (mode) {
    case "messages":
      take(await client.messages.create(params));
      return;
    case "messages-stream": {
      const stream = client.messages.stream(params);
      for await (const _ of stream) result.chunks++;
      take(await stream.finalMessage());
      return;
    }
    default:
      throw new Error(`unknown mode ${mode}`);
  }
}

try {
  await call();
  result.ok = true;
} catch (err) {
  result.status = err.status;
  result.code = err.error?.error?.code;
  result.error = String(err);
  process.exitCode = 1;
}
console.log(JSON.stringify(result));
