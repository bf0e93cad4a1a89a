// Acts of the agent and pages that are read again, one after the other: the older page never paints over the newer one.
import { $, $$, thread } from "./dom.js";
import { meant, onRows, rows } from "./list.js";
import { bring, carry, say, signedOut } from "./toasts.js";

let busy = 0, posting = 0, turns = 0, userActs = 0, pending = 0, whole = false;
export const held = new Set(); // threads that changed and wait behind the pill: rows never move under a pointer
export const typed = () => { const box = document.activeElement; return box?.matches?.("textarea, input[type=search]") && box.value; };
export function refresh(all) {
  clearTimeout(pending);
  pending = setTimeout(() => {
    if (!$("#announce") || $("dialog[open]")) return;
    if (busy) return refresh(all);
    whole ||= Boolean(all);
    htmx.ajax("GET", location.pathname + location.search, { source: "#announce", target: "#app", select: "#app", swap: "outerMorph" });
  }, 120);
}
// What a fetch of our own has painted: a page that was asked for before it is older.
export const painted = () => { userActs += 1; };
// An act of the agent beats a refresh that was asked for before it: the older page must not paint over the newer one.
export const ours = (event) => event.detail?.ctx?.sourceElement?.id === "announce";
let slow;
// The bones stand where something else will be: in the list when another view is asked for, in the thread when another one is.
function changing({ method, action } = {}) {
  const to = new URL(action ?? location.href, location.href);
  if (method === "POST") return to.pathname === "/inbox-bulk" ? [] : ["thread"]; // what one reads meanwhile stays to be read
  const listed = (url) => ["view", "sort", "q", "cursor"].map((name) => url.searchParams.get(name) ?? (name === "view" ? "inbox" : "")).join(" ");
  return [...(listed(to) === listed(new URL(location.href)) ? [] : ["list"]), ...(to.pathname === location.pathname ? [] : ["thread"])];
}
function rest() {
  for (const part of ["list", "thread"]) { document.body.classList.remove(`waiting-${part}`); $(`#${part}`)?.removeAttribute("aria-busy"); }
}
// Each refresh knows for itself which acts came before it: one that waited for another starts later than it was asked for.
document.addEventListener("htmx:before:request", (event) => {
  const { ctx } = event.detail ?? {};
  if (ours(event)) {
    ctx.acts = userActs;
    ctx.request.action = location.pathname + location.search; // one that waited was asked for where the agent was then
    if (busy) { event.preventDefault(); refresh(); }
    return;
  }
  busy += 1;
  ctx.posted = ctx.request?.method === "POST" && ctx.target?.id === "app";
  if (ctx.posted) { posting += 1; ctx.at = writing(); ctx.turns = turns; }
  else if (ctx.target?.id === "app" || ctx.target === document.body) ctx.turn = ++turns; // the body is where Back reads a page into
  userActs += 1;
  held.clear();
  if (ctx.target?.id !== "app") return;
  clearTimeout(slow);
  const parts = changing(ctx.request);
  slow = setTimeout(() => {
    for (const part of parts) { document.body.classList.add(`waiting-${part}`); $(`#${part}`)?.setAttribute("aria-busy", "true"); }
  }, 150);
});
// Of two pages that were asked for, the later one stays: the other would take the thread away under the hands that type in it.
document.addEventListener("htmx:after:request", (event) => {
  const { turn } = event.detail?.ctx ?? {};
  if (turn && turn !== turns) event.preventDefault();
});
document.addEventListener("htmx:finally:request", (event) => {
  if (ours(event)) return;
  busy = Math.max(0, busy - 1);
  if (event.detail?.ctx?.posted) posting = Math.max(0, posting - 1);
  if (!(event.detail?.ctx?.response?.status < 400)) lapse();
  if (!busy) { clearTimeout(slow); rest(); }
  while (!busy && waiting.length && !press(waiting.shift()));
});
document.addEventListener("htmx:before:swap", (event) => {
  if (!ours(event)) return;
  if (event.detail.ctx.response?.status >= 400) return event.preventDefault();
  const page = new DOMParser().parseFromString(event.detail.ctx.text ?? "", "text/html");
  if (!$("#app", page)) { // never in the place of what is read and typed here
    event.preventDefault();
    if ($("input[type=password]", page)) signedOut();
    return;
  }
  const { acts, request } = event.detail.ctx;
  if (acts !== userActs || new URL(request.action, location).pathname !== location.pathname) { event.preventDefault(); return refresh(); }
  for (const { fragment } of event.detail.tasks) { keepWords(fragment); carry(fragment, true); }
  if (whole) held.clear();
  else hold(event.detail.tasks.map((task) => task.fragment?.querySelector?.("#rows")).find(Boolean));
  whole = false;
});
// An answer that is no page of the inbox (refused, gone, signed out) never takes the place of one: what is typed stays there.
document.addEventListener("htmx:before:swap", (event) => {
  const { target, text, response } = event.detail.ctx;
  if (ours(event) || target?.id !== "app") return;
  const page = new DOMParser().parseFromString(text ?? "", "text/html");
  if (event.detail.ctx.posted && elsewhere(event.detail.ctx, page)) { event.preventDefault(); return meanwhile(page); }
  if ($("#app", page)) return event.detail.tasks.forEach((task) => carry(task.fragment, false));
  event.preventDefault();
  if (!$("main.box", page) || $("input[type=password]", page)) {
    const url = new URL(response?.raw?.url ?? "/sign-in", location);
    if (url.pathname === "/sign-in" && !url.searchParams.has("next")) url.searchParams.set("next", location.pathname + location.search);
    return location.assign(url);
  }
  const note = document.createElement("div");
  note.className = "notice notice-bad refused";
  note.setAttribute("role", "alert");
  note.append(...[...$("main.box", page).children].filter((one) => !$("a.button", one)).map((one) => document.importNode(one, true)));
  const title = $("h1", note);
  title?.replaceWith(Object.assign(document.createElement("strong"), { textContent: title.textContent }));
  $(".refused")?.remove();
  ($(".thread-body") ?? $("#list"))?.prepend(note);
  note.scrollIntoView({ block: "nearest" });
});
// What one writes: a reply and a reply to all are the same words.
const writing = () => `${thread()} ${$("#composer")?.dataset.compose.replace("-all", "") ?? ""}`;
// An act was answered after the agent went elsewhere: its page never takes what is written there from under the hands. Its
// toast comes, or why it was refused; the list is read again.
function elsewhere({ at, turns: asked }, page) {
  if (!$("#app, main.box", page) || $("input[type=password]", page)) return false;
  return at !== writing() || asked !== turns && $("#app", page)?.dataset.thread !== thread();
}
function meanwhile(page) {
  const refused = $("[role=alert]", page) ?? $("main.box", page);
  const subject = $(".thread-title h1", page)?.textContent.trim();
  if (refused) {
    $(".support", refused)?.remove();
    say([subject, refused.textContent.trim().replace(/\s+/g, " ")].filter(Boolean).join(": "), { bad: true });
  } else bring(page);
  refresh(true);
}
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
export function pill() {
  const box = $("#pill");
  if (!box) return;
  box.hidden = !held.size;
  box.textContent = held.size ? `${held.size} new` : "";
}

// -- acts by key: they press the button that a mouse would
// While one is under way, those that take a thread out of the list wait their turn: a key held down drops none. What is
// about the act under way (its undo, the reason of a dismissal) waits for that act, and lapses when it fails.
const LEAVING = new Set(["done", "spam", "trash"]);
const ROWS = new Set([...LEAVING, "star", "mark-unread"]);
const ABOUT = /^(undo|redo|reason-\d)$/;
const waiting = [];
const lapse = () => waiting.splice(0, waiting.length, ...waiting.filter((key) => LEAVING.has(key)));
export const press = (key) => {
  const onRow = ROWS.has(key) && meant().length > 0;
  if (busy && (onRow || LEAVING.has(key)) || posting && ABOUT.test(key)) return Boolean(waiting.push(key));
  if (onRow && onRows(key)) return true;
  // What was done last can be undone first: its toast stands before an older mail that is still held.
  const there = $$(`[data-key="${key}"]`).filter((one) => !one.disabled && one.offsetParent !== null);
  const button = there.find((one) => one.closest("#toasts")) ?? there[0];
  if (button) button.click();
  return Boolean(button);
};
