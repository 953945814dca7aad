// socket.io on the sharded adapter, each room a channel of its own (the adapter's default).

import { createShardedAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";

export async function adapterOn(url) {
  const publisher = createClient({ url });
  const subscriber = publisher.duplicate();
  for (const client of [publisher, subscriber]) {
    client.on("error", (error) => {
      console.error(error);
      process.exit(1);
    });
    await client.connect();
  }
  return { publisher, adapter: createShardedAdapter(publisher, subscriber) };
}
