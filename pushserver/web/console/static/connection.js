// One Socket.IO connection that comes back by itself.
//
// The client library reconnects when the transport closes. It does not after a refusal (connect_error from the
// server) or a server-side disconnect; those are retried here, unless only a new login can help.

const WAIT_CAN_HELP = new Set(["server_busy", "too_many_connections"]);
const FIRST_RETRY_MS = 1_000;
const LONGEST_RETRY_MS = 15_000;
const ACK_TIMEOUT_MS = 5_000;

export class Connection {
  #socket;
  #retryTimer;
  #retries = 0;
  #handlers;

  // handlers: onState({state, detail, retryAt}), onEvent(name, payload), onLoginNeeded(code, message)
  constructor(session, handlers) {
    this.#handlers = handlers;
    this.#socket = io({
      transports: ["websocket"],
      auth: (answer) => answer({ token: session.token }),
      reconnectionDelay: 300,
      reconnectionDelayMax: 5_000,
      timeout: 10_000,
      forceNew: true,
      autoConnect: false,
    });
    this.#socket.on("connect", () => this.#connected());
    this.#socket.on("connect_error", (error) => this.#refused(error));
    this.#socket.on("disconnect", (reason) => this.#disconnected(reason));
    this.#socket.io.on("reconnect_attempt", (attempt) => this.#report("reconnecting", `attempt ${attempt}`));
    this.#socket.onAny((name, payload) => handlers.onEvent(name, payload ?? {}));
  }

  open() {
    this.#report("connecting");
    this.#socket.connect();
  }

  close() {
    clearTimeout(this.#retryTimer);
    this.#socket.offAny();
    this.#socket.off();
    this.#socket.io.off();
    this.#socket.disconnect();
  }

  get isConnected() {
    return this.#socket.connected;
  }

  // Nothing is queued while away: the wanted types are sent again on every "connected".
  subscribe(types) {
    if (this.isConnected) this.#socket.emit("subscribe_trading", { types });
  }

  unsubscribe(types) {
    if (this.isConnected) this.#socket.emit("unsubscribe_trading", { types });
  }

  authenticate(token) {
    if (this.isConnected) this.#socket.emit("authenticate", { token });
  }

  whoami() {
    return this.#socket.timeout(ACK_TIMEOUT_MS).emitWithAck("whoami");
  }

  #report(state, detail = "", retryAt = null) {
    this.#handlers.onState({ state, detail, retryAt });
  }

  #connected() {
    this.#retries = 0;
    this.#report("connected");
  }

  #refused(error) {
    if (this.#socket.active) {
      this.#report("reconnecting", "the server does not answer");
      return;
    }
    const code = error.data?.code ?? error.message;
    const message = error.data?.message ?? "";
    if (WAIT_CAN_HELP.has(code)) {
      this.#retryLater("refused", message || code);
    } else {
      this.#handlers.onLoginNeeded(code, message);
    }
  }

  #disconnected(reason) {
    if (this.#socket.active) {
      this.#report("reconnecting", "the connection was lost");
    } else if (reason === "io server disconnect") {
      this.#retryLater("reconnecting", "closed by the server");
    }
  }

  #retryLater(state, detail) {
    const longest = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#retries);
    const wait = longest * (0.5 + Math.random() / 2);
    this.#retries += 1;
    this.#report(state, detail, Date.now() + wait);
    clearTimeout(this.#retryTimer);
    this.#retryTimer = setTimeout(() => this.open(), wait);
  }
}
