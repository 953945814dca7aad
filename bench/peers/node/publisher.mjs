// Emits the payload of bench.publish at the same pace, from a server of its own without clients:
// the library's write-only emitter does not know the sharded adapter.

import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Server } from "socket.io";

import { adapterOn } from "./connection.mjs";

const SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOLUSDT"];
// A publisher that was held up catches up in batches of at most this.
const LARGEST_BATCH = 256;

function payload(userId, version) {
  const step = (version % 1_000_000_000) / 1_000_000;
  const now = Date.now();
  return {
    type: "positions_update",
    data: SYMBOLS.map((symbol) => ({
      symbol,
      side: "Buy",
      size: 0.01 + step,
      entry_price: 61000.5,
      mark_price: 61450 + step,
      unrealized_pnl: 4 + step,
    })),
    timestamp: new Date(now).toISOString().slice(0, 19),
    user_id: userId,
    seq: now,
    as_of: now,
  };
}

const names = ["redis-url", "users", "rate", "seconds"];
const { values } = parseArgs({ options: Object.fromEntries(names.map((name) => [name, { type: "string" }])) });
const [first, last] = values.users.split("-").map(Number);
const rate = Number(values.rate);
const total = Math.round(rate * Number(values.seconds));

const { adapter, publisher } = await adapterOn(values["redis-url"]);
const io = new Server({ adapter });
io.of("/");

const begun = performance.now();
let published = 0;
while (published < total) {
  const due = Math.min(total, Math.floor(((performance.now() - begun) / 1000) * rate) + 1);
  for (const end = Math.min(due, published + LARGEST_BATCH); published < end; published++) {
    const userId = first + (published % (last - first + 1));
    io.to(`positions_${userId}`).emit("positions_update", payload(userId, Date.now() + published));
  }
  await sleep(1);
}
const elapsed = performance.now() - begun;
await publisher.close();
console.log(`published=${published} failed=0 elapsed_ms=${Math.round(elapsed)}`);
process.exit(0);
