// @ts-check
/** Which time is shown: the newest as it arrives, or a stored one; and how it plays. */

import { getField, getJson, Refused } from "./wire.js";
import { iso } from "./words.js";

/** @typedef {import("./wire.js").Field} Field */

const AHEAD = 8; // fields fetched before they are due
const AT_ONCE = 3; // requests under way
const KEPT_BYTES = 96_000_000;
const AGAIN_MS = 1000; // until a field is asked for again when the server did not answer

export class Timeline extends EventTarget {
  constructor() {
    super();
    /** @type {string | null} */
    this.dataset = null;
    /** @type {string | null} */
    this.variable = null;
    /** All stored times, ascending [ms]. @type {number[]} */
    this.times = [];
    /** The part that the charts show; null: all. @type {[number, number] | null} */
    this.span = null;
    /** @type {number | null} */
    this.time = null;
    this.live = true;
    this.playing = false;
    this.speed = 5;
    /** @type {Map<string, Field>} */
    this.fields = new Map();
    this.bytes = 0;
    /** @type {Map<string, Promise<Field>>} */
    this.coming = new Map();
    this.timer = 0;
    this.dueAt = 0;
    this.turn = 0;
    this.loading = false;
  }

  #said() {
    this.dispatchEvent(new Event("change"));
  }

  /**
   * @param {string | null} dataset
   * @param {string | null} variable
   */
  choose(dataset, variable) {
    if (dataset === this.dataset && variable === this.variable) return;
    if (dataset !== this.dataset) {
      this.times = [];
      if (this.dataset) this.span = null;
      this.fields.clear();
      this.bytes = 0;
    }
    Object.assign(this, { dataset, variable });
    if (!this.live && this.time !== null) this.#show(this.time);
  }

  /**
   * Keep up with what is stored; all times are fetched only where this can't tell.
   * @param {{count: number, first: number | null, last: number | null}} stored
   */
  async follow({ count, first, last }) {
    const { times } = this;
    if (!count || first === null || last === null) {
      this.times = [];
      this.#said();
      return;
    }
    const from = times.findIndex((time) => time >= first);
    let kept = from < 0 ? [] : from ? times.slice(from) : times;
    if (kept.length && kept[kept.length - 1] < last && kept.length === count - 1) kept = [...kept, last];
    if (kept.length === count && kept[0] === first && kept[kept.length - 1] === last) {
      if (kept !== times) {
        this.times = kept;
        this.#said();
      }
      return;
    }
    if (this.loading) return;
    this.loading = true;
    try {
      const dataset = this.dataset;
      const found = await getJson("/times", { dataset });
      if (dataset === this.dataset) this.times = found;
      this.#said();
    } finally {
      this.loading = false;
    }
  }

  /** The times that the slider covers: first and last place. */
  range() {
    const { times, span } = this;
    if (!span || !times.length) return [0, Math.max(times.length - 1, 0)];
    const first = Math.min(placeOf(times, span[0]), times.length - 1);
    const end = placeOf(times, span[1] + 1);
    return [first, Math.max(end - 1, first)];
  }

  /** The place of the time shown. */
  place() {
    if (this.live || this.time === null) return this.range()[1];
    return Math.min(placeOf(this.times, this.time), Math.max(this.times.length - 1, 0));
  }

  /** @param {[number, number] | null} span */
  zoom(span) {
    this.span = span;
    if (span && this.times.length) {
      const [first, last] = this.range();
      const shown = this.live ? this.times[this.times.length - 1] : this.time;
      if (shown !== null && (shown < this.times[first] || shown > this.times[last])) {
        this.go(this.times[last]);
        return;
      }
    }
    this.#said();
  }

  /** @param {number} time */
  go(time) {
    this.live = false;
    this.#show(time);
  }

  /** @param {number} place in all times */
  goPlace(place) {
    const [first, last] = this.range();
    const time = this.times[Math.min(Math.max(place, first), last)];
    if (time !== undefined) this.go(time);
  }

  /** @param {number} by */
  step(by) {
    this.pause();
    this.goPlace(this.place() + by);
  }

  follows() {
    this.pause();
    this.live = true;
    this.time = null;
    this.span = null;
    this.turn++;
    this.#said();
  }

  pause() {
    this.playing = false;
    clearTimeout(this.timer);
    this.#said();
  }

  play() {
    if (this.times.length < 2) return;
    const [first, last] = this.range();
    const from = this.place() >= last ? first : this.place();
    this.playing = true;
    this.live = false;
    this.dueAt = performance.now();
    this.#said();
    void this.#next(from);
  }

  /** @param {number} place */
  async #next(place) {
    const turn = ++this.turn;
    const [first, last] = this.range();
    for (let ahead = 0; ahead <= AHEAD && this.coming.size < AT_ONCE + 1; ahead++) {
      const time = this.times[place + ahead];
      if (time !== undefined && place + ahead <= last) void this.#fetch(time).catch(() => {});
    }
    const time = this.times[place];
    const answered = time === undefined || (await this.#shown(time, turn));
    if (!this.playing || turn !== this.turn) return;
    if (!answered) {
      this.timer = window.setTimeout(() => void this.#next(place), AGAIN_MS);
      return;
    }
    // on time where fields come in time; where they do not, the next is due from now
    this.dueAt = Math.max(this.dueAt + 1000 / this.speed, performance.now() - 100);
    const next = place >= this.range()[1] ? first : place + 1;
    this.timer = window.setTimeout(() => void this.#next(next), Math.max(this.dueAt - performance.now(), 0));
  }

  /** @param {number} time */
  #show(time) {
    clearTimeout(this.timer);
    this.playing = false;
    void this.#shown(time, ++this.turn);
  }

  /**
   * @param {number} time
   * @param {number} turn
   * @returns {Promise<boolean>} whether the server answered, be it with a refusal
   */
  async #shown(time, turn) {
    this.time = time;
    this.#said();
    try {
      const field = await this.#fetch(time);
      if (turn === this.turn) this.dispatchEvent(new CustomEvent("field", { detail: field }));
    } catch (error) {
      if (turn === this.turn) this.dispatchEvent(new CustomEvent("failed", { detail: error }));
      return error instanceof Refused;
    }
    return true;
  }

  /**
   * @param {number} time
   * @returns {Promise<Field>}
   */
  #fetch(time) {
    const { dataset, variable } = this;
    const key = `${dataset} ${variable} ${time}`;
    const kept = this.fields.get(key);
    if (kept) {
      this.fields.delete(key);
      this.fields.set(key, kept);
      return Promise.resolve(kept);
    }
    const coming = this.coming.get(key);
    if (coming) return coming;
    const asked = getField({ dataset, variable, time: iso(time) })
      .then((field) => {
        // the newest may still be growing
        if (placeOf(this.times, time) < this.times.length - 2) this.keep(key, field);
        return field;
      })
      .finally(() => this.coming.delete(key));
    this.coming.set(key, asked);
    return asked;
  }

  /**
   * @param {string} key
   * @param {Field} field
   */
  keep(key, field) {
    const size = (/** @type {Field} */ one) => one.values.byteLength * (one.u ? 3 : 1);
    this.fields.set(key, field);
    this.bytes += size(field);
    for (const [oldest, one] of this.fields) {
      if (this.bytes <= KEPT_BYTES) break;
      this.fields.delete(oldest);
      this.bytes -= size(one);
    }
  }
}

/**
 * The place of the first time that is not before this one.
 * @param {number[]} times
 * @param {number} time
 */
export function placeOf(times, time) {
  let low = 0;
  let high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < time) low = middle + 1;
    else high = middle;
  }
  return low;
}
