// @ts-check
/** The card that tells what is under the pointer: at once what the field holds, then all else. */

import { element } from "./boards.js";
import { along } from "./raster.js";
import { getJson, Refused } from "./wire.js";
import * as words from "./words.js";

/** @typedef {import("./map.js").Cell} Cell */
/** @typedef {import("./map.js").ClimateMap} ClimateMap */
/** @typedef {import("./wire.js").Choice} Choice */
/** @typedef {import("./wire.js").Field} Field */

const DWELL_MS = 140; // the pointer rests this long before all values of a cell are asked for
const WIND = ["u10", "v10", "wind_speed"]; // told in one line

export class Readout {
  /**
   * @param {ClimateMap} map
   * @param {(variable: string) => Choice | undefined} choiceOf
   */
  constructor(map, choiceOf) {
    this.map = map;
    this.choiceOf = choiceOf;
    this.card = /** @type {HTMLElement} */ (document.getElementById("reading"));
    this.pointer = /** @type {HTMLElement} */ (document.getElementById("pointer"));
    /** Where the pointer is on the stage. @type {{x: number, y: number} | null} */
    this.at = null;
    /** What the store holds of the cell, once it has said so. @type {any} */
    this.found = null;
    this.dwell = 0;
    this.key = "";
  }

  /** Another place, or another field. */
  show() {
    const { map, at, card } = this;
    const { field } = map;
    const cell = at && map.cellAt(at.x, at.y);
    const choice = field ? this.choiceOf(field.variable) : undefined;
    this.pointer.hidden = !cell || !choice || cell.value !== cell.value;
    if (!cell || !choice || !field) {
      card.hidden = true;
      clearTimeout(this.dwell);
      this.key = "";
      return;
    }
    this.pointer.style.bottom = `${(100 * along(choice.knots, cell.value)).toFixed(1)}%`;
    const key = `${cell.key} ${field.version} ${field.variable}`;
    if (key !== this.key) {
      this.key = key;
      if (this.found?.key !== cell.key) this.found = null;
      clearTimeout(this.dwell);
      this.dwell = window.setTimeout(() => void this.ask(field, cell, key), DWELL_MS);
    }
    const { found } = this;
    const exact = cell.boxed && found ? found : cell;
    const title = element("p", "", "place");
    const where = [found?.near, map.outlines.name(found?.country)].filter(Boolean).join(", ");
    title.append(element("b", words.place(exact.latitude, exact.longitude)), element("span", where));
    const list = document.createElement("dl");
    for (const [label, value, main] of this.lines(cell, choice)) {
      list.append(element("dt", label, main), element("dd", value, main));
    }
    const when = `${words.time(field.time)} UTC${found?.preliminary ? " · preliminary" : ""}`;
    card.replaceChildren(title, list, element("p", when, "when"));
    card.hidden = false;
  }

  /**
   * Label, value and class of each line: the variable that is shown, the wind, all others.
   * @param {Cell} cell
   * @param {Choice} choice
   * @returns {string[][]}
   */
  lines(cell, choice) {
    /** @type {[string, string, number, string][]} */
    const values = this.found?.values ?? [];
    const own = new Map(values.map(([name, , value]) => [name, value]));
    const value = cell.boxed ? own.get(choice.name) : cell.value;
    const lines = [
      value === undefined
        ? [`${choice.label}, mean of the cells here`, words.shown(cell.value, choice), "main"]
        : [choice.label, words.shown(value, choice), "main"],
    ];
    const [u, v] = [own.get("u10"), own.get("v10")];
    const exact = cell.boxed && u !== undefined && v !== undefined;
    const [speed, from] = exact
      ? [Math.hypot(u, v), (Math.atan2(-u, -v) * 180) / Math.PI]
      : [cell.speed, cell.from];
    if (speed === speed) lines.push(["Wind", `${speed.toFixed(1)} m/s from ${words.bearing(from)}`, ""]);
    for (const [name, label, other, unit] of values) {
      if (name !== choice.name && !WIND.includes(name)) lines.push([label, words.value(other, unit), ""]);
    }
    return lines;
  }

  /**
   * @param {Field} field
   * @param {Cell} cell
   * @param {string} key
   */
  async ask(field, cell, key) {
    try {
      const found = await reading(field, cell);
      if (key !== this.key) return;
      this.found = { ...found, key: cell.key };
      this.show();
    } catch (error) {
      if (error instanceof Refused) return; // the time has expired since
      if (!(error instanceof TypeError)) throw error; // the server has gone: the link says so
    }
  }
}

/**
 * All that is stored of the cell nearest to a place, at the time of a field.
 * @param {Field} field
 * @param {{latitude: number, longitude: number}} place
 */
export function reading({ dataset, variable, time }, { latitude, longitude }) {
  return getJson("/reading", { dataset, variable, time: words.iso(time), cell: `${latitude.toFixed(4)},${longitude.toFixed(4)}` });
}
