// SPDX-License-Identifier: Apache-2.0
//
// An agent's model call through the official `openai` package, with nothing
// configured but the key in OPENAI_API_KEY: no base URL, no proxy. Prints one
// JSON object and exits 1 when the call failed.
//
//   node main.mjs MODEL chat|chat-stream|responses|responses-stream [PROMPT]
import { createHash } from "node:crypto";
import OpenAI from "openai";

const [model, mode, prompt = "Say hello. <é> \u2028"] = process.argv.slice(2);
const result = { ok: false, text: "", model: "", tokens_in: 0, tokens_out: 0, chunks: 0, sent_sha256: "" };

const client = new OpenAI({
  // The global fetch, with a note of the body that really goes out.
  fetch: (url, init) => {
    if (init?.body) result.sent_sha256 = createHash("sha256").update(init.body).digest("hex");
    return fetch(url, init);
  },
});

async function call() {
  const messages = [{ role: "user", content: prompt }];
  switch (mode) {
    case "chat": {
      const a = await client.chat.completions.create({ model, messages });
      result.text = a.choices[0].message.content;
      result.model = a.model;
      result.tokens_in = a.usage.prompt_tokens;
      result.tokens_out = a.usage.completion_tokens;
      return;
    }
    case "chat-stream": {
      const stream = await client.chat.completions.create({ model, messages, stream: true, stream_options: { include_usage: true } });
      for await (const chunk of stream) {
        result.chunks++;
        result.model = chunk.model;
        result.text += chunk.choices[0]?.delta?.content ?? "";
        if (chunk.usage) {
          result.tokens_in = chunk.usage.prompt_tokens;
          result.tokens_out = chunk.usage.completion_tokens;
        }
      }
      return;
    }
    case "responses": {
      const a = await client.responses.create({ model, input: prompt });
      result.text = a.output_text;
      result.model = a.model;
      result.tokens_in = a.usage.input_tokens;
      result.tokens_out = a.usage.output_tokens;
      return;
    }
    case "responses-stream": {
      const stream = await client.responses.create({ model, input: prompt, stream: true });
      for await (const event of stream) {
        result.chunks++;
        if (event.type === "response.output_text.delta") result.text += event.delta;
        if (event.type === "response.completed") {
          result.model = event.response.model;
          result.tokens_in = event.response.usage.input_tokens;
          result.tokens_out = event.response.usage.output_tokens;
        }
      }
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
  result.code = err.code ?? undefined;
  result.error = String(err);
  process.exitCode = 1;
}
console.log(JSON.stringify(result));
