"use strict";
(() => {
  const root = document.documentElement;

  // Light or dark: what the system says until the reader says otherwise
  const toggle = document.querySelector(".theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const remember = (theme) => {
    try { localStorage.setItem("thriftbit-theme", theme); } catch { /* not from a file, in some browsers */ }
  };
  const remembered = () => {
    try { return localStorage.getItem("thriftbit-theme"); } catch { return null; }
  };
  const showTheme = () => {
    toggle.textContent = isDark() ? "Light theme" : "Dark theme";
  };
  if (remembered() === "dark" || remembered() === "light") root.dataset.theme = remembered();
  toggle.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remember(root.dataset.theme);
    showTheme();
  });
  system.addEventListener("change", showTheme);
  toggle.hidden = false;
  showTheme();

  // The chart: pointing at a dot, tapping or focusing it shows its card
  const frontier = document.querySelector(".frontier");
  if (frontier) {
    frontier.classList.add("live");
    const points = [...frontier.querySelectorAll(".point")];
    const cards = [...frontier.querySelectorAll(".card")];
    const select = (file) => {
      for (const card of cards) card.classList.toggle("shown", card.dataset.file === file);
      for (const point of points) point.classList.toggle("shown", point.dataset.file === file);
    };
    for (const point of points) {
      const file = point.dataset.file;
      point.querySelector("title").remove(); // the card takes its place
      point.addEventListener("mouseenter", () => select(file));
      point.addEventListener("focus", () => select(file));
      point.addEventListener("click", (event) => { event.preventDefault(); select(file); });
    }
  }

  // Copying a command; where that is not allowed, the text can still be selected
  for (const button of document.querySelectorAll(".copy")) {
    if (!navigator.clipboard) break;
    button.hidden = false;
    button.addEventListener("click", async () => {
      const text = button.parentElement.querySelector("code").textContent;
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(button.parentElement.querySelector("code"));
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }
})();
