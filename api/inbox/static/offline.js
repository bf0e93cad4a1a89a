// Without a connection: acts wait and are done when it is back, in order; sends are refused, a person decides again.
import { $, $$, app, meta } from "./dom.js";
import { ours, refresh } from "./order.js";
import { say, signedOut } from "./toasts.js";

export let lostAt = 0;
export const lose = () => { lostAt ||= Date.now(); };
export const found = () => { lostAt = 0; };
document.addEventListener("htmx:error", (event) => {
  if (!$("#offline") || event.detail?.ctx?.response) return;
  lose();
  if (!ours(event) && event.detail?.ctx?.request?.method === "POST") say("Not sent: there is no connection. What you typed is kept.");
});
// Kept for this agent alone: another one who signs in here does not do them.
const PLACE = `acted ${meta("agent")}`;
export const acted = JSON.parse(sessionStorage.getItem(PLACE) ?? "[]");
const keep = () => sessionStorage.setItem(PLACE, JSON.stringify(acted));
const WAITS = /^\/inbox\/[^/]+\/(act|undo|labels)$|^\/inbox-bulk$|^\/suggestions\/[^/]+\/(reject|reason|restore)$|^\/notes\/[^/]+\/(remove|restore)$/;
// What a person would call it: the words of the button and the thread it was pressed for.
function named(form, button) {
  const shown = (button ?? form).cloneNode(true);
  for (const key of $$("kbd", shown)) key.remove();
  const words = (button?.title.replace(/ \([^)]*\)$/, "") || shown.textContent).trim().replace(/\s+/g, " ").slice(0, 60) || "An act";
  const subject = form.matches("#bulk") ? $("#bulk-count")?.textContent : $(".thread-title h1")?.textContent;
  return subject ? `${words} (${subject})` : words;
}
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post" || !app() || (navigator.onLine && !lostAt)) return;
  const path = new URL(event.submitter?.getAttribute("formaction") ?? form.getAttribute("action"), location).pathname;
  const waits = WAITS.test(path);
  if (!waits && navigator.onLine) return; // only the live updates are away, perhaps: try it
  event.preventDefault();
  event.stopImmediatePropagation();
  if (!waits) return say("Not sent: there is no connection. What you typed is kept.");
  acted.push([path, new URLSearchParams(new FormData(form, event.submitter)).toString(), named(form, event.submitter)]);
  keep();
  say(`Offline: ${acted.length} act${acted.length === 1 ? " waits" : "s wait"} and will be done when the connection is back.`);
}, true);
// Done or refused, an act leaves the queue; while nobody is signed in, or the server cannot answer, it stays there.
async function replay([path, body]) {
  const headers = { "Content-Type": "application/x-www-form-urlencoded", Accept: "application/json", "X-CSRF-Token": meta("csrf") };
  const answer = await fetch(path, { method: "POST", body, redirect: "manual", headers });
  if (answer.type === "opaqueredirect" || answer.ok) return { done: true };
  const { code, detail } = await answer.json().catch(() => ({}));
  if (answer.status === 401 || code === "csrf-token") return { stays: true, out: true };
  if (answer.status >= 500 || answer.status === 429) return { stays: true };
  return { refused: detail ?? `the server answered ${answer.status}` };
}
let catching = false, out = false;
export async function catchUp() {
  if (catching || out || !acted.length || !navigator.onLine) return;
  catching = true;
  let done = 0;
  const refused = [];
  try {
    while (acted.length) {
      const became = await replay(acted[0]);
      if (became.out) { out = true; signedOut(); }
      if (became.stays) break;
      const [[, , name]] = acted.splice(0, 1);
      keep();
      if (became.done) done += 1;
      else refused.push(`${name}: ${became.refused}`);
    }
  } catch { /* still away: the next try is in 4 s */ }
  catching = false;
  if (refused.length) say(`Not done, although it waited: ${refused.join("; ")}.`, { bad: true });
  if (done) say(`Connected again: ${done} act${done === 1 ? "" : "s"} done that waited.`);
  if (done || refused.length) refresh(true);
}
