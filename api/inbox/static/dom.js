// What every module asks the page for.
export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
export const meta = (name) => $(`meta[name=${name}]`)?.content ?? "";
export const app = () => $("#app");
export const thread = () => app()?.dataset.thread ?? "";
export const frame = document.documentElement;
