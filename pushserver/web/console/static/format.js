// Text for people from wire values. Anything that is not a finite number shows as a dash, never as zero.

const MINUS = "\u2212";
export const DASH = "\u2013";

function formatter(minimum, maximum) {
  const digits = { minimumFractionDigits: minimum, maximumFractionDigits: maximum };
  const format = new Intl.NumberFormat("en-US", digits);
  return (value) => (Number.isFinite(value) ? format.format(value).replace("-", MINUS) : DASH);
}

export const money = formatter(2, 2);

// An average price has many digits that say nothing: of a high price cents are enough, of a low one they are not.
const prices = [[1000, formatter(2, 2)], [1, formatter(2, 4)], [0, formatter(2, 8)]];
export function price(value) {
  const [, format] = prices.find(([from]) => Math.abs(value) >= from) ?? prices[0];
  return format(value);
}

export const quantity = formatter(0, 8);

export function signedMoney(value) {
  return value > 0 ? `+${money(value)}` : money(value);
}

export function text(value) {
  return value === null || value === undefined || value === "" ? DASH : String(value);
}

export function shortId(value) {
  const full = text(value);
  return full.length > 14 ? `${full.slice(0, 8)}\u2026${full.slice(-4)}` : full;
}

// The sign that a colour is chosen by: up, down or flat.
export function direction(value) {
  if (value > 0) return "up";
  return value < 0 ? "down" : "flat";
}

export function duration(milliseconds) {
  const seconds = Math.max(0, milliseconds) / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function timeOfDay(date) {
  return date.toLocaleTimeString("en-GB", { hour12: false });
}
