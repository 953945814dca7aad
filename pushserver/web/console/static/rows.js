// A table whose rows are kept by key, so that only what changed is touched and marked.

import { direction, price, quantity, shortId, signedMoney, text, DASH } from "./format.js";
import { flash } from "./flash.js";

const SIDE = { field: "side", label: "Side", format: text, className: "side" };

// format gives the shown text; keyed rows survive updates; `change` says which way a new figure went.
export const TABLES = {
  positions: {
    key: (row) => `${row.symbol} ${row.side}`,
    empty: "No open positions",
    columns: [
      { field: "symbol", label: "Symbol", format: text, className: "symbol" },
      SIDE,
      { field: "size", label: "Size", format: quantity, className: "number" },
      { field: "entry_price", label: "Entry", format: price, className: "number" },
      { field: "mark_price", label: "Mark", format: price, className: "number" },
      { field: "unrealized_pnl", label: "Unrealized", format: signedMoney, className: "number result", signed: true },
    ],
  },
  orders: {
    key: (row) => String(row.order_id),
    empty: "No open orders",
    columns: [
      { field: "symbol", label: "Symbol", format: text, className: "symbol" },
      SIDE,
      { field: "quantity", label: "Quantity", format: quantity, className: "number" },
      { field: "price", label: "Price", format: (value) => (value === null ? "market" : price(value)), className: "number" },
      { field: "status", label: "Status", format: text, className: "status" },
      { field: "order_id", label: "Order", format: shortId, className: "id", full: true },
    ],
  },
};

export class RowTable {
  #head;
  #body;
  #table;
  #rows = new Map();

  constructor(tableElement, table) {
    this.#head = tableElement.tHead;
    this.#body = tableElement.tBodies[0];
    this.#table = table;
    const line = this.#head.insertRow();
    for (const column of table.columns) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.className = column.className;
      cell.textContent = column.label;
      line.append(cell);
    }
  }

  // Shows exactly these rows in this order; `quiet` leaves the marks out (first state).
  show(rows, quiet) {
    const seen = new Set();
    rows.forEach((row, index) => {
      const key = this.#uniqueKey(row, seen);
      const known = this.#rows.get(key);
      const line = known ?? this.#addRow(key);
      if (this.#body.rows[index] !== line) this.#body.insertBefore(line, this.#body.rows[index] ?? null);
      this.#fill(line, row, quiet || !known);
      if (!known && !quiet) flash(line, "flat");
    });
    for (const [key, line] of this.#rows) {
      if (!seen.has(key)) {
        line.remove();
        this.#rows.delete(key);
      }
    }
  }

  #uniqueKey(row, seen) {
    let key = this.#table.key(row);
    while (seen.has(key)) key += " again";
    seen.add(key);
    return key;
  }

  #addRow(key) {
    const line = document.createElement("tr");
    for (const column of this.#table.columns) {
      const cell = document.createElement("td");
      cell.className = column.className;
      cell.dataset.field = column.field;
      cell.dataset.label = column.label;
      cell.textContent = DASH;
      line.append(cell);
    }
    this.#rows.set(key, line);
    return line;
  }

  #fill(line, row, quiet) {
    this.#table.columns.forEach((column, index) => {
      const cell = line.cells[index];
      const value = row[column.field];
      const shown = column.format(value);
      if (column.full) cell.title = text(value);
      if (column.field === "side") cell.dataset.side = text(value);
      if (column.signed) cell.dataset.direction = direction(value);
      if (cell.textContent === shown) return;
      cell.textContent = shown;
      if (!quiet) flash(cell, direction(value - cell.lastValue));
      cell.lastValue = value;
    });
  }
}
