// @ts-check
/** Numbers, times and places as people read them. */

const MINUS = "\u2212";
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** @param {number} n */
export const count = (n) => whole.format(n);

/** A large number, short. @param {number} n */
export function short(n) {
  if (n < 1e5) return whole.format(n);
  const [by, unit] = n < 1e6 ? [1e3, "k"] : n < 1e9 ? [1e6, "M"] : [1e9, "G"];
  return `${(n / by).toFixed(n / by < 10 ? 2 : n / by < 100 ? 1 : 0)} ${unit}`;
}

/** A value with as many digits as it deserves.
 * @param {number | null | undefined} n
 * @param {string} [unit] */
export function value(n, unit = "") {
  if (n === null || n === undefined || n !== n) return "–";
  const size = Math.abs(n);
  const digits = size >= 1000 ? 0 : size >= 1 ? 1 : size >= 0.01 ? 3 : size === 0 ? 0 : null;
  const text = digits === null ? n.toPrecision(2) : n.toFixed(digits);
  return `${text.replace("-", MINUS)}${unit ? ` ${unit}` : ""}`;
}

/** A value of a variable, with the digits that its scale deserves.
 * @param {number | null | undefined} n
 * @param {import("./wire.js").Choice} choice */
export function shown(n, choice) {
  if (n === null || n === undefined || n !== n) return "–";
  const span = choice.knots[choice.knots.length - 1] - choice.knots[0];
  const digits = Math.min(Math.max(Math.ceil(2 - Math.log10(span)), span > 2000 ? 0 : 1), 8);
  const text = n.toFixed(digits).replace("-", MINUS);
  return choice.unit ? `${text} ${choice.unit}` : text;
}

/** @param {number | null | undefined} ms */
export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 10_000 && (ms < 1000 || ms % 1000)) return `${whole.format(ms)} ms`;
  const s = ms / 1000;
  if (s < 120) return `${s.toFixed(0)} s`;
  if (s < 7200) return `${(s / 60).toFixed(0)} min`;
  if (s < 172_800) return `${(s / 3600).toFixed(0)} h`;
  return `${(s / 86_400).toFixed(0)} d`;
}

const two = (/** @type {number} */ n) => String(n).padStart(2, "0");

let fine = false;

/** Times are told with seconds from now on where one of these has some.
 * @param {number[]} times [ms] */
export function suit(times) {
  fine = times.slice(-4).some((ms) => ms % 60_000 !== 0);
}

/** A time in UTC.
 * @param {number} ms
 * @param {boolean} [seconds] */
export function time(ms, seconds = fine || ms % 60_000 !== 0) {
  const at = new Date(ms);
  const day = `${at.getUTCFullYear()}-${two(at.getUTCMonth() + 1)}-${two(at.getUTCDate())}`;
  const clock = `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
  return `${day} ${clock}${seconds ? `:${two(at.getUTCSeconds())}` : ""}`;
}

/** The same without the day, where a span lies within one.
 * @param {number} ms
 * @param {number} span */
export function brief(ms, span) {
  const text = time(ms);
  if (span < 86_400_000) return text.slice(11);
  return span < 60 * 86_400_000 ? text.slice(5, 16) : text.slice(0, 10);
}

/** @param {number} ms */
export const iso = (ms) => new Date(ms).toISOString();

/**
 * @param {number} latitude
 * @param {number} longitude
 */
export function place(latitude, longitude) {
  const north = `${Math.abs(latitude).toFixed(2)}° ${latitude < 0 ? "S" : "N"}`;
  return `${north} ${Math.abs(longitude).toFixed(2)}° ${longitude < 0 ? "W" : "E"}`;
}

const POINTS = ["N", "NNE", "NE", "ENE", "E", "ESE", "SE", "SSE", "S", "SSW", "SW", "WSW", "W", "WNW", "NW", "NNW"];

/** From where the wind blows. @param {number} degrees */
export const bearing = (degrees) => POINTS[Math.round((((degrees % 360) + 360) % 360) / 22.5) % 16];
