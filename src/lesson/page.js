(() => {
  "use strict";
  const body = document.body;
  const steps = [...document.querySelectorAll("section.step")];
  const slides = [...document.querySelectorAll(".slide")];
  if (slides.length === 0) return;
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    element.className = className;
    element.textContent = text;
    return element;
  };

  const controls = make("div", "controls", "");
  const plain = make("button", "plain", "As one text");
  const back = make("button", "back", "‹ Back");
  const place = make("span", "place", "");
  const forth = make("button", "forth", "Next ›");
  const again = make("button", "plain", "Once more");
  place.setAttribute("aria-live", "polite");
  for (const button of [plain, back, forth, again]) button.type = "button";
  controls.append(plain, back, place, forth, again);
  body.append(controls);

  let now = 0;
  let flights = [];

  const land = () => {
    for (const flight of flights) flight();
    flights = [];
  };

  // The entry flies from the row it comes from; what comes from nowhere fades in.
  const fly = (slide) => {
    land();
    if (calm.matches) return;
    const rows = new Map();
    for (const row of slide.querySelectorAll("li[data-key]")) rows.set(row.dataset.key, row);
    for (const row of rows.values()) {
      const kind = ["added", "changed", "removed", "copied", "moved", "linked"].find((name) => row.classList.contains(name));
      if (!kind) continue;
      // The view follows the layers.
      const delay = row.dataset.key.startsWith("M:") ? 750 : 120;
      const from = rows.get(row.dataset.from);
      if (!from || from === row) {
        const frames = kind === "removed"
          ? [{ opacity: 1 }, { opacity: 0.15 }, { opacity: 1 }]
          : [{ opacity: 0, transform: "translateY(-0.5rem)" }, { opacity: 1, transform: "none" }];
        const fade = row.animate(frames, { duration: 650, delay, easing: "ease-out", fill: "backwards" });
        flights.push(() => fade.cancel());
        continue;
      }
      const start = from.getBoundingClientRect();
      const end = row.getBoundingClientRect();
      const copy = row.cloneNode(true);
      copy.removeAttribute("data-key");
      copy.setAttribute("aria-hidden", "true");
      copy.classList.add("flying");
      Object.assign(copy.style, { left: `${end.left}px`, top: `${end.top}px`, width: `${end.width}px`, height: `${end.height}px` });
      row.closest("ul").append(copy);
      const motion = copy.animate([
        { transform: `translate(${start.left - end.left}px, ${start.top - end.top}px)`, opacity: 0 },
        { transform: `translate(${(start.left - end.left) * 0.9}px, ${(start.top - end.top) * 0.9}px)`, opacity: 1, offset: 0.2 },
        { transform: "none", opacity: 1 },
      ], { duration: 900, delay, easing: "cubic-bezier(0.4, 0, 0.2, 1)", fill: "both" });
      const wait = row.animate([{ opacity: 0 }, { opacity: 0 }], { duration: 900 + delay });
      const done = () => { motion.cancel(); wait.cancel(); copy.remove(); };
      motion.onfinish = done;
      flights.push(done);
    }
  };

  const show = (index, moving) => {
    now = Math.max(0, Math.min(slides.length - 1, index));
    const slide = slides[now];
    const step = slide.closest(".step");
    for (const other of slides) other.classList.toggle("now", other === slide);
    for (const other of steps) other.classList.toggle("now", other === step);
    for (const link of document.querySelectorAll("nav a")) {
      if (link.hash === `#${step.id}`) link.setAttribute("aria-current", "step");
      else link.removeAttribute("aria-current");
    }
    body.classList.toggle("cover", now === 0);
    back.disabled = now === 0;
    forth.disabled = now === slides.length - 1;
    place.textContent = `${now + 1} / ${slides.length}`;
    history.replaceState(null, "", `#${step.id}.${[...step.querySelectorAll(".slide")].indexOf(slide)}`);
    scrollTo(0, 0);
    if (moving) fly(slide); else land();
  };

  const open = () => {
    const [name, part] = decodeURIComponent(location.hash.slice(1)).split(".");
    const step = steps.find((step) => step.id === name);
    const slide = step && step.querySelectorAll(".slide")[Number(part) || 0];
    show(slide ? slides.indexOf(slide) : 0, false);
  };

  const slideMode = (on) => {
    land();
    body.classList.toggle("slides", on);
    for (const before of document.querySelectorAll(".before")) before.hidden = !on;
    if (on) open();
    else {
      body.classList.remove("cover");
      slides[now].closest(".step").scrollIntoView();
    }
  };

  const slidesAgain = make("button", "as-slides", "Show as slides");
  slidesAgain.type = "button";
  slidesAgain.onclick = () => slideMode(true);
  document.querySelector("header.top").append(slidesAgain);
  back.onclick = () => show(now - 1, false);
  forth.onclick = () => show(now + 1, true);
  again.onclick = () => fly(slides[now]);
  plain.onclick = () => slideMode(false);
  document.querySelector("nav").addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || !body.classList.contains("slides")) return;
    event.preventDefault();
    const step = steps.find((step) => `#${step.id}` === link.hash);
    if (step) show(slides.indexOf(step.querySelector(".slide")), false);
  });
  addEventListener("hashchange", () => { if (body.classList.contains("slides")) open(); });
  addEventListener("resize", land);
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") { slideMode(!body.classList.contains("slides")); return; }
    if (!body.classList.contains("slides")) return;
    const onButton = event.target.closest("button, summary, a");
    const radio = event.target.matches("input[type=radio]");
    const letter = /^[a-z]$/.test(event.key) && slides[now].querySelectorAll(".quiz input")[event.key.charCodeAt(0) - 97];
    if (letter) { letter.checked = true; letter.focus(); return; }
    if (event.key === "ArrowRight" && !radio || event.key === "PageDown" || event.key === " " && !onButton && !radio || event.key === "Enter" && !onButton) show(now + 1, true);
    else if (event.key === "ArrowLeft" && !radio || event.key === "PageUp") show(now - 1, false);
    else if (event.key === "Home") show(0, false);
    else if (event.key === "End") show(slides.length - 1, false);
    else return;
    event.preventDefault();
  });
  slideMode(true);
  // The browser goes to the step that the address names; a slide begins at its top.
  addEventListener("load", () => { if (body.classList.contains("slides")) scrollTo(0, 0); });
})();
