// The last events, newest first, one readable line each.

import { money, signedMoney, timeOfDay } from "./format.js";

const LONGEST = 30;

const SUMMARIES = {
  balance_update: ({ data }) => `total ${money(data.total_balance)}`,
  pnl_update: ({ data }) => `total ${signedMoney(data.total_pnl)}`,
  positions_update: ({ data }) => (data.length === 1 ? "1 position" : `${data.length} positions`),
  orders_update: ({ data }) => (data.length === 1 ? "1 order" : `${data.length} orders`),
  status_update: ({ type, state, reason }) => `${type} ${state}${reason ? `, ${reason}` : ""}`,
  subscribed: ({ types }) => types.join(", "),
  unsubscribed: ({ types }) => types.join(", "),
  connected: ({ message }) => message,
  error: ({ code, message }) => `${code}: ${message}`,
};

export function summaryOf(name, payload) {
  try {
    return SUMMARIES[name]?.(payload) ?? "";
  } catch {
    return "not readable"; // a payload of another shape must not stop the page
  }
}

export class Journal {
  #list;

  constructor(list) {
    this.#list = list;
  }

  // kind: in (from the server), own (what this page noticed) or bad.
  add(name, summary, kind = "in") {
    const line = document.createElement("li");
    line.dataset.kind = kind;
    for (const [className, content] of [["when", timeOfDay(new Date())], ["what", name], ["how", summary]]) {
      const part = document.createElement("span");
      part.className = className;
      part.textContent = content;
      line.append(part);
    }
    this.#list.prepend(line);
    while (this.#list.childElementCount > LONGEST) this.#list.lastElementChild.remove();
  }

  clear() {
    this.#list.replaceChildren();
  }
}
