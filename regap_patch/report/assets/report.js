"use strict";
// Texts of models reach the page as text nodes only: nothing of them is ever parsed as HTML.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PAGE = 50;
  const list = document.getElementById("list");
  const count = document.getElementById("count");
  const filters = document.getElementById("filters");
  const search = document.getElementById("search");
  const reveal = document.getElementById("reveal");
  let page = 0;
  let found = data.rows;

  const FILTERS = {
    run: (row) => [row.run],
    benchmark: (row) => [row.benchmark],
    mode: (row) => [row.mode],
    kind: (row) => [row.kind],
    class: (row) => row.verdicts.map((verdict) => verdict.class),
    label: (row) => row.verdicts.map((verdict) => verdict.label),
  };

  const make = (tag, text, kind) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  };

  const show = (block) => {
    block.classList.remove("blurred");
    for (const name of ["role", "aria-label"]) block.removeAttribute(name);
  };

  const textBlock = (text, hidden) => {
    const block = make("div", text, "text");
    block.tabIndex = 0;
    if (hidden && !reveal.checked) {
      block.classList.add("blurred");
      block.setAttribute("role", "button");
      block.setAttribute("aria-label", "Blurred because it may be harmful. Press Enter to show.");
      block.addEventListener("click", () => show(block));
      block.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); show(block); }
      });
    }
    return block;
  };

  const verdictText = (verdict) =>
    `${verdict.judge}: ${verdict.label}, ${verdict.class}` +
    (verdict.score === null ? "" : `, ${Number(verdict.score).toPrecision(3)}`) +
    (verdict.error ? ` (${verdict.error})` : "");

  const fill = (details, row) => {
    details.append(make("p", "Asked", "quiet"), textBlock(row.prompt, row.hide_prompt));
    details.append(make("p", `Answered (${row.finish || "no answer"})`, "quiet"), textBlock(row.answer, row.hide_answer));
    const verdicts = make("ul");
    for (const verdict of row.verdicts) verdicts.append(make("li", verdictText(verdict)));
    details.append(verdicts);
    if (row.image) details.append(make("p", `Picture: ${row.image}, SHA-256 ${row.image_sha256}`, "quiet"));
  };

  const entry = (row) => {
    const details = make("details");
    const summary = make("summary", `${row.uid}, ${row.mode}`);
    if (data.runs > 1) summary.append(make("span", row.run, "tag"));
    if (row.scenario) summary.append(make("span", row.scenario, "tag"));
    for (const verdict of row.verdicts) {
      summary.append(make("span", `${verdict.judge}: ${verdict.class}`, verdict.label === "unsafe" ? "tag unsafe" : "tag"));
    }
    details.append(summary);
    details.addEventListener("toggle", () => { if (details.open && details.children.length === 1) fill(details, row); });
    return details;
  };

  const draw = () => {
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    list.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map(entry));
    const spread = data.all > data.rows.length ? ` (an even choice of ${data.all})` : "";
    count.textContent = `${found.length} of ${data.rows.length} samples${spread}, page ${page + 1} of ${pages}`;
  };

  const select = () => {
    const wanted = [...filters.querySelectorAll("select")].filter((box) => box.value).map((box) => [FILTERS[box.name], box.value]);
    const words = search.value.toLowerCase();
    found = data.rows.filter((row) =>
      wanted.every(([values, value]) => values(row).includes(value)) &&
      (!words || `${row.uid}\n${row.prompt}\n${row.answer}`.toLowerCase().includes(words)));
    page = 0;
    draw();
  };

  for (const box of filters.querySelectorAll("select")) {
    const values = [...new Set(data.rows.flatMap(FILTERS[box.name]))].sort();
    for (const value of values) box.append(new Option(value, value));
  }
  filters.addEventListener("input", select);
  filters.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("before").addEventListener("click", () => { page -= 1; draw(); });
  document.getElementById("after").addEventListener("click", () => { page += 1; draw(); });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    const rows = [...list.querySelectorAll("summary")];
    const here = rows.indexOf(document.activeElement);
    const moves = { j: () => rows[Math.min(here + 1, rows.length - 1)], k: () => rows[Math.max(here - 1, 0)], "/": () => search };
    if (event.key in moves) { event.preventDefault(); moves[event.key]()?.focus(); }
    if (event.key === "n" || event.key === "p") { page += event.key === "n" ? 1 : -1; draw(); list.querySelector("summary")?.focus(); }
  });
  draw();
})();
