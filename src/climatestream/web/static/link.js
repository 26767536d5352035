// @ts-check
/**
 * The live connection: asks, gets one answer when there is something newer than what is drawn,
 * and asks again once that is drawn. However slow this browser is, nothing queues for it.
 */

import { knownGrid, unpackLive } from "./wire.js";

const SILENCE_MS = 15_000; // the server answers every 5 s even when nothing is new
const RETRY_MS = [250, 500, 1000, 2000, 4000];

/** @typedef {import("./wire.js").State} State */
/** @typedef {import("./wire.js").Field} Field */

/**
 * @typedef {object} Wish
 * @property {string | null} dataset
 * @property {string | null} variable
 * @property {boolean} live whether the newest field is wanted
 */

export class Link {
  /**
   * @param {() => Wish} wish
   * @param {(state: State, field: Field | null) => void} answered
   * @param {(status: "live" | "trouble" | "disconnected", sentence?: string) => void} said
   */
  constructor(wish, answered, said) {
    this.wish = wish;
    this.answered = answered;
    this.said = said;
    /** @type {WebSocket | null} */
    this.socket = null;
    /** @type {string | null} */
    this.seen = null;
    /** @type {string | null} */
    this.frame = null;
    this.attempts = 0;
    this.silence = 0;
    this.retry = 0;
    /** Answers and their bytes, for whoever measures. */
    this.taken = { answers: 0, bytes: 0, fields: 0, fieldBytes: 0 };
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.ask();
    });
  }

  /** Take over what was asked while the modules were read; or ask anew. */
  adopt() {
    const { early } = /** @type {{early?: {socket: WebSocket, answer: ArrayBuffer | null}}} */ (/** @type {unknown} */ (window));
    if (!early || early.socket.readyState > WebSocket.OPEN) {
      this.open();
      return;
    }
    this.socket = early.socket;
    this.silence = window.setTimeout(() => this.#lost(), SILENCE_MS);
    this.socket.onclose = () => this.#lost();
    this.socket.onmessage = (event) => this.#take(event.data);
    if (early.answer) this.#take(early.answer);
  }

  open() {
    clearTimeout(this.retry);
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/live`);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => this.ask();
    this.socket.onclose = () => this.#lost();
    this.socket.onmessage = (event) => this.#take(event.data);
  }

  /** Ask for what is newer; or, after another choice, for whatever there is. */
  ask(anew = false) {
    if (anew) this.seen = this.frame = null;
    if (this.socket?.readyState !== WebSocket.OPEN) return;
    clearTimeout(this.silence);
    this.silence = window.setTimeout(() => this.#lost(), SILENCE_MS);
    const { dataset, variable, live } = this.wish();
    const grid = knownGrid(dataset);
    this.socket.send(
      JSON.stringify({ dataset, variable, seen: this.seen, frame: live ? this.frame : "-", grid }),
    );
  }

  /** @param {ArrayBuffer} buffer */
  #take(buffer) {
    clearTimeout(this.silence);
    this.attempts = 0;
    const { state, error, token, field } = unpackLive(buffer);
    this.seen = token;
    this.taken.answers++;
    this.taken.bytes += buffer.byteLength;
    if (error || !state) {
      this.said("trouble", error);
    } else {
      if (field) {
        this.frame = field.version;
        this.taken.fields++;
        this.taken.fieldBytes += buffer.byteLength;
      }
      this.said("live");
      this.answered(state, field);
    }
    // the next one is asked for when this one has been painted: that is the acknowledgement
    if (document.hidden) return;
    requestAnimationFrame(() => this.ask());
  }

  #lost() {
    clearTimeout(this.silence);
    if (this.socket) {
      this.socket.onopen = this.socket.onclose = this.socket.onmessage = null;
      this.socket.close();
    }
    this.socket = null;
    this.seen = this.frame = null;
    this.said("disconnected");
    clearTimeout(this.retry);
    const wait = RETRY_MS[Math.min(this.attempts++, RETRY_MS.length - 1)];
    this.retry = window.setTimeout(() => this.open(), wait);
  }
}
