// The reference child in JavaScript, for Node 18 or later, without packages.
// It answers as python/agent.py does.
"use strict";

const calls = new Map(); // by id, what cancels the call
const asked = new Map(); // our own requests, by id
let last = 0;
let settings = {};

class ProviderError extends Error {
  constructor(message, data) {
    super(message);
    this.data = data;
  }
}

// --- what it does --------------------------------------------------------------------------------

async function answer(params, call) {
  const [word, ...others] = params.question.split(" ");
  const rest = others.join(" ");
  if (word === "wait") {
    await call.sleep(Number(rest) * 1000);
    return { text: "waited" };
  }
  if (word === "busy") {
    throw new ProviderError("too busy", { kind: "rate_limited", retry_after: 0.01 });
  }
  const text =
    word === "weather"
      ? `${rest}: ${await call.tool("get_weather", { city: rest })}`
      : params.question.toUpperCase() + (settings.mark ?? "");
  const words = text.split(" ");
  words.forEach((piece, number) => call.chunk(number === 0 ? piece : ` ${piece}`));
  const input = params.question.split(/\s+/).filter(Boolean).length;
  return { text, token_usage: { input, output: words.length } };
}

// --- the protocol --------------------------------------------------------------------------------

function send(message) {
  process.stdout.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n");
}

function fail(id, code, message, data) {
  send({ id, error: { code, message, data } });
}

async function invoke(id, params) {
  const gone = new AbortController();
  calls.set(id, gone);
  const cancelled = new Promise((_, reject) => {
    gone.signal.addEventListener("abort", () => reject(gone.signal.reason));
  });
  const call = {
    signal: gone.signal, // for fetch and its like
    chunk(text) {
      if (params.on_chunk && !gone.signal.aborted) {
        send({ method: "chunk", params: { invoke_id: id, text } });
      }
    },
    async tool(name, args) {
      const result = await ask("tool_call", { invoke_id: id, name, arguments: args });
      return result.output;
    },
    sleep(milliseconds) {
      return new Promise((resolve) => {
        const timer = setTimeout(resolve, milliseconds);
        gone.signal.addEventListener("abort", () => clearTimeout(timer));
      });
    },
  };
  try {
    send({ id, result: await Promise.race([answer(params, call), cancelled]) });
  } catch (error) {
    if (gone.signal.aborted) fail(id, -32800, "cancelled");
    else fail(id, -32000, error.message, error.data ?? { kind: "provider_failed" });
  } finally {
    calls.delete(id);
  }
}

function ask(method, params) {
  last += 1;
  const id = last;
  return new Promise((resolve, reject) => {
    asked.set(id, { resolve, reject });
    send({ id, method, params });
  });
}

function take(message) {
  const { id, method, params = {} } = message;
  switch (method) {
    case "initialize":
      settings = params.settings ?? {};
      send({
        id,
        result: {
          protocol_version: 1,
          name: "agent.js",
          capabilities: { streaming: true, tools: true },
        },
      });
      break;
    case "invoke":
      invoke(id, params);
      break;
    case "cancel":
      calls.get(params.invoke_id)?.abort();
      break;
    case "ping":
      send({ id, result: {} });
      break;
    case "shutdown":
      send({ id, result: {} });
      process.stdout.write("", () => process.exit(0));
      break;
    case undefined: {
      const waiting = asked.get(id);
      asked.delete(id);
      if (message.error) waiting?.reject(new Error(message.error.message));
      else waiting?.resolve(message.result);
      break;
    }
    default:
      if (id !== undefined) fail(id, -32601, `unknown method ${method}`);
  }
}

// A chunk may end within a character; the decoder keeps its beginning.
const decoder = new TextDecoder();
let rest = "";
process.stdin.on("data", (data) => {
  const lines = (rest + decoder.decode(data, { stream: true })).split("\n");
  rest = lines.pop();
  for (const line of lines) {
    let message;
    try {
      message = JSON.parse(line);
    } catch (error) {
      fail(null, -32700, `no JSON: ${error.message}`);
      continue;
    }
    take(message);
  }
});
process.stdin.on("end", () => process.exit(0));
