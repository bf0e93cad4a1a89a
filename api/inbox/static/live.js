// Live: one socket, resumed by the last id; polling while it is gone.
import { $, app, meta, thread } from "./dom.js";
import { rows } from "./list.js";
import { notify, notifying } from "./notify.js";
import { acted, catchUp, found, lose, lostAt } from "./offline.js";
import { held, ours, pill, refresh, typed } from "./order.js";
import { pause } from "./poll.js";
import { connected, signedOut } from "./toasts.js";

let socket, last = app()?.dataset.place || (sessionStorage.getItem("last") ?? ""), tries = 0, stopped = 0, card;
function heard(frame) {
  if (frame.id) sessionStorage.setItem("last", (last = frame.id));
  if (frame.kind === "draft.delta") {
    if (!card.delta(frame) && frame.thread_id === thread()) refresh();
    return;
  }
  if (frame.reason === "triaged" || frame.reason === "parked") notify(frame.thread_id);
  const listed = $(`#row-${CSS.escape(frame.thread_id ?? "none")}`);
  if (frame.kind === "reset" || frame.kind === "models" || frame.thread_id === thread() || listed || !rows().length) return refresh();
  if (frame.reason !== "received") return;
  held.add(frame.thread_id);
  pill();
  const announce = $("#announce");
  if (announce) announce.textContent = `${held.size} new thread${held.size === 1 ? "" : "s"}`;
}
function connect() {
  if (!meta("csrf") || document.hidden && stopped) return;
  socket = new WebSocket(`${location.origin.replace("http", "ws")}/live?after=${last}`);
  socket.onopen = () => { found(); tries = 0; told = ""; connected(); present(state()); catchUp(); };
  socket.onmessage = (event) => [JSON.parse(event.data)].flat().forEach(heard); // many at once come as a list
  socket.onclose = (event) => {
    if (event.code === 1008) return signedOut();
    lose();
    tries += 1;
    setTimeout(connect, Math.min(15000, 300 * 2 ** tries) * (0.5 + Math.random()));
  };
}
let told = "", toldAt = 0, inputAt = 0;
// Typing lasts half a minute after the last letter; an open editor alone is only looking.
export const state = () => (Date.now() - inputAt < 30000 && typed() ? "typing" : "viewing");
export function present(what) {
  if (socket?.readyState !== 1) return;
  const frame = document.hidden ? '{"kind":"absent"}' : JSON.stringify(thread() ? { kind: "presence", thread_id: thread(), state: what } : { kind: "ping" });
  if (frame === told && Date.now() - toldAt < 2000) return; // every letter typed says the same: the server takes 30 frames in 10 s
  told = frame;
  toldAt = Date.now();
  socket.send(frame);
}
let askedAt = 0, askAt = 0;
document.addEventListener("htmx:before:request", (event) => { if (ours(event) && !event.defaultPrevented) askedAt = Date.now(); });
document.addEventListener("htmx:finally:request", (event) => {
  if (ours(event) && askedAt) { askAt = Date.now() + pause(Date.now() - askedAt); askedAt = 0; }
});
setInterval(() => {
  present(state());
  if (acted.length) catchUp();
  if (lostAt && Date.now() - lostAt > 3000) { $("#offline").hidden = false; if (tries > 2 && !typed() && !document.hidden && !askedAt && Date.now() > askAt) refresh(); }
}, 4000);
let hiddenTimer;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiddenTimer);
  present(state());
  if (document.hidden && !notifying()) hiddenTimer = setTimeout(() => { stopped = 1; socket?.close(); }, 300000);
  else if (stopped) { stopped = 0; tries = 0; connect(); }
});
export function typing() {
  inputAt = Date.now();
  present("typing");
}
export function live(shown) {
  card = shown;
  if (app() && meta("csrf")) connect();
}
