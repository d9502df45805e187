"use strict";
(() => {
  // Of an audit alone.
  const all = document.getElementById("all");
  if (all) filter(all);

  // On paper nothing can be unfolded.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details.row:not([open])")];
    folded.forEach((row) => (row.open = true));
  });
  addEventListener("afterprint", () => folded.forEach((row) => (row.open = false)));

  function filter(all) {
    const rows = [...all.querySelectorAll(".row")];
    const headings = [...all.querySelectorAll("h3.section")];
    const form = all.querySelector(".filter");
    const search = document.getElementById("search");
    const boxes = [...form.querySelectorAll("input[type=checkbox]")];
    const chosen = (level) => boxes.filter((box) => box.checked && level === "level" in box.dataset).map((box) => box.value);

    function apply() {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const states = chosen(false);
      const levels = chosen(true);
      let shown = 0;
      for (const row of rows) {
        const { state, level, text } = row.dataset;
        const fits =
          (!states.length || states.includes(state)) &&
          (!levels.length || levels.includes(level)) &&
          words.every((word) => text.includes(word));
        row.hidden = !fits;
        shown += fits;
      }
      for (const heading of headings) {
        let next = heading.nextElementSibling;
        let any = false;
        while (next && next.classList.contains("row")) {
          any ||= !next.hidden;
          next = next.nextElementSibling;
        }
        heading.hidden = !any;
      }
      document.getElementById("shown").textContent = shown;
      document.getElementById("nothing").hidden = shown > 0;
    }

    form.hidden = false;
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    apply();
  }
})();
