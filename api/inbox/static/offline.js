// Without a connection: acts wait and are done when it is back, in order; sends are refused, a person decides again.
import { $, app } from "./dom.js";
import { ours, refresh } from "./order.js";
import { say } from "./toasts.js";

export let lostAt = 0;
export const lose = () => { lostAt ||= Date.now(); };
export const found = () => { lostAt = 0; };
document.addEventListener("htmx:error", (event) => {
  if (!$("#offline") || event.detail?.ctx?.response) return;
  lose();
  if (!ours(event) && event.detail?.ctx?.request?.method === "POST") say("Not sent: there is no connection. What you typed is kept.");
});
export const acted = JSON.parse(sessionStorage.getItem("acted") ?? "[]");
const WAITS = /^\/inbox\/[^/]+\/(act|undo|labels)$|^\/inbox-bulk$|^\/suggestions\/[^/]+\/(reject|reason|restore)$/;
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post" || !app() || (navigator.onLine && !lostAt)) return;
  const path = new URL(event.submitter?.getAttribute("formaction") ?? form.getAttribute("action"), location).pathname;
  const waits = WAITS.test(path);
  if (!waits && navigator.onLine) return; // only the live updates are away, perhaps: try it
  event.preventDefault();
  event.stopImmediatePropagation();
  if (!waits) return say("Not sent: there is no connection. What you typed is kept.");
  acted.push([path, new URLSearchParams(new FormData(form, event.submitter)).toString()]);
  sessionStorage.setItem("acted", JSON.stringify(acted));
  say(`Offline: ${acted.length} act${acted.length === 1 ? " waits" : "s wait"} and will be done when the connection is back.`);
}, true);
let catching = false;
export async function catchUp() {
  if (catching || !acted.length || !navigator.onLine) return;
  catching = true;
  let done = 0;
  try {
    for (; acted.length; done += 1) {
      const [path, body] = acted[0];
      await fetch(path, { method: "POST", body, redirect: "manual", headers: { "Content-Type": "application/x-www-form-urlencoded" } });
      acted.shift();
      sessionStorage.setItem("acted", JSON.stringify(acted));
    }
  } catch { /* still away: the next try is in 4 s */ }
  catching = false;
  if (!done) return;
  say(`Connected again: ${done} act${done === 1 ? "" : "s"} done that waited.`);
  refresh(true);
}
