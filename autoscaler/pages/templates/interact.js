// Tables that sort by a column's button and filter by text, and buttons that copy. No library, no network.
(() => {
  const value = (row, column) => {
    const cell = row.cells[column];
    const key = cell.dataset.key;
    const number = key === undefined || key === "" ? NaN : Number(key);
    return Number.isNaN(number) ? cell.textContent.trim().toLowerCase() : number;
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((h) => h.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => compare(value(a, column), value(b, column)) * (up ? 1 : -1));
        table.tBodies[0].append(...rows);
      });
    });
  }
  for (const input of document.querySelectorAll("input[data-filters]")) {
    const table = document.getElementById(input.dataset.filters);
    const said = document.getElementById(input.dataset.filters + "-count");
    const apply = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of table.tBodies[0].rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += !row.hidden;
      }
      said.textContent = shown + " of " + table.tBodies[0].rows.length + " rows";
    };
    input.addEventListener("input", apply);
    apply();
  }
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch (_) { // no permission, or no secure context: the old way
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  };
  for (const button of document.querySelectorAll("button[data-copies]")) {
    const said = document.getElementById(button.dataset.copies + "-said");
    button.addEventListener("click", async () => {
      const done = await copy(document.getElementById(button.dataset.copies).textContent);
      said.textContent = done ? "Copied." : "The browser did not allow it: select the text.";
      button.focus();
    });
  }
})();
