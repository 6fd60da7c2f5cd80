// Pointing at a token shows its examples; choosing it keeps them; leaving brings the kept ones back.
for (const query of document.querySelectorAll(".query")) {
  const buttons = [...query.querySelectorAll("button[data-panel]")];
  const panels = [...query.querySelectorAll(".panel")];
  let kept = query.id + "w";
  const show = (id) => { for (const panel of panels) panel.hidden = panel.id !== id; };
  const keep = (id) => {
    kept = id;
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.panel === id));
    show(id);
  };
  for (const button of buttons) {
    button.addEventListener("pointerenter", (event) => {
      if (event.pointerType === "mouse") show(button.dataset.panel);
    });
    button.addEventListener("click", () => keep(kept === button.dataset.panel ? query.id + "w" : button.dataset.panel));
  }
  query.querySelector(".said").addEventListener("pointerleave", () => show(kept));
}
