// Toasts: what was just done, and the clock of a message that is about to leave.
import { $, $$ } from "./dom.js";

const SHORT = 6, UNDO = 15; // seconds; somebody who is over a toast, or in it, is not hurried
const undoTime = () => Math.max(UNDO, Number($("#toasts").dataset.window));
setInterval(() => {
  for (const toast of $$("#toasts > .toast:not(.toast-bad)")) {
    const clock = $("[data-countdown]", toast);
    const seconds = Math.max(0, Number(clock?.dataset.countdown ?? 0) - 1);
    if (clock) {
      clock.dataset.countdown = seconds;
      clock.textContent = seconds ? `Sending in ${seconds} s` : "On its way";
    }
    if (seconds || toast.matches(":hover, :focus-within")) continue;
    const left = Number(toast.dataset.left ?? (clock ? 2 : $("[data-key], a", toast) ? undoTime() : SHORT)) - 1;
    toast.dataset.left = left;
    if (left <= 0) toast.remove();
  }
}, 1000);
// What was done is in the address only until it is shown: reload and a shared link are about the page, not about the act.
function forgetAct() {
  const url = new URL(location.href);
  if (!$("#toasts") || !url.searchParams.has("did")) return;
  for (const name of ["did", "message", "suggestion", "state", "thread", "version", "redo", "until", "back", "was", "to"]) url.searchParams.delete(name);
  history.replaceState(history.state, "", url);
}
document.addEventListener("htmx:after:swap", forgetAct);
forgetAct();

export function say(words, { bad = false } = {}) {
  const toast = document.createElement("div");
  toast.className = "toast";
  toast.textContent = words;
  if (bad) {
    // What was refused stays until somebody has read it.
    toast.classList.add("toast-bad");
    toast.setAttribute("role", "alert");
    toast.append(Object.assign(document.createElement("button"), { type: "button", className: "link", textContent: "Close" }));
  }
  $("#toasts")?.replaceChildren(...$$(".toast-bad", $("#toasts")), toast);
}
document.addEventListener("click", (event) => {
  if (event.target.matches?.(".toast-bad > button")) event.target.parentElement.remove();
});
// A page that is read again keeps what was said on it; one that an agent goes to keeps only what was refused.
export function carry(fragment, all) {
  const fresh = fragment?.querySelector?.("#toasts");
  if (!fresh) return;
  const kept = $$("#toasts > *").filter((one) => all || one.matches(".toast-bad")).map((one) => one.cloneNode(true));
  if (all) fresh.replaceChildren(...kept);
  else fresh.prepend(...kept);
}
// The toasts of a page that is not shown itself.
export function bring(page) {
  const fresh = $$("#toasts > *", page).map((one) => document.importNode(one, true));
  if (!fresh.length || !$("#toasts")) return;
  $("#toasts").replaceChildren(...$$(".toast-bad", $("#toasts")), ...fresh);
  htmx.process($("#toasts"));
}

// The banner: no connection, or nobody signed in any more. What is typed stays on the page either way.
let lost;
export function connected() {
  const box = $("#offline");
  if (lost) box.replaceChildren(...lost);
  box.hidden = true;
}
export function signedOut() {
  const box = $("#offline");
  if (!box) return;
  lost ??= [...box.childNodes];
  const link = document.createElement("a");
  link.href = `/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`;
  link.textContent = "Sign in again";
  box.replaceChildren("You are signed out. What you typed is kept. ", link);
  box.hidden = false;
}
