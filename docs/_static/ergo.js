// Names the arrows that open parts of the navigation, for readers who hear the page.
document.addEventListener("DOMContentLoaded", () => {
  for (const arrow of document.querySelectorAll(".bd-links summary")) {
    const link = arrow.closest("li").querySelector("a");
    arrow.setAttribute("aria-label", `Pages of ${link.textContent.trim()}`);
  }
});
