// The official TypeScript SDK under remote control; the same dialogue as drive.py.
//
//   node drive.mjs '{"sdk": "sdk-old", "root": "<node_modules>/..", "command": .., "args": [], "env": {}, "cwd": "/"}'
//
//   node drive.mjs '{"sdk": .., "root": .., "url": "http://127.0.0.1:1/mcp", "headers": {}}'
//
// sdk: "sdk-old" or "sdk-new" (both @modelcontextprotocol/sdk), or "client" (@modelcontextprotocol/client, with mode).

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

console.log = console.info = console.debug = console.error; // an SDK may talk; stdout is ours
const spec = JSON.parse(process.argv[2]);
const at = (path) => import(pathToFileURL(`${spec.root}/node_modules/${path}`).href);

async function load() {
  if (spec.sdk === "client") {
    const base = "@modelcontextprotocol/client/dist";
    const { Client, StreamableHTTPClientTransport } = await at(`${base}/index.mjs`);
    const { StdioClientTransport } = await at(`${base}/stdio.mjs`);
    return { Client, StdioClientTransport, StreamableHTTPClientTransport, options: { versionNegotiation: { mode: spec.mode } } };
  }
  const base = `${spec.sdk}/dist/esm/client`;
  const { Client } = await at(`${base}/index.js`);
  const { StdioClientTransport } = await at(`${base}/stdio.js`);
  const { StreamableHTTPClientTransport } = await at(`${base}/streamableHttp.js`);
  return { Client, StdioClientTransport, StreamableHTTPClientTransport, options: {} };
}

const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");

function answer(client, order) {
  if (order.op === "list") return client.listTools();
  if (order.op === "ping") return client.ping();
  if (order.op === "prompts") return client.listPrompts();
  return client.callTool({ name: order.name, arguments: order.args });
}

const { Client, StdioClientTransport, StreamableHTTPClientTransport, options } = await load();
const client = new Client({ name: `drive-${spec.sdk}`, version: "1" }, options);
const { command, args, env, cwd, url, headers } = spec;
await client.connect(
  url
    ? new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } })
    : new StdioClientTransport({ command, args, cwd, env, stderr: "ignore" }),
);
say({
  connected: {
    serverInfo: client.getServerVersion(),
    capabilities: client.getServerCapabilities(),
    protocolVersion: client.getNegotiatedProtocolVersion?.() ?? "",
  },
});
for await (const line of createInterface({ input: process.stdin })) {
  try {
    say({ result: await answer(client, JSON.parse(line)) });
  } catch (error) {
    say({ error: { code: error.code ?? null, message: String(error.message) } });
  }
}
await client.close();
