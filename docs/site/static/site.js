// For people who use the keyboard or a screen reader: name the two side bars, and let wide examples be scrolled by keys.
for (const [selector, label] of [[".sidebar-drawer", "All pages"], [".toc-drawer", "This page"]]) {
  document.querySelector(selector)?.setAttribute("aria-label", label);
}
for (const block of document.querySelectorAll("pre, .table-wrapper")) {
  block.tabIndex = 0;
}
