// The Node peer: node workers.mjs PORT [PORT ...] starts one web process a port and ends them when it is told to end.

import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

const server = fileURLToPath(new URL("server.mjs", import.meta.url));
const workers = process.argv.slice(2).map((port) => spawn(process.execPath, [server, port], { stdio: "inherit" }));

function end(code) {
  for (const worker of workers) worker.kill("SIGTERM");
  process.exit(code);
}

for (const worker of workers) worker.on("exit", () => end(1));
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => end(0));
