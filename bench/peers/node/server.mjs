// One web process: node server.mjs PORT. Each client is in four rooms of its own; nobody is asked for a token.

import { createServer } from "node:http";
import { Server } from "socket.io";

import { adapterOn } from "./connection.mjs";

const TYPES = ["balance", "positions", "pnl", "orders"];

const { adapter } = await adapterOn(process.env.REDIS_URL);
const http = createServer((request, response) => {
  response.writeHead(request.url === "/readyz" ? 200 : 404);
  response.end();
});
const io = new Server(http, { adapter, transports: ["websocket"], serveClient: false });

// What socket.io's documentation advises to save memory.
io.engine.on("connection", (transport) => {
  transport.request = null;
});

io.on("connection", (socket) => {
  socket.on("subscribe_trading", (payload) => {
    socket.join(TYPES.map((type) => `${type}_${payload.user_id}`));
    socket.emit("subscribed", { types: TYPES });
  });
});

http.listen(Number(process.argv[2]), "127.0.0.1", 2048);
