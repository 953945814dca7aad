// The page: log in, connect, keep the token fresh, and route what arrives to the cards.

import { createCard } from "./cards.js";
import { Connection } from "./connection.js";
import { duration } from "./format.js";
import { showHealth } from "./health.js";
import { Journal, summaryOf } from "./journal.js";
import { Session } from "./session.js";
import { showWhoami } from "./whoami.js";

const TYPES = ["balance", "positions", "pnl", "orders"];
const TICK_MS = 500;
const REFRESH_PAUSE_MS = 5_000;
const STATE_WORDS = { connecting: "Connecting", connected: "Connected", reconnecting: "Reconnecting", refused: "Refused" };
const LOGIN_REASONS = {
  token_expired: "Your session ran out. Log in again.",
  token_revoked: "Your session was ended. Log in again.",
  token_invalid: "The server no longer accepts this session. Log in again.",
  user_disabled: "This user is disabled.",
};

const element = (id) => document.getElementById(id);
const journal = new Journal(element("journal"));
const pristineBoard = document.querySelector(".board").cloneNode(true);
const wanted = new Set(TYPES);
let cards = {};
let session = null;
let connection = null;
let link = { state: "connecting", detail: "", retryAt: null };
let lastRefresh = 0;

function showLogin(message = "") {
  connection?.close();
  connection = null;
  session = null;
  element("whoami-dialog").close();
  element("console").hidden = true;
  element("login").hidden = false;
  element("login-error").textContent = message;
  element(element("username").value ? "password" : "username").focus();
}

function buildCards() {
  for (const [index, section] of [...document.querySelectorAll(".card[data-type]")].entries()) {
    const fresh = pristineBoard.querySelectorAll(".card[data-type]")[index].cloneNode(true);
    section.replaceWith(fresh);
    const type = fresh.dataset.type;
    cards[type] = createCard(fresh, (isWanted) => toggle(type, isWanted));
    cards[type].setSubscribed(wanted.has(type));
  }
}

function toggle(type, isWanted) {
  if (isWanted) {
    wanted.add(type);
    connection?.subscribe([type]);
  } else {
    wanted.delete(type);
    connection?.unsubscribe([type]);
  }
  cards[type].setSubscribed(isWanted);
}

function showConsole() {
  cards = {};
  journal.clear();
  showHealth(element("key-health"), null);
  buildCards();
  element("login").hidden = true;
  element("console").hidden = false;
  element("user-name").textContent = session.username;
  element("user-id").textContent = `id ${session.userId}`;
  connection = new Connection(session, { onState, onEvent, onLoginNeeded });
  connection.open();
  tick();
}

function onLoginNeeded(code, message) {
  showLogin(LOGIN_REASONS[code] ?? message ?? code);
}

function onState(next) {
  const changed = next.state !== link.state;
  link = next;
  showLink();
  for (const card of Object.values(cards)) card.setConnected(next.state === "connected");
  // A new connection is told only what is wrong.
  if (changed && next.state === "connected") showHealth(element("key-health"), null);
  if (changed && next.state !== "connecting") journal.add(STATE_WORDS[next.state].toLowerCase(), next.detail, "own");
}

function showLink() {
  element("connection").dataset.state = link.state;
  setText("connection", STATE_WORDS[link.state]);
  const wait = link.retryAt ? `, next try in ${Math.max(0, Math.ceil((link.retryAt - Date.now()) / 1000))} s` : "";
  setText("connection-detail", link.detail + wait);
}

// Only real changes reach the live region, or a screen reader would repeat it at every tick.
function setText(id, value) {
  if (element(id).textContent !== value) element(id).textContent = value;
}

const HANDLERS = {
  connected(payload) {
    session.expiresAt = Date.parse(payload.token_expires_at) || session.expiresAt;
    connection.subscribe([...wanted]);
  },
  subscribed({ intervals = {} }) {
    for (const [type, seconds] of Object.entries(intervals)) cards[type]?.setInterval(seconds);
  },
  status_update(payload) {
    cards[payload.type]?.setStatus(payload);
  },
  account_health(payload) {
    showHealth(element("key-health"), payload);
  },
  token_expiring() {
    refreshToken();
  },
};

function onEvent(name, payload) {
  const type = name.endsWith("_update") ? name.slice(0, -"_update".length) : null;
  if (type in cards) {
    if (!wanted.has(type)) return; // left the server before our unsubscribe arrived there
    const accepted = Number.isSafeInteger(payload.seq) && cards[type].show(payload);
    journal.add(name, accepted ? summaryOf(name, payload) : "older than shown, dropped", accepted ? "in" : "bad");
    return;
  }
  HANDLERS[name]?.(payload);
  journal.add(name, summaryOf(name, payload), name === "error" ? "bad" : "in");
}

async function refreshToken() {
  const current = session;
  // A token that lives shorter than the warning time would otherwise be renewed without pause.
  const pause = Math.max(0, lastRefresh + REFRESH_PAUSE_MS - Date.now());
  lastRefresh = Date.now() + pause;
  await new Promise((resolve) => setTimeout(resolve, pause));
  if (session !== current) return;
  try {
    await current.refresh();
  } catch (error) {
    if (session !== current) return;
    journal.add("refresh", error.message, "bad");
    if (error.status !== 401 && Date.now() < current.expiresAt) refreshToken();
    return;
  }
  if (session !== current) return;
  connection.authenticate(current.token);
  journal.add("refresh", "new token", "own");
}

async function submitLogin(event) {
  event.preventDefault();
  const button = element("login-button");
  button.disabled = true;
  element("login-error").textContent = "";
  try {
    session = await Session.login(element("username").value, element("password").value);
    element("password").value = "";
    showConsole();
  } catch (error) {
    element("login-error").textContent = error.message;
    element("password").select();
  } finally {
    button.disabled = false;
  }
}

async function logOut() {
  const leaving = session;
  showLogin();
  await leaving.logout().catch(() => {
    element("login-error").textContent = "Logged out here; the server could not be told.";
  });
}

async function askWhoami() {
  const dialog = element("whoami-dialog");
  const answer = element("whoami-answer");
  answer.textContent = "Asking";
  dialog.showModal();
  try {
    showWhoami(answer, await connection.whoami());
  } catch {
    answer.textContent = "No answer: the connection is away. Try again once it is back.";
  }
}

function tick() {
  if (!session) return;
  for (const card of Object.values(cards)) card.tick();
  const left = session.expiresAt - Date.now();
  setText("token-expiry", left > 0 ? duration(Math.ceil(left / 1000) * 1000).replace(".0", "") : "expired");
  element("token-expiry").classList.toggle("is-ending", left < 60_000);
  if (link.retryAt) showLink();
}

element("login-form").addEventListener("submit", submitLogin);
element("logout").addEventListener("click", logOut);
element("whoami").addEventListener("click", askWhoami);
setInterval(tick, TICK_MS);
showLogin();
