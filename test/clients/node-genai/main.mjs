// SPDX-License-Identifier: Apache-2.0
//
// An agent's model call through the official `@google/genai` package, with
// nothing configured but the key in GEMINI_API_KEY: no base URL, no proxy.
// Prints one JSON object and exits 1 when the call failed.
//
//   node main.mjs MODEL generate|generate-stream [PROMPT]
import { createHash } from "node:crypto";
import { GoogleGenAI } from "@google/genai";

const [model, mode, prompt = "Say hello. <é> \u2028"] = process.argv.slice(2);
const result = { ok: false, text: "", model: "", tokens_in: 0, tokens_out: 0, chunks: 0, sent_sha256: "" };

// The global fetch, with a note of the body that really goes out.
const plain = globalThis.fetch;
globalThis.fetch = (url, init) => {
  if (init?.body) result.sent_sha256 = createHash("sha256").update(init.body).digest("hex");
  return plain(url, init);
};

function take(response) {
  result.text += response.text ?? "";
  result.model = response.modelVersion;
  result.tokens_in = response.usageMetadata?.promptTokenCount ?? result.tokens_in;
  result.tokens_out = response.usageMetadata?.candidatesTokenCount ?? result.tokens_out;
}

async function call() {
  const client = new GoogleGenAI({ apiKey: process.env.GEMINI_API_KEY });
  const params = { model, contents: prompt };
  switch (mode) {
    case "generate":
      take(await client.models.generateContent(params));
      return;
    case "generate-stream":
      for await (const chunk of await client.models.generateContentStream(params)) {
        result.chunks++;
        take(chunk);
      }
      return;
    default:
      throw new Error(`unknown mode ${mode}`);
  }
}

try {
  await call();
  result.ok = true;
} catch (err) {
  result.status = err.status;
  result.error = String(err.message ?? err);
  // The library puts the answer's body into the message.
  try {
    const body = JSON.parse(result.error).error;
    result.code = body.details?.[0]?.metadata?.code;
    result.error = body.message;
  } catch {}
  process.exitCode = 1;
}
console.log(JSON.stringify(result));
