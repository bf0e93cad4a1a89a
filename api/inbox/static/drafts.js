// Drafts: with every letter in this tab, on the server at most half a second after typing stops. What was typed belongs to the
// thread and the kind of message it was typed for, wherever the agent is by the time it is saved.
import { $, $$, meta } from "./dom.js";
import { typing } from "./live.js";
import { signedOut } from "./toasts.js";

const STORE = `draft ${meta("agent")} `;
const SENDS = /^\/(inbox\/[^/]+\/(reply|note)|suggestions\/[^/]+\/accept|compose)$/;
const REWRITES = /\/(take-over|take|cancel|notes\/[^/]+\/undo)$/; // the server puts words into the draft itself
const PAUSE = 400, AGAIN = 3000;
const words = new Map(); // place -> what the server is not known to have
const saved = new Map(); // place -> what this page saved last, and when
const shown = new WeakMap(); // box -> what it is for
const placeOf = (box) => `${box.dataset.draft} ${box.dataset.kind === "reply-all" ? "reply" : box.dataset.kind}`;
const purpose = (box) => `${box.dataset.draft} ${box.dataset.kind} ${box.dataset.suggestion ?? ""}`;
const lines = (box) => $$(`[data-with="#${box.id}"]`);
const fits = (one, box) => one?.fields.suggestion_id === (box.dataset.suggestion ?? "");

function put(place, one) {
  words.set(place, one);
  try { sessionStorage.setItem(STORE + place, JSON.stringify(one)); } catch { /* no room in this browser: the server has to do */ }
}
function drop(place) {
  words.delete(place);
  sessionStorage.removeItem(STORE + place);
}
function capture(box) {
  const fields = { text: box.value, kind: box.dataset.kind, suggestion_id: box.dataset.suggestion ?? "" };
  for (const one of lines(box)) fields[one.name] = one.value;
  put(placeOf(box), { url: box.dataset.draft, fields, due: Date.now() + PAUSE });
}
function say(place, text) {
  const state = $("#draft-state");
  if (state && $$("[data-draft]").some((box) => placeOf(box) === place)) state.textContent = text;
}

// -- one at a time, so that an older save never lands on a newer one; the newest words of a place win
let flying = null, overtaken = null, timer = 0, out = false;
function post(one, signal) {
  const headers = { "X-CSRF-Token": meta("csrf"), Accept: "application/json" };
  return fetch(one.url, { method: "POST", body: new URLSearchParams(one.fields), keepalive: one.fields.text.length < 20000, headers, signal });
}
function plan(wait) {
  clearTimeout(timer);
  timer = setTimeout(pump, wait);
}
async function pump() {
  clearTimeout(timer);
  if (flying || out) return;
  const [place, one] = [...words].filter(([, each]) => !each.sending && !each.refused).sort((a, b) => a[1].due - b[1].due)[0] ?? [];
  if (!one) return;
  if (one.due > Date.now()) return plan(one.due - Date.now());
  const control = new AbortController();
  flying = { place, one, control };
  await save(place, one, control.signal);
  flying = null;
  await pump();
}
async function save(place, one, signal) {
  try {
    const answer = await post(one, signal);
    if (answer.ok) {
      saved.set(place, { ...one, at: performance.now() });
      if (words.get(place) === one) { drop(place); say(place, "Draft kept"); }
      return;
    }
    const { code, detail } = await answer.json().catch(() => ({}));
    if (answer.status === 401 || code === "csrf-token") {
      out = true;
      signedOut();
    } else if (answer.status < 500 && answer.status !== 429) {
      one.refused = true; // as it is, it will never be taken
      return say(place, `Draft not kept: ${detail ?? answer.status}`);
    }
    say(place, "Draft not kept yet");
  } catch {
    say(place, "Offline: the draft is kept here and saved when the connection is back");
  }
  one.due = Date.now() + AGAIN;
}
document.addEventListener("input", (event) => {
  const box = event.target.closest("[data-draft]") ?? (event.target.dataset.with ? $(event.target.dataset.with) : null);
  if (!box) return;
  if (shown.get(box) !== purpose(box)) return restore({}); // a page that broke off in the middle left the words of another thread in it
  capture(box);
  if (!flying) plan(PAUSE);
  typing();
});
addEventListener("online", () => { for (const one of words.values()) one.due = Date.now(); pump(); });
addEventListener("pagehide", () => {
  flying?.control.abort(); // what comes now is newer
  for (const one of words.values()) if (!one.sending && !out) post(one).catch(() => undefined);
});

// -- what leaves with a form is no draft any more once the server has it
const pathOf = (form, button) => new URL(button?.getAttribute("formaction") ?? form.getAttribute("action") ?? "", location).pathname;
document.addEventListener("submit", (event) => {
  const { target: form, submitter } = event;
  const path = pathOf(form, submitter);
  if (SENDS.test(path)) {
    const box = $("[data-draft]", form);
    const one = box && words.get(placeOf(box));
    if (box && flying?.place === placeOf(box)) { overtaken = flying; flying.control.abort(); }
    if (one) put(placeOf(box), { ...one, sending: path });
  } else if (REWRITES.test(path) && words.size && !out && navigator.onLine && !form.dataset.waited) {
    // First what is typed, then what is put behind it.
    event.preventDefault();
    event.stopImmediatePropagation();
    for (const one of words.values()) one.due = 0;
    const draft = form.elements.draft?.value;
    const same = (one) => one.isConnected && pathOf(one) === path && one.elements.draft?.value === draft;
    Promise.race([pump(), new Promise((done) => setTimeout(done, 1000))]).then(() => {
      // The page may have been read again meanwhile: the same button stands in it anew, or this form became another one's.
      const there = [form, ...document.forms].find(same);
      if (!there) return;
      there.dataset.waited = "1";
      there.requestSubmit(there === form ? submitter : undefined);
      delete there.dataset.waited;
    });
  }
}, true);
document.addEventListener("htmx:before:request", (event) => { if (event.detail?.ctx) event.detail.ctx.began = performance.now(); });
document.addEventListener("htmx:finally:request", (event) => {
  const { request, response } = event.detail?.ctx ?? {};
  if (request?.method !== "POST") return;
  const path = new URL(request.action, location).pathname;
  for (const [place, one] of words) {
    if (one.sending !== path) continue;
    if (response?.status < 400) { drop(place); saved.delete(place); }
    else put(place, { ...one, sending: "", due: Date.now() });
  }
  if (overtaken && SENDS.test(path)) {
    // The save that the send overtook may still land behind it, and what was sent would be a draft again.
    const { place, one } = overtaken;
    overtaken = null;
    if (response?.status < 400 && !words.has(place)) put(place, { ...one, fields: { ...one.fields, text: "" }, due: Date.now() });
  }
  pump();
});

// -- the boxes of a page show what belongs to them: a morph keeps the words of the thread before in them
function left(place, began) {
  const one = words.get(place);
  if (one) return one.sending ? null : one;
  const last = saved.get(place);
  return last && last.at > began ? last : null; // the page was asked for before its words were saved
}
export function restore(ctx) {
  const began = ctx?.began ?? 0;
  const act = ctx?.request?.method === "POST" && ctx.response?.status < 400 ? new URL(ctx.request.action, location).pathname : "";
  const taken = SENDS.test(act) || REWRITES.test(act);
  for (const box of $$("[data-draft]")) {
    const same = shown.get(box) === purpose(box);
    shown.set(box, purpose(box));
    const place = placeOf(box);
    const found = left(place, began);
    const one = fits(found, box) ? found : null;
    if (one) fill(box, one.fields);
    else if (ctx && (!same || taken)) fill(box, null);
    const last = saved.get(place);
    if (words.has(place)) say(place, "Draft not kept yet");
    else if (last && last.fields.text === box.value && box.value) say(place, "Draft kept");
  }
}
function fill(box, fields) {
  const text = fields ? fields.text : box.defaultValue;
  if (box.value !== text) {
    box.value = text;
    box.dispatchEvent(new Event("input")); // for the comparison under an edit; it does not rise, so nothing is kept anew
  }
  if (fields && box.form?.matches("[data-panel=edit]")) box.form.hidden = false;
  for (const line of lines(box)) {
    const value = fields?.kind === box.dataset.kind ? fields[line.name] ?? line.defaultValue : line.defaultValue;
    if (line.value !== value) line.value = value;
  }
}

// -- what an earlier page of this tab could not save, because it was left, closed or signed out
function sentAlready(one) {
  if (one.url === "/compose/draft") return !$("[data-draft='/compose/draft']");
  return $$(".message.outbound .text, .message.note .text").some((sent) => sent.textContent.trim() === one.fields.text.trim());
}
for (const name of meta("csrf") ? Object.keys(sessionStorage).filter((each) => each.startsWith(STORE)) : []) {
  const place = name.slice(STORE.length), one = JSON.parse(sessionStorage.getItem(name));
  if (one.sending && sentAlready(one)) drop(place);
  else put(place, { ...one, sending: "", due: Date.now() });
}
restore();
pump();
