// @ts-check
/** What the server adds to what is in sight, once the view rests: cities, and a field's own cells. */

import { getField, getJson } from "./wire.js";
import { iso } from "./words.js";

/** @typedef {import("./map.js").ClimateMap} ClimateMap */

const REST_MS = 250; // the view rests this long before what is in sight is asked for
const ROOM = 0.2; // more than is in sight, on each side: a short move needs nothing new

export class Sight {
  /**
   * @param {ClimateMap} map
   * @param {(cities: number) => void} named how many cities have come
   * @param {(error: unknown) => void} failed
   */
  constructor(map, named, failed) {
    this.map = map;
    this.named = named;
    this.failed = failed;
    this.naming = 0;
    this.sharpening = 0;
    this.nameBox = "";
    /** The newest question: an answer to an older one comes too late. */
    this.turn = 0;
  }

  /** The view has moved, or another field is shown. */
  changed() {
    const { map } = this;
    clearTimeout(this.sharpening);
    if (!map.sharp) this.sharpening = window.setTimeout(() => void this.sharpen().catch(this.failed), REST_MS);
    clearTimeout(this.naming);
    if (map.named && map.field) this.naming = window.setTimeout(() => void this.name().catch(this.failed), REST_MS);
  }

  /** The cities in sight. */
  async name() {
    const { box } = this.box();
    if (box === this.nameBox) return;
    this.nameBox = box;
    const cities = await getJson("/places", { box });
    if (box !== this.nameBox) return;
    this.map.name(cities);
    this.named(cities.length);
  }

  /** Of a field that is drawn in boxes, what is in sight as finer ones, or as its cells. */
  async sharpen() {
    const { field } = this.map;
    if (!field) return;
    const { edges, box } = this.box();
    const { dataset, variable, time } = field;
    const turn = ++this.turn;
    const part = await getField({ dataset, variable, time: iso(time), box });
    if (turn === this.turn && !part.empty) this.map.sharpen(part, edges);
  }

  box() {
    const { south, north, west, east } = this.map.view.box();
    const [high, wide] = [ROOM * (north - south), ROOM * (east - west)];
    const edges = { south: Math.max(south - high, -90), north: Math.min(north + high, 90), west: west - wide, east: east + wide };
    if (edges.east - edges.west >= 360) Object.assign(edges, { west: -180, east: 180 });
    const box = [edges.south, edges.north, edges.west, edges.east].map((one) => one.toFixed(3)).join();
    return { edges, box };
  }
}
