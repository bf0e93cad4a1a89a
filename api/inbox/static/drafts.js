// Drafts: on the server at most half a second after typing stops.
import { $, $$, meta } from "./dom.js";
import { typing } from "./live.js";

const timers = new Map();
export let kept = "";
export const wordsOf = (box) => `${box.dataset.draft} ${box.value}`;
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
  typing();
});
addEventListener("pagehide", () => { for (const [box, timer] of timers) { clearTimeout(timer); keep(box); } });
document.addEventListener("submit", (event) => {
  for (const [box, timer] of timers) if (event.target.contains(box)) { clearTimeout(timer); timers.delete(box); }
});

