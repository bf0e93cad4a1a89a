// The palette: acts that can be done now, views, filters, pages and help by their words; contacts looked up while one types.
import { meant } from "./list.js";

export function palette({ $, $$, acts, run, go }) {
  const list = () => $$("#palette-list li:not([hidden])");
  const here = () => list().find((item) => item.getAttribute("aria-selected") === "true");
  // What each act needs on the page, where it is more than its button.
  const NEEDS = {
    open: ".row", select: ".row", "select-next": ".row", "select-previous": ".row", search: "#search", snooze: "[data-panel=snooze]", label: "[data-panel=label]",
    "next-message": ".message", "previous-message": ".message", "more-acts": ".acts", send: "#reply-form, [data-panel=edit]:not([hidden])", cite: "[data-cite]", help: "#help",
  };
  const possible = (act) => Boolean($(NEEDS[act] ?? `[data-key="${act}"]`) || $(`.bulk-bar [data-rows="${act}"]`) && meant().length);

  function select(item) {
    here()?.setAttribute("aria-selected", "false");
    item?.setAttribute("aria-selected", "true");
    const input = $("#palette-input");
    if (item) input.setAttribute("aria-activedescendant", item.id);
    else input.removeAttribute("aria-activedescendant");
    item?.scrollIntoView({ block: "nearest" });
  }
  function filter(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    for (const item of $$("#palette-list li")) {
      const fits = words.every((word) => item.textContent.toLowerCase().includes(word));
      item.hidden = !fits || Boolean(item.dataset.act && !possible(item.dataset.act));
    }
    // What begins with the words comes before what only has them somewhere.
    const first = list().find((item) => item.textContent.trim().toLowerCase().startsWith(words.join(" ")));
    select(first ?? list()[0]);
    $("#palette-none").hidden = list().length > 0;
  }
  let asked = 0;
  function people(text) {
    clearTimeout(asked);
    asked = setTimeout(async () => {
      let found = [];
      if (text.trim().length > 1) {
        try {
          const answer = await fetch(`/palette?q=${encodeURIComponent(text)}`, { headers: { Accept: "text/html" } });
          if (answer.ok) found = [...new DOMParser().parseFromString(await answer.text(), "text/html").querySelectorAll("li")];
        } catch { /* without a connection there are no contacts, and the rest works */ }
      }
      if ($("#palette-input").value !== text) return; // somebody typed on
      const kept = here()?.id;
      for (const old of $$("#palette-list [id^=cmd-contact]")) old.remove();
      $("#palette-list").append(...found.map((item) => document.adoptNode(item)));
      filter(text);
      const same = kept && document.getElementById(kept);
      if (same && !same.hidden) select(same);
    }, 120);
  }
  function choose(item) {
    $("#palette").close();
    if (item.dataset.act) run(item.dataset.act);
    else go(item.dataset.href);
  }
  acts.palette = () => {
    const box = $("#palette");
    if (!box || box.open) return;
    box.showModal();
    $("#palette-input").value = "";
    people("");
    filter("");
  };
  document.addEventListener("input", (event) => {
    if (event.target.id !== "palette-input") return;
    filter(event.target.value);
    people(event.target.value);
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.id !== "palette-input") return;
    if (event.key === "Enter" && here()) { event.preventDefault(); return choose(here()); }
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const items = list();
    select(items[(items.indexOf(here()) + step + items.length) % items.length]);
  });
  document.addEventListener("click", (event) => {
    const item = event.target.closest?.("#palette-list li");
    if (item) choose(item);
    else if (event.target.id === "palette") event.target.close(); // beside it
  });
}
