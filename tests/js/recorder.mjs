// Official Socket.IO clients that write down what happens to them, as tests/system/blackbox/recorder.py does.
//   node recorder.mjs URL LOG        orders on stdin: {"connect": [[client, user, token, [types]], ...]}
import { createWriteStream } from "node:fs";
import { createInterface } from "node:readline";
import { io } from "socket.io-client";

const [url, path] = process.argv.slice(2);
const log = createWriteStream(path, { flags: "a" });
const monotonic = () => Number(process.hrtime.bigint()) / 1e9;

function open(client, user, token, types) {
  let conn = 0;
  const note = (event, fields) =>
    log.write(JSON.stringify({ client, user, conn, t: monotonic(), event, ...fields }) + "\n");
  const socket = io(url, {
    transports: ["websocket"],
    auth: { token },
    forceNew: true,
    reconnectionDelay: 500,
    reconnectionDelayMax: 1000,
    randomizationFactor: 0.9,
  });
  socket.on("connect", () => {
    conn += 1;
    note("connect");
    note("subscribe", { types });
    socket.emit("subscribe_trading", { types });
  });
  socket.on("disconnect", (reason) => note("disconnect", { code: reason }));
  socket.on("connect_error", (error) => note("refused", { code: error.message }));
  socket.onAny((name, payload) => {
    if (name === "subscribed" || name === "unsubscribed") note(name, { types: payload.types });
    else if (name === "error") note("error", { code: payload.code });
    else if (name === "status_update")
      note("status", { type: payload.type, state: payload.state, code: payload.reason });
    else if (name.endsWith("_update")) {
      const { seq, as_of, data } = payload;
      note("update", {
        type: name.replace("_update", ""), seq, as_of, data, told_user: payload.user_id,
        size: JSON.stringify([name, payload]).length,
      });
    }
  });
}

createInterface({ input: process.stdin }).on("line", (line) => {
  for (const client of JSON.parse(line).connect ?? []) open(...client);
  process.stdout.write("{}\n");
});
