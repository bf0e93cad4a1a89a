// Keys, live updates, drafts, toasts. Everything here only makes quicker what works as plain links and forms.
import { tinykeys } from "./vendor/tinykeys.js";
import { compose } from "./compose.js";
import { palette } from "./palette.js";
import { review } from "./review.js";

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const meta = (name) => $(`meta[name=${name}]`)?.content ?? "";
const app = () => $("#app");
const thread = () => app()?.dataset.thread ?? "";

// The server shows moments where the reader is.
document.cookie = `zone=${encodeURIComponent(Intl.DateTimeFormat().resolvedOptions().timeZone ?? "")}; path=/; max-age=31536000; samesite=lax`;

// -- one-time link: the token stays in the fragment until the form is sent
const token = $("#token");
if (token && location.hash.length > 1) {
  token.value = location.hash.slice(1);
  token.hidden = true;
  history.replaceState(null, "", "/link");
}

// -- list cursor
let cursor = "";
const rows = () => $$("#rows .row");
function move(step) {
  const list = rows();
  if (!list.length) return;
  const at = list.findIndex((row) => row.dataset.id === (cursor || thread()));
  if (at + step >= list.length - 5) more();
  const next = list[Math.max(0, Math.min(list.length - 1, at < 0 ? 0 : at + step))];
  cursor = next.dataset.id;
  paintCursor(true);
}
function paintCursor(scroll) {
  for (const row of rows()) {
    const here = row.dataset.id === cursor;
    row.classList.toggle("cursor", here);
    if (here && scroll) {
      row.scrollIntoView({ block: "nearest" });
      $(".row-link", row).focus({ preventScroll: true });
    }
  }
}
function extend(step) {
  for (const turn of [0, step]) {
    if (turn) move(turn);
    const box = $("input[type=checkbox]", rowHere() ?? document.body);
    if (box) box.checked = true;
  }
  cursor ||= rowHere()?.dataset.id ?? "";
  selection();
}
// -- more rows: appended where the list ends; a page that is read again keeps them
let loading = false;
async function more() {
  const link = $(".more");
  if (!link || loading) return;
  loading = true;
  try {
    const answer = await fetch(link.href, { headers: { Purpose: "prefetch" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const list = $("#rows");
    for (const row of page.querySelectorAll("#rows .row")) {
      if (document.getElementById(row.id)) continue;
      row.dataset.more = "";
      list.append(document.importNode(row, true));
    }
    const next = page.querySelector(".more");
    if (next) link.href = next.getAttribute("href");
    else link.remove();
    htmx.process(list);
  } catch { say("The next rows did not come: there is no connection."); }
  loading = false;
}
function keepMore(fragment, posted) {
  const list = fragment?.querySelector?.("#rows");
  if (!list || list.dataset.list !== $("#rows")?.dataset.list) return;
  const gone = (row) => posted && (row.dataset.id === thread() || $("input:checked", row));
  const extra = $$("#rows [data-more]").filter((row) => !list.querySelector(`#${row.id}`) && !gone(row));
  if (!extra.length) return;
  const now = fragment.querySelector("#app")?.dataset.thread ?? fragment.dataset?.thread;
  list.append(...extra.map((row) => row.cloneNode(true)));
  for (const row of list.children) row.classList.toggle("current", row.dataset.id === now);
  const fresh = fragment.querySelector(".more");
  if ($(".more")) fresh?.replaceWith($(".more").cloneNode(true));
  else fresh?.remove();
}
document.addEventListener("htmx:before:swap", (event) => {
  for (const task of event.detail?.tasks ?? []) keepMore(task.fragment, event.detail.ctx?.request?.method === "POST");
});
// -- frame: how wide the list is and whether the rail is folded, kept in this browser
const frame = document.documentElement;
function shape(width, folded) {
  if (width) { frame.style.setProperty("--list", `${width}px`); localStorage.setItem("list", width); $("#grip")?.setAttribute("aria-valuenow", width); }
  if (folded !== undefined) { frame.classList.toggle("folded", folded); localStorage.setItem("folded", folded ? "1" : ""); }
  $("[data-fold-rail]")?.setAttribute("aria-expanded", String(!frame.classList.contains("folded")));
}
const within = (width) => Math.round(Math.max(340, Math.min(420, width)));
shape(Number(localStorage.getItem("list")) || 0, Boolean(localStorage.getItem("folded")));
document.addEventListener("pointerdown", (event) => {
  if (event.target.id !== "grip") return;
  event.preventDefault();
  const drag = (at) => shape(within(at.clientX - $("#list").getBoundingClientRect().left));
  addEventListener("pointermove", drag);
  addEventListener("pointerup", () => removeEventListener("pointermove", drag), { once: true });
});
document.addEventListener("keydown", (event) => {
  const step = event.target.id === "grip" && { ArrowLeft: -10, ArrowRight: 10 }[event.key];
  if (step) shape(within($("#list").offsetWidth + step));
});
// -- who: the drawer beside the thread stays open from thread to thread until it is closed
let cameFrom;
function who(open = !frame.classList.contains("who-open"), focus = true) {
  const drawer = $("#context");
  if (!drawer) return;
  if (open && focus) cameFrom = document.activeElement;
  frame.classList.toggle("who-open", open);
  sessionStorage.setItem("who", open ? "1" : "");
  for (const button of $$("[data-who]")) button.setAttribute("aria-expanded", String(open));
  if (!focus) return;
  if (open) ($(".close", drawer).offsetParent ? $(".close", drawer) : drawer).focus();
  else (cameFrom?.isConnected && cameFrom !== document.body ? cameFrom : $("#thread"))?.focus({ preventScroll: true });
}
// -- phone: a row drawn to the right is done, to the left snoozed; the same buttons stand in the thread
let drawn;
document.addEventListener("touchstart", (event) => {
  const row = event.touches.length === 1 && event.target.closest?.("#rows .row");
  drawn = row ? { row, x: event.touches[0].clientX, y: event.touches[0].clientY, by: 0 } : null;
}, { passive: true });
document.addEventListener("touchmove", (event) => {
  if (!drawn) return;
  const by = event.touches[0].clientX - drawn.x;
  if (Math.abs(event.touches[0].clientY - drawn.y) > 30) { drawn.row.style.transform = ""; drawn = null; return; }
  drawn.by = by;
  if (Math.abs(by) > 12) drawn.row.style.transform = `translateX(${by}px)`;
}, { passive: true });
document.addEventListener("touchend", () => {
  if (!drawn) return;
  const { row, by } = drawn;
  drawn = null;
  row.style.transform = "";
  if (Math.abs(by) < 90) return;
  for (const box of $$("#rows input:checked")) box.checked = false;
  $("input[type=checkbox]", row).checked = true;
  $(`.bulk-bar [value=${by > 0 ? "done" : "snooze"}]`).click();
});
const rowHere = () => $(`#row-${CSS.escape(cursor || thread() || "none")}`) ?? rows()[0];

// -- acts by key: they press the button that a mouse would
// While one is under way, those that take a thread out of the list wait their turn: a key held down drops none.
const LEAVING = new Set(["done", "spam", "trash"]);
const waiting = [];
const press = (key) => {
  if (busy && LEAVING.has(key)) return Boolean(waiting.push(key));
  const button = $$(`[data-key="${key}"]`).find((one) => !one.disabled && one.offsetParent !== null);
  if (button) button.click();
  return Boolean(button);
};
const acts = {
  next: () => move(1),
  previous: () => move(-1),
  open: () => $(".row-link", rowHere() ?? document.body)?.click(),
  back: () => press("back"),
  select: () => { const box = $("input[type=checkbox]", rowHere() ?? document.body); if (box) { box.checked = !box.checked; selection(); } },
  "select-next": () => extend(1),
  "select-previous": () => extend(-1),
  "more-acts": () => { const first = $(".acts button, .acts summary"); first?.focus(); },
  search: () => $("#search")?.focus(),
  edit: () => press("edit"),
  "next-message": () => message(1),
  "previous-message": () => message(-1),
  context: () => who(),
  snooze: () => { const panel = $("[data-panel=snooze]"); if (panel) { panel.open = true; $("#when").focus(); } },
  help: () => $("#help")?.showModal(),
  send: () => {
    const form = document.activeElement?.closest("form");
    const wanted = form && form.matches("#reply-form, [data-panel=edit]") ? form : $("#reply-form");
    wanted?.requestSubmit($("[data-key=send]", wanted) ?? undefined);
  },
};
function message(step) {
  const all = $$(".message");
  const at = all.indexOf(document.activeElement?.closest(".message"));
  const next = all[Math.max(0, Math.min(all.length - 1, at < 0 && step > 0 ? 0 : at + step))];
  if (!next) return;
  next.focus();
  history.replaceState(history.state, "", `#${next.id}`);
}
// Frames of mails cannot be measured from here; the server reckoned their height for some widths.
function fit() {
  for (const frame of $$("iframe[data-high]")) {
    const known = frame.dataset.high.trim().split(" ").map((pair) => pair.split(":").map(Number));
    if (!frame.clientWidth) continue;
    const fits = known.filter(([width]) => width <= frame.clientWidth).pop() ?? known[0];
    if (frame.height !== String(fits[1])) frame.height = fits[1];
  }
}
addEventListener("resize", fit);
document.addEventListener("toggle", fit, true);
// A thread opens at its newest message. Refreshes of the same thread leave the reader where they are.
let opened = "";
function open() {
  fit();
  if (sessionStorage.getItem("who")) who(true, false);
  if (thread() === opened) return;
  opened = thread();
  const start = !location.hash && $("#scroll [data-start]");
  if (start && getComputedStyle($("#scroll")).overflowY === "auto") $("#scroll").scrollTo({ top: start.offsetTop - $("#scroll").offsetTop - 12, behavior: "instant" });
  const auto = $("form[data-auto]");
  if (auto) auto.requestSubmit();
}
const table = {};
const links = {};
for (const entry of meta("keys").split("|").filter(Boolean)) {
  const [act, keys, href] = entry.split("=");
  if (keys.includes("…")) continue; // a row of digits: review.js
  if (href) links[act] = entry.slice(act.length + keys.length + 2);
  table[keys] = (event) => {
    const typing = event.target.closest?.("input:not([type=checkbox]), textarea, select");
    if ((typing && !keys.includes("$mod")) || $("dialog[open]")) return;
    event.preventDefault();
    run(act);
  };
}
// A page of the inbox is read into this one; any other is opened.
function go(href) {
  if (!href.startsWith("/inbox") || !$("#list")) return location.assign(href);
  htmx.ajax("GET", href, { target: "#app", select: "#app", swap: "outerMorph", push: href }).catch(() => location.assign(href));
}
function run(act) {
  if (links[act]) go(links[act]);
  else (acts[act] ?? (() => press(act)))();
}
tinykeys(window, table, { timeout: 900 });
document.addEventListener("keydown", (event) => {
  if ($("dialog[open]")) return;
  if (event.key === "Escape") {
    if (event.target.closest?.("#context") && frame.classList.contains("who-open")) who(false);
    else if (event.target.closest?.("details[open]:has(> .pop)")) { const menu = event.target.closest("details[open]"); menu.open = false; $("summary", menu).focus(); }
    else if (event.target.matches?.("input, textarea")) event.target.blur();
    else press("back");
  } else if (event.key === "ArrowDown" && event.target.closest?.("#rows")) { event.preventDefault(); move(1); }
  else if (event.key === "ArrowUp" && event.target.closest?.("#rows")) { event.preventDefault(); move(-1); }
});

// -- menus that open over the page close when something was chosen in them, beside them, or by Esc
function fold(but) {
  for (const menu of $$("details[open]:has(> .pop)")) if (menu !== but) menu.open = false;
}
document.addEventListener("submit", (event) => { if (event.target.closest(".pop") || event.submitter?.closest(".pop")) fold(); });

// -- clicks, selection, selects that submit
document.addEventListener("click", (event) => {
  fold(event.target.closest("a") ? null : event.target.closest("details:has(> .pop)"));
  if (event.target.closest("[data-close]")) event.target.closest("dialog").close();
  const toggle = event.target.closest("[data-toggle]");
  if (toggle) {
    const panel = document.getElementById(toggle.dataset.toggle);
    panel.hidden = !panel.hidden;
    toggle.setAttribute("aria-expanded", String(!panel.hidden));
    if (!panel.hidden) $("textarea", panel)?.focus();
  }
  if (event.target.id === "pill") refresh(true);
  if (event.target.closest("[data-who]")) who();
  if (event.target.closest("[data-fold-rail]")) shape(0, !frame.classList.contains("folded"));
  if (event.target.closest(".more")) { event.preventDefault(); event.stopPropagation(); more(); }
  const copy = event.target.closest("[data-copy]");
  if (copy) navigator.clipboard.writeText(copy.dataset.copy).then(() => { copy.textContent = "Copied"; });
});
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
  if (event.target.matches("#rows input[type=checkbox]")) selection();
});
function selection() {
  const count = $$("#rows input:checked").length;
  const bar = $(".bulk-bar");
  if (!bar) return;
  bar.hidden = !count;
  $("#bulk-count").textContent = `${count} selected`;
  $("#rows").classList.toggle("selecting", count > 0);
}

// -- drafts: on the server at most half a second after typing stops
const timers = new Map();
let kept = "";
const wordsOf = (box) => `${box.dataset.draft} ${box.value}`;
async function keep(box) {
  timers.delete(box);
  const body = new URLSearchParams({ text: box.value, kind: box.dataset.kind, suggestion_id: box.dataset.suggestion ?? "" });
  for (const one of $$(`[data-with="#${box.id}"]`)) body.set(one.name, one.value);
  const state = $("#draft-state");
  try {
    const answer = await fetch(box.dataset.draft, { method: "POST", body, keepalive: box.value.length < 60000, headers: { "X-CSRF-Token": meta("csrf") } });
    if (answer.ok) kept = `${box.dataset.draft} ${body.get("text")}`;
    if (state) state.textContent = answer.ok ? "Draft kept" : "Draft not kept yet";
    if (!answer.ok && answer.status >= 500) timers.set(box, setTimeout(() => keep(box), 3000));
  } catch {
    if (state) state.textContent = "Offline: the draft is kept here and saved when the connection is back";
    timers.set(box, setTimeout(() => keep(box), 3000));
  }
}
document.addEventListener("input", (event) => {
  const box = event.target.closest("[data-draft]") ?? (event.target.dataset.with ? $(event.target.dataset.with) : null);
  if (!box) return;
  clearTimeout(timers.get(box));
  timers.set(box, setTimeout(() => keep(box), 400));
  inputAt = Date.now();
  present("typing");
});
addEventListener("pagehide", () => { for (const [box, timer] of timers) { clearTimeout(timer); keep(box); } });
document.addEventListener("submit", (event) => {
  for (const [box, timer] of timers) if (event.target.contains(box)) { clearTimeout(timer); timers.delete(box); }
});

// -- toasts
setInterval(() => {
  const clock = $("[data-countdown]");
  if (!clock) return;
  const left = Math.max(0, Number(clock.dataset.countdown) - 1);
  clock.dataset.countdown = left;
  clock.textContent = left ? `Sending in ${left} s` : "On its way";
  if (!left) setTimeout(forgetAct, 1500);
}, 1000);
function forgetAct() {
  $("#toasts")?.replaceChildren();
  const url = new URL(location.href);
  for (const name of ["did", "message", "suggestion", "state", "thread", "version", "redo", "until", "back", "was"]) url.searchParams.delete(name);
  history.replaceState(history.state, "", url);
}

// -- live: one socket, resumed by the last id; polling while it is gone
let busy = 0, userActs = 0;
let socket, last = app()?.dataset.place || (sessionStorage.getItem("last") ?? ""), tries = 0, lostAt = 0, pending = 0, stopped = 0, whole = false;
const held = new Set(); // threads that changed and wait behind the pill: rows never move under a pointer
const typed = () => { const box = document.activeElement; return box?.matches?.("textarea, input[type=search]") && box.value; };
function refresh(all) {
  clearTimeout(pending);
  pending = setTimeout(() => {
    if (!$("#announce") || $("dialog[open]")) return;
    if (busy) return refresh(all);
    whole ||= Boolean(all);
    htmx.ajax("GET", location.pathname + location.search, { source: "#announce", target: "#app", select: "#app", swap: "outerMorph" });
  }, 120);
}
// An act of the agent beats a refresh that was asked for before it: the older page must not paint over the newer one.
const ours = (event) => event.detail?.ctx?.sourceElement?.id === "announce";
let slow;
// Each refresh knows for itself which acts came before it: one that waited for another starts later than it was asked for.
document.addEventListener("htmx:before:request", (event) => {
  if (ours(event)) {
    event.detail.ctx.acts = userActs;
    if (busy) { event.preventDefault(); refresh(); }
    return;
  }
  busy += 1;
  userActs += 1;
  held.clear();
  if (event.detail?.ctx?.target?.id !== "app") return;
  clearTimeout(slow);
  slow = setTimeout(() => { document.body.classList.add("waiting"); $("#thread")?.setAttribute("aria-busy", "true"); }, 150);
});
document.addEventListener("htmx:finally:request", (event) => {
  if (ours(event)) return;
  busy = Math.max(0, busy - 1);
  if (!busy) { clearTimeout(slow); document.body.classList.remove("waiting"); $("#thread")?.removeAttribute("aria-busy"); }
  if (!busy && waiting.length) press(waiting.shift());
});
document.addEventListener("htmx:before:swap", (event) => {
  if (!ours(event)) return;
  if (event.detail.ctx.response?.status >= 400) return event.preventDefault();
  if (event.detail.ctx.acts !== userActs) { event.preventDefault(); return refresh(); }
  for (const { fragment } of event.detail.tasks) keepWords(fragment);
  if (whole) held.clear();
  else hold(event.detail.tasks.map((task) => task.fragment?.querySelector?.("#rows")).find(Boolean));
  whole = false;
});
// What the last act was answered stays: a refusal with its reason, and a question that the next press of Send answers.
function keepWords(fragment) {
  const fresh = fragment?.querySelector?.("#app");
  if (!fresh || fresh.dataset.thread !== thread()) return;
  const said = $(".thread-body > [role=alert]");
  if (said && !$(".thread-body > [role=alert]", fresh)) $(".thread-body", fresh)?.prepend(said.cloneNode(true));
  const asked = $("#reply-form [name=confirmed]");
  if (!asked || !$("#reply-form", fresh) || $("#reply-form [name=confirmed]", fresh)) return;
  $("#reply-form", fresh).prepend(asked.cloneNode());
  const send = $("#reply-form .primary", fresh);
  send.replaceChildren(...[...$("#reply-form .primary").childNodes].map((node) => node.cloneNode(true)));
}
// A page read again keeps the order of the rows that are shown. What is new above the last of them waits behind the pill.
function hold(list) {
  const shown = rows().map((row) => row.dataset.id);
  if (!list || !shown.length) return;
  const there = new Map([...list.children].map((row) => [row.dataset.id, row]));
  const end = Math.max(-1, ...[...there.keys()].map((id, place) => (shown.includes(id) ? place : -1)));
  const below = [...there.keys()].filter((id, place) => !shown.includes(id) && place > end);
  for (const [id, row] of there) {
    const before = document.getElementById(`row-${id}`);
    const when = (one) => $("time", one)?.dateTime;
    if (!before ? !below.includes(id) : row.classList.contains("unread") && when(row) !== when(before)) held.add(id);
  }
  list.replaceChildren(...shown.filter((id) => there.has(id)).map((id) => there.get(id)), ...below.map((id) => there.get(id)));
}
function pill() {
  const box = $("#pill");
  if (!box) return;
  box.hidden = !held.size;
  box.textContent = held.size ? `${held.size} new` : "";
}
function heard(frame) {
  if (frame.id) sessionStorage.setItem("last", (last = frame.id));
  if (frame.kind === "draft.delta") {
    if (!card.delta(frame) && frame.thread_id === thread()) refresh();
    return;
  }
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
  socket.onopen = () => { tries = lostAt = 0; told = ""; $("#offline").hidden = true; present(state()); catchUp(); };
  socket.onmessage = (event) => [JSON.parse(event.data)].flat().forEach(heard); // many at once come as a list
  socket.onclose = (event) => {
    if (event.code === 1008) return signedOut();
    lostAt ||= Date.now();
    tries += 1;
    setTimeout(connect, Math.min(15000, 300 * 2 ** tries) * (0.5 + Math.random()));
  };
}
let told = "", toldAt = 0, inputAt = 0;
// Typing lasts half a minute after the last letter; an open editor alone is only looking.
const state = () => (Date.now() - inputAt < 30000 && typed() ? "typing" : "viewing");
function present(what) {
  if (socket?.readyState !== 1) return;
  const frame = document.hidden ? '{"kind":"absent"}' : JSON.stringify(thread() ? { kind: "presence", thread_id: thread(), state: what } : { kind: "ping" });
  if (frame === told && Date.now() - toldAt < 2000) return; // every letter typed says the same: the server takes 30 frames in 10 s
  told = frame;
  toldAt = Date.now();
  socket.send(frame);
}
setInterval(() => {
  present(state());
  if (acted.length) catchUp();
  if (lostAt && Date.now() - lostAt > 3000) { $("#offline").hidden = false; if (tries > 2 && !typed() && !document.hidden) refresh(); }
}, 4000);
let hiddenTimer;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiddenTimer);
  present(state());
  if (document.hidden) hiddenTimer = setTimeout(() => { stopped = 1; socket?.close(); }, 300000);
  else if (stopped) { stopped = 0; tries = 0; connect(); }
});
// A morph leaves `hidden` as the agent left it. In a card that it made from another card's parts, the server decides anew.
const panelOf = new WeakMap();
function panels() {
  for (const one of $$("#suggestion form")) {
    if (panelOf.get(one) !== one.id) one.hidden = one.dataset.shown === "0";
    panelOf.set(one, one.id);
  }
}
document.addEventListener("htmx:after:swap", () => {
  // A page that was made before the words were kept does not know that they are.
  const box = $("#reply[data-draft]");
  if (box?.value && kept === wordsOf(box)) $("#draft-state").textContent = "Draft kept";
  open();
  panels();
  paintCursor(false);
  selection();
  present(state());
  pill();
  if (said && !$("#toasts > *")) say(said); // a page that was read again has no toast of its own
});
document.addEventListener("htmx:error", (event) => {
  if (!$("#offline") || event.detail?.ctx?.response) return;
  lostAt ||= Date.now();
  if (!ours(event) && event.detail?.ctx?.request?.method === "POST") say("Not sent: there is no connection. What you typed is kept.");
});
// -- without a connection: acts wait and are done when it is back, in order; sends are refused, a person decides again
const acted = JSON.parse(sessionStorage.getItem("acted") ?? "[]");
const WAITS = /^\/inbox\/[^/]+\/(act|undo|labels)$|^\/inbox-bulk$|^\/suggestions\/[^/]+\/(reject|restore)$/;
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
async function catchUp() {
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
let said = "";
function say(words) {
  said = words;
  setTimeout(() => { if (said === words) said = ""; }, 6000);
  const toast = document.createElement("div");
  toast.className = "toast";
  toast.textContent = words;
  $("#toasts")?.replaceChildren(toast);
}
function signedOut() {
  const box = $("#offline");
  const link = document.createElement("a");
  link.href = `/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`;
  link.textContent = "Sign in again";
  box.replaceChildren("You are signed out. What you typed is kept. ", link);
  box.hidden = false;
}
open();
const card = review({ $, $$, acts, press, refresh });
panels();
if (app() && meta("csrf")) connect();
compose({ $, $$, acts, press, meta });
palette({ $, $$, acts, run, go });
document.documentElement.dataset.ready = "1";
