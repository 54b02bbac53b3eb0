// The report: its charts, its galleries, and links between them.

/** Mark the section in view in the navigation, and keep its link visible there. */
function startSpy() {
  const nav = document.querySelector(".top nav");
  const links = new Map([...nav.querySelectorAll("a")].map((link) => [link.hash.slice(1), link]));
  const seen = new Set();
  const mark = () => {
    const current = [...links.keys()].find((id) => seen.has(id));
    if (!current) return;
    for (const [id, link] of links) {
      if (id !== current) { link.removeAttribute("aria-current"); continue; }
      if (link.hasAttribute("aria-current")) continue;
      link.setAttribute("aria-current", "true");
      nav.scrollTo({ left: link.offsetLeft - nav.offsetLeft - nav.clientWidth / 3 });
    }
  };
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) seen[isIntersecting ? "add" : "delete"](target.id);
    mark();
  }, { rootMargin: "-20% 0px -60% 0px" });
  for (const id of links.keys()) watch.observe(document.getElementById(id));
}

/** Draw the six clips at the top, and make them one stop for Tab. */
function startHero(gallery) {
  const hero = document.querySelector(".six");
  if (!hero) return;
  for (const link of hero.querySelectorAll("a")) {
    const i = Number(link.dataset.place);
    const score = gallery.data.clips[i].scores[gallery.data.shown].at(-1);
    gallery.draw(link.querySelector("canvas"), i, gallery.data.shown, true);
    link.querySelector("b").textContent = `cIoU ${gallery.score(score)}`;
    link.classList.toggle("failure", score < gallery.data.threshold);
  }
  drawBar(hero.parentElement.querySelector(".bar canvas"), HIGHEST_OPACITY);
  rove(hero, "a");
}

startTheme();
startTables();
startSpy();
for (const root of document.querySelectorAll("[data-chart]")) new Chart(root, DATA.charts[root.dataset.chart]);
const galleries = [...document.querySelectorAll("[data-gallery]")].map((root) => new Gallery(root, DATA.galleries[root.dataset.gallery]));
startKeys(galleries);
Promise.all(galleries.map((gallery) => gallery.start())).then(async () => {
  Gallery.last = Gallery.last || galleries[0] || null;
  startHero(galleries.find((gallery) => gallery.name === "scored"));
  const follow = (address) => followLink(galleries, "The page has a selection of the clips; soundspot browse shows all training clips.", address);
  await follow(location.href);
  // Not location: a gallery may have written its own state there in the meantime.
  addEventListener("hashchange", (event) => follow(event.newURL));
  document.documentElement.dataset.ready = "true";
});
