// Draw the plots, and give their text the colours of the reader's scheme; printing is always light.
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const paint = (isDark) => {
    const ink = isDark ? "#a3abb5" : "#5d6671";
    for (const doc of Bokeh.documents) {
      for (const root of doc.roots()) {
        for (const axis of root.below.concat(root.left)) {
          axis.axis_line_color = axis.major_tick_line_color = ink;
          axis.major_label_text_color = axis.axis_label_text_color = ink;
        }
      }
    }
  };
  const now = () => paint(dark.matches);
  window.repaint = now; // for plots that are drawn later
  const ready = setInterval(() => {
    if (Bokeh.documents.length === 0) return;
    clearInterval(ready);
    now();
  }, 20);
  dark.addEventListener("change", now);
  window.addEventListener("beforeprint", () => paint(false));
  window.addEventListener("afterprint", now);
})();
