// Toasts: what was just done, and the clock of a message that is about to leave.
import { $, $$ } from "./dom.js";

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

export let said = "";
export function say(words, { bad = false } = {}) {
  said = words;
  setTimeout(() => { if (said === words) said = ""; }, 6000);
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
