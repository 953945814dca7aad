// The four cards: the newest state of a type, how old it is and how far it can be trusted.

import { direction, duration, money, signedMoney, timeOfDay, DASH } from "./format.js";
import { flash } from "./flash.js";
import { RowTable, TABLES } from "./rows.js";

const FRESHNESS_WORDS = { live: "live", delayed: "delayed", stopped: "stopped", waiting: "waiting", off: "off", away: "offline" };

class Card {
  #section;
  #badge;
  #reason;
  #facts = {};
  #freshness = "waiting";
  #subscribed = true;
  #connected = false;
  #until = null;
  #message = "";
  #asOf = null;
  seq = null;

  // onToggle(wanted) is called when the person switches the type on or off.
  constructor(section, onToggle) {
    this.#section = section;
    this.#badge = section.querySelector(".badge");
    this.#reason = section.querySelector(".reason");
    const foot = section.querySelector(".card-foot");
    for (const [name, label] of [["age", "Data age"], ["interval", "Checked every"], ["seq", "Seq"]]) {
      const fact = document.createElement("span");
      const value = document.createElement("span");
      fact.append(`${label} `, value);
      value.className = `fact-${name}`;
      value.textContent = DASH;
      foot.append(fact);
      this.#facts[name] = value;
    }
    const toggle = section.querySelector(".switch input");
    toggle.setAttribute("aria-label", `Subscribe to ${section.dataset.type}`);
    toggle.addEventListener("change", () => onToggle(toggle.checked));
  }

  // Returns false when the update is older than what is shown; an equal one is the same state sent again.
  show(update) {
    if (this.seq !== null && update.seq < this.seq) return false;
    const isNew = update.seq !== this.seq;
    const isFirst = this.seq === null;
    this.seq = update.seq;
    this.#asOf = update.as_of;
    this.#facts.seq.textContent = String(update.seq);
    if (this.#freshness === "waiting") this.#freshness = "live";
    this.render(update.data, isFirst);
    if (isNew && !isFirst) flash(this.#section, "flat");
    this.#showFreshness();
    this.tick();
    return true;
  }

  setStatus({ state, message, until }) {
    this.#freshness = state in FRESHNESS_WORDS ? state : "waiting";
    this.#message = state === "live" ? "" : (message ?? "");
    this.#until = until ? new Date(until) : null;
    this.#showFreshness();
  }

  setInterval(seconds) {
    if (Number.isFinite(seconds)) this.#facts.interval.textContent = `${seconds} s`;
  }

  setSubscribed(subscribed) {
    this.#subscribed = subscribed;
    this.#section.querySelector(".switch input").checked = subscribed;
    this.#showFreshness();
  }

  // A new connection knows nothing of the state of freshness until the server says so or sends a state.
  setConnected(connected) {
    if (connected && !this.#connected) {
      this.#freshness = "waiting";
      this.#message = "";
    }
    this.#connected = connected;
    this.#showFreshness();
  }

  tick() {
    this.#facts.age.textContent = this.#asOf === null ? DASH : duration(Date.now() - this.#asOf);
  }

  #showFreshness() {
    let state = this.#freshness;
    if (!this.#subscribed) state = "off";
    else if (!this.#connected) state = "away";
    this.#badge.dataset.state = state;
    this.#badge.textContent = FRESHNESS_WORDS[state];
    this.#section.classList.toggle("is-off", state === "off" || state === "away");
    const isExplained = (state === "delayed" || state === "stopped") && this.#message !== "";
    this.#reason.hidden = !isExplained;
    const until = this.#until ? ` Until ${timeOfDay(this.#until)}.` : "";
    this.#reason.textContent = isExplained ? this.#message + until : "";
  }
}

class FigureCard extends Card {
  #figures;

  constructor(section, onToggle) {
    super(section, onToggle);
    this.#figures = [...section.querySelectorAll("[data-field]")];
  }

  render(data, isFirst) {
    for (const figure of this.#figures) {
      const value = data[figure.dataset.field];
      const isSigned = "signed" in figure.dataset;
      const shown = isSigned ? signedMoney(value) : money(value);
      if (isSigned) figure.dataset.direction = direction(value);
      if (figure.textContent === shown) continue;
      figure.textContent = shown;
      if (!isFirst) flash(figure, direction(value - figure.lastValue));
      figure.lastValue = value;
    }
  }
}

class TableCard extends Card {
  #table;
  #tableElement;
  #empty;
  #count;
  #emptyText;

  constructor(section, onToggle) {
    super(section, onToggle);
    const definition = TABLES[section.dataset.type];
    this.#tableElement = section.querySelector("table");
    this.#table = new RowTable(this.#tableElement, definition);
    this.#empty = section.querySelector(".empty");
    this.#count = section.querySelector(".count");
    this.#emptyText = definition.empty;
    this.#tableElement.hidden = true;
  }

  render(rows, isFirst) {
    this.#table.show(rows, isFirst);
    this.#count.textContent = String(rows.length);
    this.#tableElement.hidden = rows.length === 0;
    this.#empty.hidden = rows.length > 0;
    this.#empty.textContent = this.#emptyText;
  }
}

export function createCard(section, onToggle) {
  return section.dataset.type in TABLES ? new TableCard(section, onToggle) : new FigureCard(section, onToggle);
}
