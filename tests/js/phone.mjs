// One phone: the official Socket.IO client, driven by lines of JSON on stdin, telling what happens on stdout.
//   node phone.mjs URL TOKEN payload|nested|header|url|resume
import { createInterface } from "node:readline";
import { io } from "socket.io-client";

const [url, token, carrier] = process.argv.slice(2);
const tell = (kind, name, payload) =>
  process.stdout.write(JSON.stringify({ at_ms: Date.now(), kind, name, payload: payload ?? null }) + "\n");

const options = { transports: ["websocket"], reconnectionDelay: 200, reconnectionDelayMax: 1000 };
if (carrier === "payload") options.auth = { token };
if (carrier === "nested") options.auth = { auth: { token } };
if (carrier === "header") options.extraHeaders = { Authorization: `Bearer ${token}` };
if (carrier === "url") options.query = { token };

let types = null;
const held = {}; // the newest seq of each type
if (carrier === "resume") options.auth = (answer) => answer({ token, subscribe: types ?? [], since: held });

const socket = io(url, options);
socket.on("connect", () => {
  tell("connect", socket.id);
  if (types !== null && carrier !== "resume") socket.emit("subscribe_trading", { types });
});
socket.on("disconnect", (reason) => tell("disconnect", reason));
socket.on("connect_error", (error) => tell("connect_error", error.message, error.data));
socket.onAny((name, payload) => {
  if (name.endsWith("_update") && payload.seq) held[name.replace("_update", "")] = payload.seq;
  tell("event", name, payload);
});

createInterface({ input: process.stdin }).on("line", (line) => {
  const { op, name, payload, id } = JSON.parse(line);
  if (op === "remember") types = payload; // subscribed again with each reconnect, as the app does
  if (op === "emit") socket.emit(name, payload);
  if (op === "call") socket.emit(name, payload, (answer) => tell("ack", String(id), answer));
  if (op === "close") {
    socket.close();
    process.exit(0);
  }
});
