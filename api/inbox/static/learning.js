// Keys 1 to 9 answer the first message of the queue; they are off with the other single keys.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, dialog")) return;
  if (!document.querySelector("meta[name=keys]")?.content.includes("next=")) return;
  if (/^[1-9]$/.test(event.key)) document.querySelector(`[data-answers] [data-answer="${event.key}"]`)?.click();
});
