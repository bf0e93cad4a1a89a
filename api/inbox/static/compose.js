// Writing: which kind of message, its files and saved replies.
import { thread } from "./dom.js";
import { painted } from "./order.js";
import { say as tell } from "./toasts.js";

export function compose({ $, $$, acts, press, send, meta }) {
  const kind = () => $("#composer")?.dataset.compose ?? "";
  let focus = "", early = "", sending = false, since = 0, meant = ""; // meant: the thread that the letters are for

  // The key of a kind opens it, or goes to the words when it is open already.
  for (const wanted of ["reply", "reply-all", "forward", "note"]) {
    acts[wanted] = () => {
      if (kind() === wanted) return write();
      wait(wanted);
      if (!press(wanted)) focus = "";
    };
  }
  acts["send-done"] = () => send("send-done");
  // Letters typed before the page of another kind has come are words for it, never keys that act on the thread.
  function wait(wanted) {
    focus = wanted;
    early = "";
    sending = false;
    since = Date.now();
    meant = thread();
  }
  addEventListener("keydown", (event) => {
    if (!focus || Date.now() - since > 5000 || event.altKey) return;
    if (event.ctrlKey || event.metaKey) {
      if (event.key !== "Enter") return;
      sending = true; // never what stands in the form that is about to go
    } else if (event.key.length === 1) early += event.key;
    else if (event.key === "Enter") early += "\n";
    else return;
    event.preventDefault();
    event.stopImmediatePropagation();
  }, true);
  // Enter in a line above the words goes on to them: the first button of the form would be another act.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.ctrlKey || event.metaKey || !event.target.matches?.("#reply-form input:not([type=checkbox])")) return;
    event.preventDefault();
    if (event.target.id === "later") event.target.parentElement.querySelector("button").click();
    else $("#reply").focus();
  });
  // Another thread was opened first: letters for this one never come into that one, and nothing there is sent by them.
  function lapse() {
    if (early) tell(`Not kept, because another thread was opened: ${early}`, { bad: true });
    focus = early = "";
    sending = false;
  }
  function write() {
    const box = kind() === "forward" && !$("#to").value ? $("#to") : $("#reply");
    box?.focus();
    if (box?.id === "reply") box.setSelectionRange(kind() === "forward" ? 0 : box.value.length, kind() === "forward" ? 0 : box.value.length);
    if (early && box) {
      box.setRangeText(early, box.selectionStart, box.selectionEnd, "end");
      box.dispatchEvent(new Event("input", { bubbles: true }));
      early = "";
    }
    if (sending && kind() !== "forward") acts.send();
    sending = false;
    $("#composer")?.scrollIntoView({ block: "nearest" });
  }
  document.addEventListener("htmx:after:swap", () => {
    if (focus && thread() !== meant) lapse();
    if (focus && kind() === focus) { focus = ""; write(); }
    if ($("#saved:popover-open") && $("#saved").dataset.from !== asked) $("#saved").hidePopover();
  });
  document.addEventListener("click", (event) => {
    const mode = event.target.closest(".modes a");
    if (mode && focus !== mode.dataset.key) wait(mode.dataset.key);
    const saved = event.target.closest("[data-insert]");
    if (saved) insert(saved.dataset.insert);
  });

  // Saved replies: chosen by a button, or by `/` at the start of a line.
  function insert(text) {
    const box = $("#reply");
    $("#saved")?.hidePopover();
    box.focus();
    const at = box.selectionStart;
    const slash = box.value[at - 1] === "/" ? 1 : 0;
    box.setRangeText(text, at - slash, box.selectionEnd, "end");
    box.dispatchEvent(new Event("input", { bubbles: true }));
  }
  document.addEventListener("input", (event) => {
    const box = event.target;
    if (box.id !== "reply" || !$("#saved") || event.data !== "/") return;
    const before = box.value.slice(0, box.selectionStart - 1);
    if (before && !before.endsWith("\n")) return;
    $("#saved").showPopover({ source: $("#saved-button") });
  });
  let asked = "", filled = ""; // for which thread: their names stand in the words
  document.addEventListener("toggle", async (event) => {
    const box = event.target;
    if (box.id !== "saved" || event.newState !== "open") return;
    const { from } = box.dataset;
    asked = from;
    if (filled !== from) for (const old of $$("#saved li")) old.remove();
    $("#saved a")?.focus();
    try {
      const answer = await fetch(from, { headers: { Accept: "text/html" } });
      const list = answer.ok && new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("#saved-list");
      if (box.dataset.from !== from) return; // that thread was left
      if (!list) throw new Error(String(answer.status));
      $("#saved-list").replaceWith(document.adoptNode(list));
      filled = from;
    } catch {
      if (box.dataset.from !== from) return;
      const said = $("#saved-list p") ?? $("#saved-list").appendChild(document.createElement("p"));
      said.textContent = "The saved replies did not come. Close this and try again.";
    }
    if (box.matches(":popover-open")) $("#saved button, #saved a").focus();
  }, true);
  document.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !event.target.matches?.("#saved button")) return;
    event.preventDefault();
    const all = $$("#saved button");
    all[(all.indexOf(event.target) + step + all.length) % all.length].focus();
  });

  // Files: chosen, dropped or pasted, they go to the server at once and wait there with the words.
  async function upload(files) {
    const box = $("#reply[data-files]");
    if (!box || !files.length) return;
    const body = new FormData();
    body.set("kind", box.dataset.kind);
    for (const file of files) body.append("files", file, file.name || "pasted.png");
    const { files: place, kind: written } = box.dataset;
    const here = () => { const now = $("#reply")?.dataset; return now?.files === place && now.kind === written; }; // or another thread is open by then
    const say = (words) => { if (here()) $("#draft-state").textContent = words; };
    say("Keeping the file…");
    try {
      const answer = await fetch(place, { method: "POST", body, headers: { "X-CSRF-Token": meta("csrf"), Accept: "text/html" } });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const list = $("#uploads", page);
      if (list && here()) { painted(); $("#uploads").replaceWith(document.adoptNode(list)); htmx.process($("#uploads")); }
      say(answer.ok ? "File kept" : "The file was not kept");
    } catch {
      say("Offline: the file was not kept, try again");
    }
  }
  document.addEventListener("change", (event) => {
    if (!event.target.matches("[data-upload]")) return;
    upload([...event.target.files]);
    event.target.value = "";
  });
  document.addEventListener("paste", (event) => {
    if (event.target.id === "reply" && event.clipboardData?.files.length) { event.preventDefault(); upload([...event.clipboardData.files]); }
  });
  for (const name of ["dragover", "drop"]) {
    document.addEventListener(name, (event) => {
      if (!event.target.closest?.("#composer, .new-message") || !event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      if (name === "drop") upload([...event.dataTransfer.files]);
    });
  }
}
