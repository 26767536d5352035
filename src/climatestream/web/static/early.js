// @ts-check
// Before the first paint: light or dark as chosen, else as the system has it. And the first
// question, so that its answer is on its way while the modules are still read (link.js takes it).
(() => {
  const chosen = localStorage.getItem("theme");
  const dark = chosen ? chosen === "dark" : !matchMedia("(prefers-color-scheme: light)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  const asked = new URLSearchParams(location.search);
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live`);
  socket.binaryType = "arraybuffer";
  /** @type {{socket: WebSocket, answer: ArrayBuffer | null}} */
  const early = { socket, answer: null };
  socket.onopen = () =>
    socket.send(
      JSON.stringify({
        dataset: asked.get("dataset"),
        variable: asked.get("variable"),
        frame: asked.get("time") ? "-" : null,
      }),
    );
  socket.onmessage = (event) => {
    early.answer = event.data;
  };
  Object.assign(window, { early });
})();
