// What the server says about this connection, as it says it: plain values in a list, values per type in a table.

import { text } from "./format.js";

const isTable = (value) =>
  value !== null && typeof value === "object" && !Array.isArray(value) &&
  Object.values(value).length > 0 && Object.values(value).every((row) => row !== null && typeof row === "object" && !Array.isArray(row));

function shown(value) {
  if (Array.isArray(value)) return value.map(text).join(", ") || text(null);
  return value !== null && typeof value === "object" ? JSON.stringify(value) : text(value);
}

function words(name) {
  return name.replaceAll("_", " ");
}

function append(parent, tag, content) {
  const element = document.createElement(tag);
  element.textContent = content;
  parent.append(element);
  return element;
}

function tableOf(name, rows) {
  const table = document.createElement("table");
  const columns = [...new Set(Object.values(rows).flatMap(Object.keys))];
  const head = table.createTHead().insertRow();
  for (const title of [words(name), ...columns.map(words)]) append(head, "th", title).scope = "col";
  const body = table.createTBody();
  for (const [key, row] of Object.entries(rows)) {
    const line = body.insertRow();
    append(line, "th", key).scope = "row";
    for (const column of columns) append(line, "td", shown(row[column]));
  }
  return table;
}

export function showWhoami(container, answer) {
  const facts = document.createElement("dl");
  const tables = [];
  for (const [name, value] of Object.entries(answer)) {
    if (isTable(value)) {
      tables.push(tableOf(name, value));
    } else {
      append(facts, "dt", words(name));
      append(facts, "dd", shown(value));
    }
  }
  const scroller = document.createElement("div");
  scroller.className = "scroller";
  scroller.append(...tables);
  container.replaceChildren(facts, scroller);
}
